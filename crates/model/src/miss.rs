//! Why a TLBI or DSB did not remove what a CPU may still hold.

use std::fmt;

/// Why a TLBI or DSB that came after an entry was overwritten, or a tree left, did not do away with
/// it.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Miss {
    /// The TTL field names another level than the entry's.
    Level {
        /// The level in the operand.
        hint: i8,
        /// The level of the entry.
        level: i8,
    },
    /// The TG field names another granule than the tables have.
    Granule,
    /// The range has a TTL and begins where no leaf of that level may.
    RangeStart,
    /// The current VMID is not certain before an ISB.
    Vmid,
    /// HCR_EL2 has changed which regime EL1's TLBIs are for, and no ISB followed.
    Regime,
    /// The operand names another ASID, or the instruction another VMID.
    OtherId {
        /// The ASID or VMID that it reaches.
        given: u16,
        /// The one of the entry.
        held: u16,
    },
    /// By ASID: what is not global in TTBR1's half has the ASID of TTBR0, which may be any.
    IdOfLowHalf,
    /// By ASID: global entries stay.
    Global,
    /// The instruction invalidates another translation regime or stage.
    OtherRegime,
    /// The address or range in the operand is another.
    OtherAddress {
        /// The first address that it reaches.
        first: u64,
        /// The last address that it reaches.
        last: u64,
    },
    /// Addresses are invalidated, but a tree that was left may be held until all of its ASID is.
    PartOfTree,
    /// Leaves alone are invalidated, and a pointer to a table is held.
    LeavesAlone,
    /// Stage 2 alone is invalidated, and what combines both stages stays.
    StageAlone,
    /// It reaches the CPU that issued it alone, and another holds the entry.
    Local {
        /// The CPU that holds it.
        holder: usize,
    },
    /// It was issued before a DSB ordered the store, so a walker could cache the entry again.
    BeforeOrdered,
    /// It was issued before an ISB made the new base register certain.
    BeforeLeft,
    /// No DSB of reads and writes by the CPU that issued it has completed it.
    Incomplete,
    /// It is complete, but the CPU that issued it needs an ISB after the DSB.
    NoIsb,
    /// It removed the entry, which could be cached again.
    CachedAgain,
    /// A DSB of stores alone completes no TLBI.
    StoresOnly,
    /// A DSB NSH orders nothing for other CPUs and completes no broadcast TLBI.
    NonShareable,
    /// A DSB by another CPU than the one that stored or issued the TLBI.
    OtherCpu {
        /// The CPU that stored or issued the TLBI.
        needed: usize,
    },
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level { hint, level } => write!(f, "TTL says level {hint}, the entry is at level {level}"),
            Self::Granule => f.write_str("TG is not the granule"),
            Self::RangeStart => f.write_str("the range begins where no leaf of its TTL may"),
            Self::Vmid => f.write_str("the current VMID is not certain"),
            Self::Regime => f.write_str("issued before the ISB after HCR_EL2 was written"),
            Self::OtherId { given, held } => {
                write!(f, "reaches ASID or VMID {given:#x}, the entry has {held:#x}")
            }
            Self::IdOfLowHalf => f.write_str("reaches one ASID, the entry of TTBR1 may have any"),
            Self::Global => f.write_str("spares global entries"),
            Self::OtherRegime => f.write_str("invalidates another regime"),
            Self::OtherAddress { first, last } => write!(f, "reaches {first:#x} to {last:#x} alone"),
            Self::PartOfTree => f.write_str("names addresses, the tree is held until all of its ASID goes"),
            Self::LeavesAlone => f.write_str("removes leaves, a pointer to a table is held"),
            Self::StageAlone => f.write_str("stage 2 alone, what combines both stages stays"),
            Self::Local { holder } => write!(f, "local only, CPU {holder} holds the entry"),
            Self::BeforeOrdered => f.write_str("issued before a DSB ordered the store"),
            Self::BeforeLeft => f.write_str("issued before the ISB after the base register was written"),
            Self::Incomplete => f.write_str("not complete: no DSB of reads and writes by this CPU"),
            Self::NoIsb => f.write_str("this CPU needs an ISB after the DSB"),
            Self::CachedAgain => f.write_str("the entry could be cached again"),
            Self::StoresOnly => f.write_str("completes no TLBI: stores alone"),
            Self::NonShareable => f.write_str("NSH: for this CPU alone"),
            Self::OtherCpu { needed } => write!(f, "CPU {needed} has to wait, not this one"),
        }
    }
}
