//! What a CPU does to live tables: stores, barriers, TLB invalidations, cache maintenance, writes
//! of TTBRs and TCR.
//!
//! The crate `linmap-cpu` implements [`Cpu`] with the instructions of each regime, the machine
//! model with events; [`Counted`] counts around either.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use linmap_vmsa::tlbi::{RangeOperand, VaOperand};
use linmap_vmsa::{Descriptor, Va};

use crate::window::TableWindow;

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

/// A TLB invalidation of the one translation regime that a [`Cpu`] acts on. All but
/// [`AllLocal`](Self::AllLocal) reach every CPU of the inner domain.
///
/// | | EL1&0 | EL2 | EL3 | stage 2 |
/// |---|---|---|---|---|
/// | `ByVa` | VAAE1IS | VAE2IS | VAE3IS | IPAS2E1IS |
/// | `LastLevelByVa` | VAALE1IS | VALE2IS | VALE3IS | IPAS2LE1IS |
/// | `ByRange` | RVAAE1IS | RVAE2IS | RVAE3IS | RIPAS2E1IS |
/// | `LastLevelByRange` | RVAALE1IS | RVALE2IS | RVALE3IS | RIPAS2LE1IS |
/// | `All` | VMALLE1IS | ALLE2IS | ALLE3IS | VMALLS12E1IS |
/// | `AllLocal` | VMALLE1 | ALLE2 | ALLE3 | VMALLS12E1 |
/// | `ByVaInAsid` | VAE1IS | | | |
/// | `LastLevelByVaInAsid` | VALE1IS | | | |
/// | `ByRangeInAsid` | RVAE1IS | | | |
/// | `LastLevelByRangeInAsid` | RVALE1IS | | | |
/// | `Asid` | ASIDE1IS | | | |
/// | `Stage1` | VMALLE1IS | | | VMALLE1IS |
///
/// EL2&0 of a host (`HCR_EL2.{E2H, TGE}` = {1, 1}) has the forms of EL1&0. If a regime lacks a
/// form, the CPU issues one that removes at least as much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tlbi {
    /// All entries that translate one input address, walk-cache entries too, in every ASID. At
    /// stage 2 the input address is an IPA, and entries that combine both stages remain: see
    /// [`Stage1`](Self::Stage1).
    ByVa(VaOperand),
    /// Leaf entries for one input address, in every ASID.
    LastLevelByVa(VaOperand),
    /// As [`ByVa`](Self::ByVa) for a range; FEAT_TLBIRANGE.
    ByRange(RangeOperand),
    /// As [`LastLevelByVa`](Self::LastLevelByVa) for a range; FEAT_TLBIRANGE.
    LastLevelByRange(RangeOperand),
    /// All entries of the regime; at stage 2, all of both stages in the current VMID.
    All,
    /// As [`All`](Self::All), on this CPU only.
    AllLocal,
    /// All entries that translate one address in the operand's ASID, walk-cache entries too, and
    /// global leaf entries for the address.
    ByVaInAsid(VaOperand),
    /// Leaf entries for one address in the operand's ASID, and global ones.
    LastLevelByVaInAsid(VaOperand),
    /// As [`ByVaInAsid`](Self::ByVaInAsid) for a range; FEAT_TLBIRANGE.
    ByRangeInAsid(RangeOperand),
    /// As [`LastLevelByVaInAsid`](Self::LastLevelByVaInAsid) for a range; FEAT_TLBIRANGE.
    LastLevelByRangeInAsid(RangeOperand),
    /// All entries of one ASID. Global leaf entries remain.
    Asid(u16),
    /// All entries of stage 1 in the current VMID, and those that combine both stages. An
    /// invalidation by IPA does not remove the latter, so this invalidation must follow it, after a
    /// DSB ISH (Arm ARM D8.17).
    Stage1,
}

