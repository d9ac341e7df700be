//! A CPU whose invalidations name one ASID.

use core::ptr::NonNull;

use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_vmsa::tlbi::VaOperand;
use linmap_vmsa::{Descriptor, Va};

/// The CPU as the tree of one ASID needs it: what would be invalidated in every ASID is invalidated
/// in this one.
pub(crate) struct InAsid<'c, C> {
    pub cpu: &'c mut C,
    pub asid: u16,
}

impl<C> InAsid<'_, C> {
    /// The same invalidation in the ASID.
    fn narrowed(&self, tlbi: Tlbi) -> Tlbi {
        let operand = |operand: VaOperand| VaOperand(operand.0 | u64::from(self.asid) << 48);
        match tlbi {
            Tlbi::ByVa(every) => Tlbi::ByVaInAsid(operand(every)),
            Tlbi::LastLevelByVa(every) => Tlbi::LastLevelByVaInAsid(operand(every)),
            Tlbi::ByRange(every) => Tlbi::ByRangeInAsid(every.in_asid(self.asid)),
            Tlbi::LastLevelByRange(every) => Tlbi::LastLevelByRangeInAsid(every.in_asid(self.asid)),
            Tlbi::All => Tlbi::Asid(self.asid),
            other => other,
        }
    }
}

// SAFETY: hands on what the CPU does. No TLB holds leaves of the tree but those of its ASID.
unsafe impl<C: Cpu> Cpu for InAsid<'_, C> {
    type Frames = C::Frames;

    #[inline]
    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.store(entry, descriptor) };
    }

    #[inline]
    unsafe fn store_run(&mut self, entries: NonNull<u64>, count: usize, first: Descriptor, step: u64) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.store_run(entries, count, first, step) };
    }

    #[inline]
    unsafe fn compare_exchange(
        &mut self,
        entry: NonNull<u64>,
        expected: Descriptor,
        new: Descriptor,
    ) -> Result<(), Descriptor> {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.compare_exchange(entry, expected, new) }
    }

    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.reach(va) }
    }

    unsafe fn frames_at(&mut self, offset: u64) -> C::Frames {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.frames_at(offset) }
    }

    #[inline]
    fn dsb(&mut self, dsb: Dsb) {
        self.cpu.dsb(dsb);
    }

    #[inline]
    fn isb(&mut self) {
        self.cpu.isb();
    }

    #[inline]
    fn tlbi(&mut self, tlbi: Tlbi) {
        self.cpu.tlbi(self.narrowed(tlbi));
    }

    unsafe fn clean_and_invalidate(&mut self, va: Va, len: u64) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.clean_and_invalidate(va, len) };
    }

    unsafe fn write_ttbr0(&mut self, value: u64) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.write_ttbr0(value) };
    }

    unsafe fn write_ttbr1(&mut self, value: u64) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.write_ttbr1(value) };
    }

    unsafe fn write_tcr(&mut self, value: u64) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.write_tcr(value) };
    }
}
