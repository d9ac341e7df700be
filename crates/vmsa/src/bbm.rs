//! Break-before-make: what a change of one translation table entry needs before the new translation
//! is safe.
//!
//! The rules are those of Arm ARM D8.16.1 (RWHZWS) and, for changes of size, of D8.16.2 with its
//! levels of support ([`BbmLevel`]). The functions look at two descriptors and at nothing else:
//! when a block and a table replace each other, both are assumed to translate identically.

use crate::attributes::{ACCESSED, CONTIGUOUS, NO_TRANSLATION, NOT_GLOBAL, SHAREABILITY_SHIFT};
use crate::descriptor::{TABLE_OR_PAGE, VALID};
use crate::id::BbmLevel;
use crate::memory_type::MEM_ATTR;
use crate::permissions::{DIRTY_MODIFIER, PXN, READ_ONLY, USER, UXN};
use crate::{Decoded, Descriptor, Geometry, Level};

/// What a change needs, the weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Requirement {
    /// Barriers only: no TLB holds the old entry, or it remains correct.
    Nothing,
    /// The new entry may be stored over the old one. After an invalidation only the new one is
    /// used.
    Invalidate,
    /// The entry has to pass through a block with nT set, invalidated before and after (FEAT_BBM
    /// level 1).
    NoTranslation,
    /// The entry must be made invalid, and that invalidated on every CPU, before the new one is
    /// stored (RDDMVT).
    BreakBeforeMake(Reason),
}

/// Why a change needs break-before-make.
///
/// ```
/// use linmap_vmsa::bbm::{Reason, Requirement, change};
/// use linmap_vmsa::id::BbmLevel;
/// use linmap_vmsa::{Attributes, Descriptor, Geometry, Level, Pa};
///
/// let page = |pa| Descriptor::page(Geometry::K4_48, Pa(pa), Attributes::KERNEL_DATA);
/// let (old, new) = (page(0x1000), page(0x2000));
/// let needs = change(Geometry::K4_48, Level::L3, old, new, BbmLevel::L3);
/// assert_eq!(needs, Requirement::BreakBeforeMake(Reason::OutputAddress));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// The entry maps other memory.
    OutputAddress,
    /// The memory type or its cacheability changes: another MAIR slot.
    MemoryType,
    /// The shareability changes.
    Shareability,
    /// A global entry replaces one that is not.
    Global,
    /// A block and a table replace each other, and the CPU has BBM level 0.
    Size,
    /// The contiguous bit, or an attribute of a leaf that has it, changes and the CPU has BBM level
    /// 0; or the bit changes in the same store as the size, which cuts through the run.
    Contiguous,
    /// The entry leads to another table.
    NextTable,
}

impl Reason {
    /// The section of the Arm ARM that holds the rule, with the rule's identifier where it has one.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::OutputAddress | Self::MemoryType | Self::Shareability | Self::Global | Self::NextTable => {
                "D8.16.1, RWHZWS"
            }
            Self::Size => "D8.16.2",
            Self::Contiguous => "D8.7.1",
        }
    }

    /// What changes, in a few words.
    pub const fn what(self) -> &'static str {
        match self {
            Self::OutputAddress => "the output address changes",
            Self::MemoryType => "the memory type changes",
            Self::Shareability => "the shareability changes",
            Self::Global => "a global entry replaces one that is not",
            Self::Size => "a block and a table replace each other at BBM level 0",
            Self::Contiguous => "a contiguous run changes in place",
            Self::NextTable => "the next table changes",
        }
    }
}

impl core::fmt::Display for Requirement {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Invalidate => f.write_str("an invalidation afterwards"),
            Self::NoTranslation => f.write_str("a block with nT in between (D8.16.2)"),
            Self::BreakBeforeMake(reason) => {
                write!(f, "break-before-make: {} ({})", reason.what(), reason.rule())
            }
        }
    }
}

/// `AttrIndx[2:0]`.
const MEMORY_TYPE: u64 = 0b111 << 2;
/// NS: which physical address space, so a part of the output address.
const NON_SECURE: u64 = 1 << 5;
/// FnXS of stage 2 (FEAT_XS): the XS attribute is one of the memory type. RES0 without.
const NO_XS: u64 = 1 << 11;
/// Bits 58:55 of a leaf, which the hardware ignores.
const SOFTWARE: u64 = 0b1111 << 55;
/// NSTable, APTable, UXNTable and PXNTable: what a table descriptor says about everything below it.
const HIERARCHICAL: u64 = 0b1_1111 << 59;

