//! The rules that a sequence can break.

use std::fmt;

/// A rule that a sequence can break.
///
/// The first group are changes that need break-before-make, always or at this machine's BBM level:
/// invalid entry, DSB, TLBI, DSB, then the new entry (Arm ARM D8.16.1).
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// The output address changes while the old translation may be cached.
    OutputAddress,
    /// The memory type changes while the old translation may be cached.
    MemoryType,
    /// Shareability changes while the old translation may be cached.
    Shareability,
    /// A global entry where a non-global one may be cached.
    Global,
    /// The size changes (block to table or back) on a CPU that does not allow that in place.
    Size,
    /// The contiguous bit, or permissions under it, change on a CPU that does not allow that in
    /// place.
    Contiguous,
    /// A table descriptor changes to another table while the old pointer may be cached.
    NextTable,
    /// nT is set on a CPU without FEAT_BBM level 1.
    NoTranslation,
    /// Two entries of one contiguous run disagree about address or type.
    MixedRun,
    /// An entry with the contiguous bit whose address does not fit its place in a run.
    MisalignedRun,
    /// A contiguous run stays incomplete or uneven.
    IncompleteRun,
    /// A walk can read an entry with unknown content: its table was linked before it was filled, or
    /// before the stores that filled it were ordered.
    UnknownEntry,
    /// A frame is freed while a walk may still go through it.
    TableReachable,
    /// A translation that was removed from the tables may still be cached when software relies on
    /// its absence.
    StaleTranslation,
    /// A store has not been ordered by a DSB when software relies on it.
    Unordered,
    /// No ISB (or exception) follows the DSB before software relies on the new entry: the CPU may
    /// have walked before.
    NoIsb,
    /// An access may fault that has to succeed.
    MayFault,
    /// An access may raise a TLB conflict abort, or use an entry with nT set.
    MayAbort,
    /// An access may reach another address than it should.
    WrongAddress,
    /// An access may succeed that has to fault.
    MayPass,
    /// TTBR0_EL2 with an ASID, in a regime without ASIDs.
    AsidInEl2,
    /// TCR changes while something may be walked or cached under the old value.
    TranslationControl,
    /// A slot of MAIR changes that a walkable or cached leaf has its type from, or that changed
    /// without an ISB since.
    MemoryAttributes,
    /// A leaf whose output address exceeds the PA size: accesses raise an Address size fault.
    AddressSize,
    /// A table base that is not a multiple of the table's size.
    MisalignedTable,
    /// A plain store over an entry that hardware may have updated: the access flag or the dirty
    /// state is lost.
    LostUpdate,
    /// A compare-exchange found what neither a store nor hardware made of the entry.
    OtherValue,
    /// An address outside the machine's memory, or not a multiple of 8.
    NotMemory,
    /// Memory was written through a window that is closed.
    ClosedWindow,
    /// A CPU that the machine does not have.
    NoSuchCpu,
    /// A feature that the model does not have.
    Unmodelled,
    /// Tables so tangled that following them takes too long.
    TooComplex,
}

impl Rule {
    /// The Arm ARM's name for the rule (DDI 0487), where it has one.
    pub const fn id(self) -> Option<&'static str> {
        match self {
            Self::OutputAddress
            | Self::MemoryType
            | Self::Shareability
            | Self::Global
            | Self::Size
            | Self::NextTable => Some("RWHZWS"),
            Self::NoTranslation => Some("D8.3.1.2"),
            Self::Contiguous | Self::MixedRun | Self::MisalignedRun | Self::IncompleteRun => Some("D8.7.1"),
            Self::StaleTranslation | Self::TableReachable => Some("D8.16"),
            Self::LostUpdate | Self::OtherValue => Some("D8.5"),
            Self::Unordered | Self::NoIsb => Some("D8.2.6"),
            _ => None,
        }
    }

    /// The section of the Arm ARM (DDI 0487) that the rule is from, where it is from one alone.
    pub const fn section(self) -> Option<&'static str> {
        match self {
            Self::OutputAddress | Self::MemoryType | Self::Shareability | Self::Global | Self::NextTable => {
                Some("D8.16.1")
            }
            Self::Size => Some("D8.16.2"),
            _ => self.id(),
        }
    }

    /// The rule in a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::OutputAddress => "the output address changes while the old translation may be cached",
            Self::MemoryType => "the memory type changes while the old translation may be cached",
            Self::Shareability => "shareability changes while the old translation may be cached",
            Self::Global => "a global entry appears where a non-global one may be cached",
            Self::Size => "the block size changes in place, which this BBM level forbids",
            Self::Contiguous => "a contiguous run changes in place, which this BBM level forbids",
            Self::NextTable => {
                "a table descriptor leads to another table while the old pointer may be cached"
            }
            Self::NoTranslation => "nT is set, which this BBM level does not support",
            Self::MixedRun => "entries of one contiguous run disagree",
            Self::MisalignedRun => "the address does not fit the entry's place in its contiguous run",
            Self::IncompleteRun => "a contiguous run stays incomplete or uneven",
            Self::UnknownEntry => "a walk can read an entry with unknown content",
            Self::TableReachable => "a frame is freed while a walk may still go through it",
            Self::StaleTranslation => "a translation that was removed from the tables may still be cached",
            Self::Unordered => "no DSB ordered a store that software relies on",
            Self::NoIsb => "no ISB follows the DSB that ordered an entry which software relies on",
            Self::MayFault => "an access that has to succeed may fault",
            Self::MayAbort => {
                "an access that has to succeed may abort: two sizes may be cached, or nT is set"
            }
            Self::WrongAddress => "an access may reach another address",
            Self::MayPass => "an access that has to fault may succeed",
            Self::AsidInEl2 => "this regime has no ASIDs",
            Self::TranslationControl => {
                "TCR changes while something may be walked or cached under the old value"
            }
            Self::MemoryAttributes => "a slot of MAIR changes while a leaf has its type from it",
            Self::AddressSize => "the output address exceeds the PA size",
            Self::MisalignedTable => "the table base is not a multiple of the table's size",
            Self::OtherValue => "a compare-exchange found what nothing has made of the entry",
            Self::LostUpdate => "a plain store loses what hardware may have updated in the entry",
            Self::NotMemory => "the address is not a multiple of 8 in the machine's memory",
            Self::ClosedWindow => "memory was written through a window that is closed",
            Self::NoSuchCpu => "the machine has no such CPU",
            Self::Unmodelled => "the model does not have this feature",
            Self::TooComplex => "the tables are too tangled to follow",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text())?;
        match self.id() {
            Some(id) => write!(f, " ({id})"),
            None => Ok(()),
        }
    }
}
