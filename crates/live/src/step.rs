//! The steps of a plan as data, which can be printed, checked, run on a model, and applied.

use core::fmt;

use linmap_vmsa::{Descriptor, Level, Pa, Va};

use linmap_table::cpu::Dsb;

/// What becomes of the entries of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edit {
    /// Each entry is overwritten: `first`, `first` + `step`, `first` + 2 × `step` and so on
    /// (wrapping).
    Write {
        /// The first entry's new value.
        first: Descriptor,
        /// What each next value adds; 0 for invalid entries.
        step: u64,
    },
    /// In each entry the bits in `clear` are cleared, then those in `set` are set.
    Bits {
        /// Bits to clear.
        clear: u64,
        /// Bits to set.
        set: u64,
    },
}

impl Edit {
    /// What entry `nth` of the run becomes when it is `old`.
    #[inline]
    pub const fn of(self, old: Descriptor, nth: usize) -> Descriptor {
        match self {
            Self::Write { first, step } => Descriptor(first.0.wrapping_add(step.wrapping_mul(nth as u64))),
            Self::Bits { clear, set } => Descriptor(old.0 & !clear | set),
        }
    }
}

/// Stores to consecutive entries of one live table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Store {
    /// First address that the first entry translates.
    pub va: Va,
    /// The table.
    pub table: Pa,
    /// The table's level.
    pub level: Level,
    /// Index of the first entry.
    pub index: u16,
    /// How many entries, 1 or more.
    pub count: u16,
    /// What becomes of them.
    pub edit: Edit,
}

/// Stores to every leaf of a range, valid or invalidated: its bits in `clear` are cleared, then
/// those in `set` are set. One step, however many tables there are; what it stores to is found when
/// it is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EveryLeaf {
    /// First address. No leaf that the step changes reaches below.
    pub first: Va,
    /// Last address. No leaf that the step changes reaches beyond.
    pub last: Va,
    /// Bits to clear.
    pub clear: u64,
    /// Bits to set.
    pub set: u64,
}

/// What an invalidation by address removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Leaf entries alone.
    LastLevel,
    /// Leaf entries, and what walk caches hold of the tables above them.
    AllLevels,
}

/// Invalidations on all CPUs, in every ASID, none with a level hint: after a split without
/// invalidation a TLB may hold leaves of any size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidation {
    /// Everything (VMALLE1IS).
    All,
    /// One invalidation by address for each of `count` addresses (VAAE1IS, VAALE1IS).
    ByVa {
        /// The first address.
        va: Va,
        /// How many.
        count: u32,
        /// log2 of the distance between them in bytes.
        shift: u32,
        /// What is removed.
        reach: Reach,
    },
    /// One invalidation by range (RVAAE1IS, RVAALE1IS).
    ByRange {
        /// The first address.
        va: Va,
        /// How many pages, a number that one operand can say.
        pages: u64,
        /// What is removed.
        reach: Reach,
    },
}

/// One step of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Stores to a live table.
    Store(Store),
    /// A DSB.
    Dsb(Dsb),
    /// An ISB.
    Isb,
    /// TLB invalidations.
    Invalidate(Invalidation),
    /// Stores to all leaves of a range, in a parked plan alone.
    EveryLeaf(EveryLeaf),
    /// Returns the frames of a table that was removed, and of all below it.
    Free {
        /// First address that the table translated.
        va: Va,
        /// The table.
        table: Pa,
        /// The table's level.
        level: Level,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(Store { va, table, level, index, count, edit }) => {
                write!(f, "store  {va} L{level} {:#014x}[{index:>4}; {count:>4}] ", table.0)?;
                match edit {
                    Edit::Write { first, step: 0 } if *first == Descriptor::INVALID => f.write_str("invalid"),
                    Edit::Write { first, step } if *count > 1 => write!(f, "{first:?} + {step:#x}"),
                    Edit::Write { first, .. } => write!(f, "{first:?}"),
                    Edit::Bits { clear, set } => write!(f, "clear {clear:#018x} set {set:#018x}"),
                }
            }
            Self::EveryLeaf(EveryLeaf { first, last, clear, set }) => {
                write!(f, "leaves {first} to {last} clear {clear:#018x} set {set:#018x}")
            }
            Self::Dsb(Dsb::Ishst) => f.write_str("dsb    ishst"),
            Self::Dsb(Dsb::Ish) => f.write_str("dsb    ish"),
            Self::Dsb(Dsb::Nsh) => f.write_str("dsb    nsh"),
            Self::Isb => f.write_str("isb"),
            Self::Invalidate(Invalidation::All) => f.write_str("tlbi   vmalle1is"),
            Self::Invalidate(Invalidation::ByVa { va, count, shift, reach }) => {
                let name = match reach {
                    Reach::LastLevel => "vaale1is",
                    Reach::AllLevels => "vaae1is",
                };
                write!(f, "tlbi   {va} {name} x {count}, every {:#x}", 1u64 << shift)
            }
            Self::Invalidate(Invalidation::ByRange { va, pages, reach }) => {
                let name = match reach {
                    Reach::LastLevel => "rvaale1is",
                    Reach::AllLevels => "rvaae1is",
                };
                write!(f, "tlbi   {va} {name}, {pages} pages")
            }
            Self::Free { va, table, level } => write!(f, "free   {va} L{level} {:#014x}", table.0),
        }
    }
}