/// The instructions that write live tables and order the writes: one CPU as one translation regime
/// sees it. A hypervisor has one such value for its own tables and another for its guests'.
///
/// # Safety
/// Each function does what it says: what was stored is in memory, a barrier orders, an invalidation
/// removes. Pointers to what was mapped are followed in reliance on that.
pub unsafe trait Cpu {
    /// Table frames at one offset from their physical address, as this CPU reaches them.
    type Frames: TableWindow;

    /// Stores `descriptor` in an entry of a table that walkers may read at the same time: one
    /// single-copy atomic 64-bit store.
    ///
    /// # Safety
    /// `entry` must be valid for writes and aligned, and what the descriptor maps must be memory
    /// that may be accessed as its attributes say.
    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor);
    /// Stores `count` consecutive entries, `first`, `first` + `step` and so on, each as
    /// [`store`](Self::store) does, in any order.
    ///
    /// # Safety
    /// As for `store`, for each of them.
    #[inline]
    unsafe fn store_run(&mut self, entries: NonNull<u64>, count: usize, first: Descriptor, step: u64) {
        for i in 0..count {
            let descriptor = Descriptor(first.0.wrapping_add(step.wrapping_mul(i as u64)));
            // SAFETY: the caller's.
            unsafe { self.store(entries.add(i), descriptor) };
        }
    }
    /// Replaces an entry that hardware may update at the same time, if it still is `expected`: one
    /// atomic compare-exchange, which orders what it makes visible after all stores before it. The
    /// CPU that this code runs on does so by [`exchange_entry`]; a value that wraps another CPU
    /// passes it on.
    ///
    /// # Errors
    /// What the entry is instead. It stays as it is.
    ///
    /// # Safety
    /// As for [`store`](Self::store). The entry is reached through a mapping that is Normal,
    /// write-back cacheable and inner shareable, with the MMU on, as walks are: elsewhere an
    /// exclusive access may not be atomic with an update by hardware (Arm ARM B2.12).
    unsafe fn compare_exchange(
        &mut self,
        entry: NonNull<u64>,
        expected: Descriptor,
        new: Descriptor,
    ) -> Result<(), Descriptor>;
    /// Returns the address by which this CPU reaches what is mapped at `va`.
    ///
    /// ```compile_fail,E0133
    /// # use linmap_table::cpu::Cpu;
    /// # use linmap_vmsa::Va;
    /// fn reach(cpu: &mut impl Cpu) {
    ///     let _ = cpu.reach(Va(0));
    /// }
    /// ```
    ///
    /// # Safety
    /// Something is mapped at `va`, which is not 0, by the tables that this CPU walks.
    unsafe fn reach(&mut self, va: Va) -> NonNull<u64>;
    /// Returns the window in which the frame at PA p is reached at VA p + `offset` (wrapping).
    ///
    /// # Safety
    /// As for [`OffsetWindow::new`](crate::OffsetWindow::new).
    unsafe fn frames_at(&mut self, offset: u64) -> Self::Frames;
    /// Waits as `dsb` says.
    fn dsb(&mut self, dsb: Dsb);
    /// Synchronises the context: later instructions are fetched and translated anew.
    fn isb(&mut self);
    /// Starts an invalidation, which the next DSB of sufficient scope completes.
    fn tlbi(&mut self, tlbi: Tlbi);
    /// Cleans and invalidates the data cache lines of `len` bytes from `va` on to the point of
    /// coherency (DC CIVAC), and waits for completion (DSB SY).
    ///
    /// # Safety
    /// This CPU's own tables map the range.
    unsafe fn clean_and_invalidate(&mut self, va: Va, len: u64);
    /// Writes TTBR0; VTTBR at stage 2.
    ///
    /// # Safety
    /// The value names a root table of the size that TCR asks for, and what the tables below it map
    /// may be accessed as its attributes say. Nothing relies on what only the old root maps.
    unsafe fn write_ttbr0(&mut self, value: u64);
    /// Writes TTBR1.
    ///
    /// # Safety
    /// As for [`write_ttbr0`](Self::write_ttbr0). The regime has a TTBR1: EL2 with E2H clear, EL3
    /// and stage 2 have none.
    unsafe fn write_ttbr1(&mut self, value: u64);
    /// Writes TCR; VTCR at stage 2.
    ///
    /// # Safety
    /// The roots in both TTBRs are of the size and the format that the value asks for.
    unsafe fn write_tcr(&mut self, value: u64);
}