/// Returns what it needs to replace `old` by `new`, both entries at `level`, on CPUs with BBM level
/// `bbm`.
#[inline(always)]
pub const fn change(
    geometry: Geometry,
    level: Level,
    old: Descriptor,
    new: Descriptor,
    bbm: BbmLevel,
) -> Requirement {
    if old.0 == new.0 {
        return Requirement::Nothing;
    }
    match (old.decode(geometry, level), new.decode(geometry, level)) {
        // No TLB holds an entry that faults. The same is true for a leaf without the access flag,
        // unless its run has the flag from a neighbour.
        (Decoded::Invalid, _) => Requirement::Nothing,
        (Decoded::Leaf(_), _) if old.0 & (ACCESSED | CONTIGUOUS) == 0 => Requirement::Nothing,
        (_, Decoded::Invalid) => Requirement::Invalidate,
        (Decoded::Leaf(old_pa), Decoded::Leaf(new_pa)) => {
            if old_pa.0 != new_pa.0 {
                return Requirement::BreakBeforeMake(Reason::OutputAddress);
            }
            attributes_change(geometry, level, old, new, bbm)
        }
        (Decoded::Table(old_pa), Decoded::Table(new_pa)) => {
            if old_pa.0 != new_pa.0 {
                Requirement::BreakBeforeMake(Reason::NextTable)
            } else if (old.0 ^ new.0) & HIERARCHICAL != 0 {
                Requirement::Invalidate
            } else {
                Requirement::Nothing
            }
        }
        (Decoded::Leaf(_), Decoded::Table(_)) => size_change(old, bbm, Requirement::Nothing),
        (Decoded::Table(_), Decoded::Leaf(_)) => size_change(new, bbm, Requirement::Invalidate),
    }
}

/// Returns what it needs to replace a table by a block, or a block by a table. `at_level_3` is what
/// it needs at BBM level 3: a removed table must leave the walk caches before its frame is used
/// again, a removed block may stay in a TLB.
#[inline]
const fn size_change(block: Descriptor, bbm: BbmLevel, at_level_3: Requirement) -> Requirement {
    if block.0 & CONTIGUOUS != 0 {
        return Requirement::BreakBeforeMake(Reason::Contiguous);
    }
    match bbm {
        BbmLevel::L0 => Requirement::BreakBeforeMake(Reason::Size),
        BbmLevel::L1 if block.0 & NO_TRANSLATION == 0 => Requirement::NoTranslation,
        BbmLevel::L1 | BbmLevel::L2 => Requirement::Invalidate,
        BbmLevel::L3 => at_level_3,
    }
}

/// Returns what a change of the attributes of a leaf needs.
const fn attributes_change(
    geometry: Geometry,
    level: Level,
    old: Descriptor,
    new: Descriptor,
    bbm: BbmLevel,
) -> Requirement {
    let changed = old.0 ^ new.0;
    let stage_2 = geometry.regime().is_stage_2();
    if stage_2 {
        // Bit 5 is MemAttr[3] there, and bit 11 is not nG: translations belong to a VMID.
        if changed & (MEM_ATTR | NO_XS) != 0 {
            return Requirement::BreakBeforeMake(Reason::MemoryType);
        }
    } else if changed & NON_SECURE != 0 {
        return Requirement::BreakBeforeMake(Reason::OutputAddress);
    } else if changed & MEMORY_TYPE != 0 {
        return Requirement::BreakBeforeMake(Reason::MemoryType);
    }
    // Under LPA2 these bits are part of the address, and TCR holds the shareability.
    if !geometry.lpa2() && changed & (0b11 << SHAREABILITY_SHIFT) != 0 {
        return Requirement::BreakBeforeMake(Reason::Shareability);
    }
    if !stage_2 && changed & old.0 & NOT_GLOBAL != 0 {
        return Requirement::BreakBeforeMake(Reason::Global);
    }
    // The entries of a run would differ between the stores. Below level 1 a lookup in such a run
    // may return a translation that none of them has.
    if (old.0 | new.0) & CONTIGUOUS != 0 && changed & !SOFTWARE != 0 && bbm.number() == 0 {
        return Requirement::BreakBeforeMake(Reason::Contiguous);
    }
    let mut free = SOFTWARE;
    if bbm.number() == 3 {
        free |= CONTIGUOUS;
    }
    // nT means nothing at BBM level 0.
    if level.number() != 3 && bbm.number() == 0 {
        free |= NO_TRANSLATION;
    }
    if changed & !free == 0 { Requirement::Nothing } else { Requirement::Invalidate }
}

/// Whether `old` and `new`, both valid at `level`, differ in the size of what a TLB may hold for
/// them, or in nT: the changes that D8.16.2 is about, during which accesses may fault or raise a
/// conflict abort below BBM level 3.
#[inline]
pub const fn resizes(geometry: Geometry, level: Level, old: Descriptor, new: Descriptor) -> bool {
    match (old.decode(geometry, level), new.decode(geometry, level)) {
        (Decoded::Leaf(_), Decoded::Leaf(_)) => {
            let block = if level.number() == 3 { 0 } else { NO_TRANSLATION };
            (old.0 ^ new.0) & (CONTIGUOUS | block) != 0
        }
        (Decoded::Leaf(_), Decoded::Table(_)) | (Decoded::Table(_), Decoded::Leaf(_)) => true,
        _ => false,
    }
}

