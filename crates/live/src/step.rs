//! The steps of a plan as data: to print, check, run on a model, or apply.

use core::fmt;

use linmap_vmsa::{Descriptor, Level, Pa, Va};

use linmap_table::cpu::Dsb;

use crate::update::Update;

/// What a store does to its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edit {
    /// Each entry is overwritten: `first`, `first` + `step`, `first` + 2 × `step` and so on
    /// (wrapping).
    Write {
        /// The first entry's new value.
        first: Descriptor,
        /// What each next entry adds. 0 for invalid entries.
        step: u64,
    },
    /// In each entry the bits in `clear` are cleared, then those in `set` are set.
    Bits {
        /// Bits to clear.
        clear: u64,
        /// Bits to set.
        set: u64,
    },
    /// Each entry is updated atomically. Only in plans for a tree with
    /// [`HardwareUpdates`](linmap_vmsa::HardwareUpdates).
    Update(Update),
}

impl Edit {
    /// Returns the new value of entry `nth`, whose value is `old`.
    #[inline]
    pub const fn of(self, old: Descriptor, nth: usize) -> Descriptor {
        match self {
            Self::Write { first, step } => Descriptor(first.0.wrapping_add(step.wrapping_mul(nth as u64))),
            Self::Bits { clear, set } => Descriptor(old.0 & !clear | set),
            Self::Update(update) => update.of(old, nth),
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
    /// The number of entries, at least 1.
    pub count: u16,
    /// What the store does to them.
    pub edit: Edit,
}

/// Stores to every leaf of a range, valid or invalidated: the bits in `clear` are cleared, then
/// those in `set` are set. It is one step for any number of tables, which are walked when it is
/// applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EveryLeaf {
    /// First address. No leaf that changes reaches below it.
    pub first: Va,
    /// Last address. No leaf that changes reaches beyond it.
    pub last: Va,
    /// Bits to clear.
    pub clear: u64,
    /// Bits to set.
    pub set: u64,
}

/// What an invalidation by address removes from TLBs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Leaf entries alone.
    LastLevel,
    /// Leaf entries, and what walk caches hold of the tables above them.
    AllLevels,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LastLevel => "last level",
            Self::AllLevels => "all levels",
        })
    }
}

/// An invalidation on all CPUs, by the instructions of the tree's regime: in every ASID, in the one
/// ASID of a user space, or in the VMID of a guest. It has no level hint, since a TLB may hold
/// leaves of any size after a split without invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidation {
    /// Everything (VMALLE1IS, ALLE2IS, ALLE3IS); all of one ASID (ASIDE1IS); both stages of a VMID
    /// (VMALLS12E1IS).
    All,
    /// What combines both stages (VMALLE1IS), after invalidations by IPA (Arm ARM D8.17). Only in
    /// plans for stage 2.
    Stage1,
    /// One invalidation by address for each of `count` addresses (VAAE1IS and VAALE1IS, VAE1IS and
    /// VALE1IS, VAE2IS and VALE2IS, VAE3IS and VALE3IS, IPAS2E1IS and IPAS2LE1IS).
    ByVa {
        /// The first address.
        va: Va,
        /// The number of them.
        count: u32,
        /// log2 of the distance between them in bytes.
        shift: u32,
        /// What is removed.
        reach: Reach,
    },
    /// One invalidation by range (RVAAE1IS and so on; FEAT_TLBIRANGE).
    ByRange {
        /// The first address.
        va: Va,
        /// The number of pages, which one operand must be able to encode.
        pages: u64,
        /// What is removed.
        reach: Reach,
    },
}

/// One step of a plan.
///
/// ```
/// use linmap_live::{Edit, EveryLeaf, Invalidation, Reach, Step, Store};
///
/// /// What steps cost: stores of entries, and invalidations by address that keep walk caches.
/// fn cost(steps: &[Step]) -> (u32, u32) {
///     let (mut stores, mut invalidations) = (0, 0);
///     for step in steps {
///         match *step {
///             Step::Store(Store { count, edit: Edit::Write { .. } | Edit::Bits { .. } | Edit::Update(_), .. }) => {
///                 stores += u32::from(count);
///             }
///             Step::EveryLeaf(EveryLeaf { first, last, .. }) => println!("all leaves {first} to {last}"),
///             Step::Invalidate(Invalidation::ByVa { count, reach: Reach::LastLevel, .. }) => {
///                 invalidations += count;
///             }
///             _ => {}
///         }
///     }
///     (stores, invalidations)
/// }
/// # assert_eq!(cost(&[Step::Isb]), (0, 0));
/// ```
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
    /// Cleans and invalidates the data cache for a range, by address, and waits.
    CleanInvalidate {
        /// The address by which the editing CPU reaches the memory.
        va: Va,
        /// The length in bytes.
        len: u64,
    },
    /// Stores to all leaves of a range. Only in plans for a parked tree.
    EveryLeaf(EveryLeaf),
    /// Frees a table that was removed, and all tables below it.
    Free {
        /// First address that the table translated.
        va: Va,
        /// The table.
        table: Pa,
        /// The table's level.
        level: Level,
    },
}

const _: () = assert!(size_of::<Step>() <= 56, "plans are written and copied step by step");

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
                    Edit::Update(update) => write!(f, "{update}"),
                }
            }
            Self::EveryLeaf(EveryLeaf { first, last, clear, set }) => {
                write!(f, "leaves {first} to {last} clear {clear:#018x} set {set:#018x}")
            }
            Self::Dsb(Dsb::Ishst) => f.write_str("dsb    ishst"),
            Self::Dsb(Dsb::Ish) => f.write_str("dsb    ish"),
            Self::Dsb(Dsb::Nsh) => f.write_str("dsb    nsh"),
            Self::Isb => f.write_str("isb"),
            Self::Invalidate(Invalidation::All) => f.write_str("tlbi   everything"),
            Self::Invalidate(Invalidation::Stage1) => f.write_str("tlbi   stage 1"),
            Self::Invalidate(Invalidation::ByVa { va, count, shift, reach }) => {
                write!(f, "tlbi   {va} {reach} x {count}, every {:#x}", 1u64 << shift)
            }
            Self::Invalidate(Invalidation::ByRange { va, pages, reach }) => {
                write!(f, "tlbi   {va} {reach}, range of {pages} pages")
            }
            Self::CleanInvalidate { va, len } => write!(f, "dc     civac {va}, {len:#x} bytes"),
            Self::Free { va, table, level } => write!(f, "free   {va} L{level} {:#014x}", table.0),
        }
    }
}
