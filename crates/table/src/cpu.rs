//! What a CPU is asked to do besides storing descriptors: barriers, TLB invalidations, writes of TTBR0 and TCR.
//!
//! The kernel implements [`Cpu`] with instructions, tests with a recording; [`Counted`] counts around either.

use linmap_vmsa::tlbi::VaOperand;

/// A data synchronization barrier, by what it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dsb {
    /// DSB ISHST: stores of this CPU, visible to the walkers of all CPUs of the inner domain.
    Ishst,
    /// DSB ISH: all accesses and broadcast TLBIs.
    Ish,
    /// DSB NSH: all accesses and this CPU's own TLBIs.
    Nsh,
}

/// A TLB invalidation of the regime the kernel runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tlbi {
    /// VAALE1IS: leaf entries for one address, every ASID, on every CPU of the inner domain.
    LastLevelByVa(VaOperand),
    /// VMALLE1: everything, on this CPU alone.
    AllLocal,
}

/// The instructions that order and publish table writes.
pub trait Cpu {
    /// Waits as `dsb` says.
    fn dsb(&mut self, dsb: Dsb);
    /// Synchronises the context: what follows is fetched and translated anew.
    fn isb(&mut self);
    /// Starts an invalidation, which the next DSB of sufficient scope completes.
    fn tlbi(&mut self, tlbi: Tlbi);
    /// Writes TTBR0.
    fn write_ttbr0(&mut self, value: u64);
    /// Writes TCR.
    fn write_tcr(&mut self, value: u64);
}

/// How many of the expensive instructions ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// TLB invalidations.
    pub tlbi: u64,
    /// Data synchronization barriers.
    pub dsb: u64,
    /// Instruction synchronization barriers.
    pub isb: u64,
}

/// A CPU whose barriers and invalidations are counted.
#[derive(Debug, Default)]
pub struct Counted<C> {
    /// The CPU that executes them.
    pub cpu: C,
    /// What ran so far.
    pub counts: Counts,
}

impl<C: Cpu> Cpu for Counted<C> {
    #[inline]
    fn dsb(&mut self, dsb: Dsb) {
        self.counts.dsb += 1;
        self.cpu.dsb(dsb);
    }

    #[inline]
    fn isb(&mut self) {
        self.counts.isb += 1;
        self.cpu.isb();
    }

    #[inline]
    fn tlbi(&mut self, tlbi: Tlbi) {
        self.counts.tlbi += 1;
        self.cpu.tlbi(tlbi);
    }

    #[inline]
    fn write_ttbr0(&mut self, value: u64) {
        self.cpu.write_ttbr0(value);
    }

    #[inline]
    fn write_tcr(&mut self, value: u64) {
        self.cpu.write_tcr(value);
    }
}
