//! The addresses of an edit, and who may access them during it.

use linmap_vmsa::VaRange;

use crate::exclusivity::Exclusivity;

/// The caller's promise that no CPU accesses the range during the edit.
///
/// ```
/// use linmap_live::{Quiescent, Target};
/// use linmap_vmsa::{Va, VaRange};
///
/// /// A stack whose CPU is off: nobody accesses it, so its block may be split at any BBM level.
/// fn stack_of_a_cpu_that_is_off(stack: VaRange) -> Target {
///     // SAFETY: the CPU is off, and no other code, data or table lies in the stack's block.
///     Target::Quiescent(unsafe { Quiescent::new(stack) })
/// }
/// # let _ = stack_of_a_cpu_that_is_off(VaRange::new(Va(0), 0x1000));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quiescent {
    range: VaRange,
}

impl Quiescent {
    /// Promises it for `range`.
    ///
    /// # Safety
    /// From planning until the plan is applied or abandoned, no CPU accesses an address in the
    /// range, or one that shares a block or a contiguous run with it. So no code, stack, vector,
    /// data or table window lies there.
    pub const unsafe fn new(range: VaRange) -> Self {
        Self { range }
    }
}

/// The caller's promise that accesses to a range that fault during an edit are retried.
///
/// It is for the tree of a process or a guest: the kernel or hypervisor that handles the faults
/// uses other tables. So break-before-make is legal while all CPUs use the range.
///
/// ```
/// use linmap_live::{Retried, Target};
/// use linmap_vmsa::{Va, VaRange};
///
/// /// Memory of a process, whose page faults wait for the editor and try again.
/// fn memory_of_a_process(range: VaRange) -> Target {
///     // SAFETY: only user space uses the range, and its faults are retried.
///     Target::Retried(unsafe { Retried::new(range) })
/// }
/// # let _ = memory_of_a_process(VaRange::new(Va(0), 0x1000));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retried {
    range: VaRange,
}

impl Retried {
    /// Promises it for `range`.
    ///
    /// # Safety
    /// From planning until the plan is applied, if an access to the range, or to a block or a
    /// contiguous run that reaches into it, takes a translation fault, it is retried after the
    /// edit. So the fault handler waits for the editor, and no code, stack, vector, data or table
    /// window of either lies in the range.
    pub const unsafe fn new(range: VaRange) -> Self {
        Self { range }
    }
}

/// The caller's promise that no CPU walks the tree while the plan for a range is applied.
///
/// CPUs may use the tree during planning and checking, which write only to new tables that nothing
/// leads to. CPUs are parked only while the plan is applied.
///
/// ```
/// use linmap_live::{Parked, Target};
/// use linmap_vmsa::{Va, VaRange};
///
/// /// A range that is edited while all CPUs wait on another root.
/// fn edited_parked(range: VaRange) -> Target {
///     // SAFETY: the plan is applied after the rendezvous, and before the release of the CPUs.
///     Target::Parked(unsafe { Parked::new(range) })
/// }
/// # let _ = edited_parked(VaRange::new(Va(0), 0x1000));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parked {
    range: VaRange,
}

impl Parked {
    /// Promises it for `range`.
    ///
    /// # Safety
    /// From the first step applied to the last, no CPU has the tree in a TTBR. When the first step
    /// is applied, no TLB holds anything of the tree: every CPU has left the root by a write of the
    /// TTBR, ISB, TLBI VMALLE1, DSB NSH and ISB, or a stronger sequence.
    pub const unsafe fn new(range: VaRange) -> Self {
        Self { range }
    }

    /// The addresses.
    pub const fn range(self) -> VaRange {
        self.range
    }
}

/// The addresses of an edit, and who may access them during it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Any CPU may access any address that stays mapped, at any time. Leaves change their size only
    /// at BBM level 3.
    InUse(VaRange),
    /// Any CPU may access any address at any time, and an access that faults during the edit is
    /// retried. Leaves change at every BBM level, by break-before-make below level 3.
    Retried(Retried),
    /// No CPU accesses the range during the edit. Leaves change their size at every BBM level, by
    /// the procedure of that level.
    Quiescent(Quiescent),
    /// No CPU walks the tree while the plan is applied. Everything changes in place at every BBM
    /// level. One invalidation of everything ends the plan.
    Parked(Parked),
}

impl Target {
    /// The addresses.
    pub const fn range(self) -> VaRange {
        match self {
            Self::InUse(range) => range,
            Self::Retried(retried) => retried.range,
            Self::Quiescent(quiescent) => quiescent.range,
            Self::Parked(parked) => parked.range,
        }
    }

    pub(crate) const fn exclusivity(self) -> Exclusivity {
        match self {
            Self::InUse(_) => Exclusivity::InUse,
            Self::Retried(_) => Exclusivity::Retried,
            Self::Quiescent(_) => Exclusivity::Quiescent,
            Self::Parked(_) => Exclusivity::Parked,
        }
    }
}