/// Returns whether clearing the bits `clear` and setting the bits `set` never needs more than
/// [`Requirement::Invalidate`] and never changes the size of a leaf, whatever the leaf is. True for
/// permissions, for bits that the hardware ignores, for valid to invalid and for global to
/// non-global. False for setting the valid bit, since the other bits of the invalid entry decide
/// what is mapped then. At BBM level 0 the result holds only for leaves without the contiguous bit.
#[inline]
pub const fn never_breaks(clear: u64, set: u64) -> bool {
    const EITHER: u64 = USER | READ_ONLY | DIRTY_MODIFIER | PXN | UXN | SOFTWARE;
    clear & !(EITHER | VALID | ACCESSED) == 0 && set & !(EITHER | NOT_GLOBAL) == 0
}

const _: () = assert!(TABLE_OR_PAGE | VALID == 0b11, "bits 1:0 are the type of a descriptor");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Attributes, Execute, Granule, MemoryType, Pa, Shareability};
    use Requirement::{BreakBeforeMake, Invalidate, NoTranslation, Nothing};

    const G: Geometry = Geometry::K4_48;
    const LEVELS: [BbmLevel; 4] = [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3];
    const DATA: Attributes = Attributes::KERNEL_DATA;

    fn block(attributes: Attributes) -> Descriptor {
        Descriptor::leaf(G, Level::L2, Pa(0x4020_0000), attributes).unwrap()
    }

    fn block_change(old: Attributes, new: Attributes) -> [Requirement; 4] {
        LEVELS.map(|bbm| change(G, Level::L2, block(old), block(new), bbm))
    }

    #[test]
    fn an_invalid_entry_may_become_anything_without_invalidation() {
        for bbm in LEVELS {
            for old in [Descriptor::INVALID, Descriptor(block(DATA).0 & !1)] {
                assert_eq!(change(G, Level::L2, old, block(DATA), bbm), Nothing);
                assert_eq!(change(G, Level::L2, old, Descriptor::table(G, Pa(0x1000)), bbm), Nothing);
            }
            assert_eq!(change(G, Level::L2, block(DATA), Descriptor::INVALID, bbm), Invalidate);
        }
    }

    #[test]
    fn a_leaf_without_access_flag_is_in_no_tlb_unless_it_is_one_of_a_run() {
        let old = Attributes { accessed: false, ..DATA };
        let device = Attributes { memory: MemoryType::DeviceNgnre, ..DATA };
        assert_eq!(block_change(old, device), [Nothing; 4]);
        let old = Attributes { contiguous: true, ..old };
        let device = Attributes { contiguous: true, ..device };
        assert_eq!(block_change(old, device), [BreakBeforeMake(Reason::MemoryType); 4]);
    }

    #[test]
    fn another_address_type_shareability_or_a_new_global_entry_breaks_at_every_level() {
        for bbm in LEVELS {
            let other = Descriptor::leaf(G, Level::L2, Pa(0x4040_0000), DATA).unwrap();
            assert_eq!(change(G, Level::L2, block(DATA), other, bbm), BreakBeforeMake(Reason::OutputAddress));
        }
        let device = Attributes { memory: MemoryType::DeviceNgnre, ..DATA };
        assert_eq!(block_change(DATA, device), [BreakBeforeMake(Reason::MemoryType); 4]);
        let outer = Attributes { shareability: Shareability::Outer, ..DATA };
        assert_eq!(block_change(DATA, outer), [BreakBeforeMake(Reason::Shareability); 4]);
        let local = Attributes { global: false, ..DATA };
        assert_eq!(block_change(local, DATA), [BreakBeforeMake(Reason::Global); 4]);
        assert_eq!(block_change(DATA, local), [Invalidate; 4]);
    }

    #[test]
    fn permissions_need_an_invalidation_and_software_bits_nothing() {
        assert_eq!(block_change(DATA, Attributes::KERNEL_RODATA), [Invalidate; 4]);
        assert_eq!(block_change(Attributes::KERNEL_RODATA, Attributes::KERNEL_TEXT), [Invalidate; 4]);
        for bbm in LEVELS {
            let marked = Descriptor(block(DATA).0 | 1 << 57);
            assert_eq!(change(G, Level::L2, block(DATA), marked, bbm), Nothing);
        }
    }

    #[test]
    fn the_contiguous_bit_changes_freely_only_at_level_3() {
        let contiguous = Attributes { contiguous: true, ..DATA };
        let expected = [BreakBeforeMake(Reason::Contiguous), Invalidate, Invalidate, Nothing];
        assert_eq!(block_change(DATA, contiguous), expected);
        assert_eq!(block_change(contiguous, DATA), expected);
    }

    #[test]
    fn a_change_of_size_follows_the_bbm_level() {
        let table = Descriptor::table(G, Pa(0x8000));
        let no_translation = block(Attributes { no_translation: true, ..DATA });
        let split = LEVELS.map(|bbm| change(G, Level::L2, block(DATA), table, bbm));
        assert_eq!(split, [BreakBeforeMake(Reason::Size), NoTranslation, Invalidate, Nothing]);
        let fold = LEVELS.map(|bbm| change(G, Level::L2, table, block(DATA), bbm));
        assert_eq!(fold, [BreakBeforeMake(Reason::Size), NoTranslation, Invalidate, Invalidate]);
        assert_eq!(change(G, Level::L2, no_translation, table, BbmLevel::L1), Invalidate);
        assert_eq!(change(G, Level::L2, table, no_translation, BbmLevel::L1), Invalidate);
        let contiguous = block(Attributes { contiguous: true, ..DATA });
        for bbm in LEVELS {
            assert_eq!(
                change(G, Level::L2, contiguous, table, bbm),
                BreakBeforeMake(Reason::Contiguous),
                "a run is unfolded before one of its blocks is split"
            );
        }
    }

    #[test]
    fn a_table_may_change_its_hierarchical_bits_but_not_its_address() {
        let table = Descriptor::table(G, Pa(0x8000));
        for bbm in LEVELS {
            let read_only = Descriptor(table.0 | 0b10 << 61);
            assert_eq!(change(G, Level::L2, table, read_only, bbm), Invalidate);
            let other = Descriptor::table(G, Pa(0x9000));
            assert_eq!(change(G, Level::L2, table, other, bbm), BreakBeforeMake(Reason::NextTable));
        }
    }

    #[test]
    fn the_memory_type_of_stage_2_has_four_bits_and_its_leaves_have_no_ng() {
        use crate::{Regime, Stage2};
        for features in [Stage2::Base, Stage2::FwbXnx] {
            let g = G.in_regime(Regime::Stage2(features));
            let old = Descriptor::leaf(g, Level::L2, Pa(0x4020_0000), Attributes::GUEST_RAM).unwrap();
            for bbm in LEVELS {
                for bit in [2, 3, 4, 5, 11] {
                    let new = Descriptor(old.0 ^ 1 << bit);
                    let found = change(g, Level::L2, old, new, bbm);
                    assert_eq!(found, BreakBeforeMake(Reason::MemoryType), "bit {bit}");
                    assert_eq!(change(g, Level::L2, new, old, bbm), found, "bit {bit}");
                }
                for bit in [8, 9] {
                    let new = Descriptor(old.0 ^ 1 << bit);
                    assert_eq!(change(g, Level::L2, old, new, bbm), BreakBeforeMake(Reason::Shareability));
                }
                // S2AP, XN[1:0], DBM; AF off.
                for bit in [6, 7, 10, 51, 53, 54] {
                    assert_eq!(change(g, Level::L2, old, Descriptor(old.0 ^ 1 << bit), bbm), Invalidate);
                }
            }
        }
    }

    #[test]
    fn bits_9_and_8_are_the_address_under_lpa2() {
        let g = Geometry::new(Granule::K4, 52, 52).unwrap();
        let low = Descriptor::page(g, Pa(0x1000), DATA);
        let high = Descriptor::page(g, Pa(0x1000 | 1 << 50), DATA);
        assert_eq!(change(g, Level::L3, low, high, BbmLevel::L3), BreakBeforeMake(Reason::OutputAddress));
    }

    #[test]
    fn the_masks_that_never_break_agree_with_the_rule_for_single_entries() {
        let all: Vec<u64> = [Access::KernelReadWrite, Access::UserReadOnly]
            .into_iter()
            .flat_map(|access| {
                [Execute::Never, Execute::Both].map(|execute| Attributes { access, execute, ..DATA }.bits(G))
            })
            .collect();
        for bit in 0..64 {
            for (clear, set) in [(1u64 << bit, 0), (0, 1u64 << bit)] {
                if !never_breaks(clear, set) {
                    continue;
                }
                for bits in &all {
                    let old = Descriptor(bits | 0x4020_0000 | 1);
                    let new = Descriptor(old.0 & !clear | set);
                    for bbm in LEVELS {
                        assert!(change(G, Level::L2, old, new, bbm) <= Invalidate, "bit {bit}");
                        assert!(!resizes(G, Level::L2, old, new));
                    }
                }
            }
        }
        assert!(!never_breaks(0, 1) && !never_breaks(1 << 52, 0) && !never_breaks(NOT_GLOBAL, 0));
    }

    extern crate std;
    use std::vec::Vec;
}