/// [`Cpu::compare_exchange`] of the CPU that this code runs on.
///
/// # Errors
/// What the entry is instead.
///
/// # Safety
/// As for [`Cpu::compare_exchange`].
// CAS with FEAT_LSE, LDAXR and STLXR without.
#[inline]
pub unsafe fn exchange_entry(
    entry: NonNull<u64>,
    expected: Descriptor,
    new: Descriptor,
) -> Result<(), Descriptor> {
    // SAFETY: the caller promises an aligned entry that is valid for reads and writes. No Rust
    // reference leads to entries that hardware updates.
    let entry = unsafe { AtomicU64::from_ptr(entry.as_ptr()) };
    let exchanged = entry.compare_exchange(expected.0, new.0, Ordering::AcqRel, Ordering::Acquire);
    exchanged.map(|_| ()).map_err(Descriptor)
}

/// Makes an invalid entry of a live table valid: the store, DSB ISHST, ISB.
///
/// No invalidation is needed, since a TLB never holds an invalid entry (Arm ARM D8.16.1, RWHZWS).
/// The DSB makes the store visible to walkers. The ISB is for this CPU: it may have walked ahead,
/// found the invalid entry, and would still raise the fault.
///
/// # Safety
/// As for [`Cpu::store`]. The entry is invalid, and a DSB ISHST has ordered the tables that a table
/// descriptor leads to.
#[inline]
pub unsafe fn store_valid<C: Cpu>(cpu: &mut C, entry: NonNull<u64>, descriptor: Descriptor) {
    // SAFETY: the caller's.
    unsafe { cpu.store(entry, descriptor) };
    cpu.dsb(Dsb::Ishst);
    cpu.isb();
}

/// How many of the expensive instructions were executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InstructionCounts {
    /// TLB invalidations.
    pub tlbi: u64,
    /// Data synchronization barriers.
    pub dsb: u64,
    /// Instruction synchronization barriers.
    pub isb: u64,
}

/// A CPU whose barriers and invalidations are counted.
///
/// ```
/// use linmap_table::cpu::{Counted, Cpu, Dsb, InstructionCounts, Tlbi};
///
/// /// What an unmap executes after its store.
/// fn invalidate<C: Cpu>(cpu: C) -> InstructionCounts {
///     let mut cpu = Counted { cpu, counts: InstructionCounts::default() };
///     cpu.dsb(Dsb::Ishst);
///     cpu.tlbi(Tlbi::All);
///     cpu.dsb(Dsb::Ish);
///     cpu.isb();
///     cpu.counts
/// }
/// ```
#[derive(Debug, Default)]
pub struct Counted<C> {
    /// The CPU that executes them.
    pub cpu: C,
    /// What was executed so far.
    pub counts: InstructionCounts,
}

// SAFETY: passes on what the CPU does.
unsafe impl<C: Cpu> Cpu for Counted<C> {
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

    #[inline]
    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.reach(va) }
    }

    #[inline]
    unsafe fn frames_at(&mut self, offset: u64) -> C::Frames {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.frames_at(offset) }
    }

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
    unsafe fn clean_and_invalidate(&mut self, va: Va, len: u64) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.clean_and_invalidate(va, len) };
    }

    #[inline]
    unsafe fn write_ttbr0(&mut self, value: u64) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.write_ttbr0(value) };
    }

    #[inline]
    unsafe fn write_ttbr1(&mut self, value: u64) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.write_ttbr1(value) };
    }

    #[inline]
    unsafe fn write_tcr(&mut self, value: u64) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.cpu.write_tcr(value) };
    }
}
