//! What hardware updates in leaves: the access flag and dirty state (Arm ARM D8.5, FEAT_HAFDBS).

use core::ops::RangeInclusive;

use crate::attributes::ACCESSED;
use crate::id::{Midr, Mmfr1};
use crate::permissions::{DIRTY_MODIFIER, READ_ONLY};
use crate::{Descriptor, Regime};

/// Which updates hardware makes in the leaves of a tree.
///
/// A CPU updates a leaf by an atomic read-modify-write, at any moment. The access flag only becomes
/// set, and a leaf only becomes dirty; software alone undoes either.
///
/// ```
/// use linmap_vmsa::id::{Midr, Mmfr1};
/// use linmap_vmsa::{Geometry, HardwareUpdates, Pa, Stage2, Stage2Registers, VmidSize};
///
/// // ID_AA64MMFR1_EL1.HAFDBS = 2: both, on a Neoverse-V2.
/// let updates = HardwareUpdates::of_cpu(Mmfr1(2), Midr(0x410f_d4f0));
/// assert_eq!(updates, HardwareUpdates::AccessedAndDirty);
/// let geometry = Geometry::stage_2(linmap_vmsa::Granule::K4, 40, 40, Stage2::Fwb)?;
/// let registers = Stage2Registers::new(geometry, Pa(0x4000_2000), 7, VmidSize::Bits8)?;
/// let vtcr = registers.vtcr | updates.tcr(geometry.regime());
/// assert_eq!(vtcr >> 21 & 0b11, 0b11, "HA and HD");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HardwareUpdates {
    /// None: an access without the access flag, and a write to a clean leaf, fault.
    Off,
    /// An access sets the access flag (HA).
    Accessed,
    /// An access sets the access flag, and a write makes a clean leaf dirty (HA and HD). A leaf is
    /// clean or dirty if DBM says that hardware tracks it, as in
    /// [`Access::KernelReadWriteClean`](crate::Access::KernelReadWriteClean).
    AccessedAndDirty,
}

/// The CPUs, by implementer, part number and revisions (rNpM is 0xNM), that may get dirty state
/// wrong where permissions of a live leaf change: Cortex-A55 (erratum 1024718), Cortex-A510 before
/// r0p3 (2051678), and Kryo 4xx Silver, which is a Cortex-A55. AmpereOne (AC03_CPU_38) reports no
/// updates at all.
const BROKEN_DIRTY_STATE: [(u8, u16, RangeInclusive<u8>); 3] = [
    (0x41, 0xd05, 0x00..=0xff), // Cortex-A55
    (0x41, 0xd46, 0x00..=0x02), // Cortex-A510
    (0x51, 0x805, 0xde..=0xde), // Kryo 4xx Silver
];

impl HardwareUpdates {
    /// Returns the most that the CPU can do (ID_AA64MMFR1_EL1.HAFDBS), without dirty state where an
    /// erratum affects it. A system has the least of its CPUs.
    ///
    /// ```
    /// use linmap_vmsa::HardwareUpdates;
    /// use linmap_vmsa::id::{Midr, Mmfr1};
    ///
    /// let updates = |midr_el1, mmfr1_el1| HardwareUpdates::of_cpu(Mmfr1(mmfr1_el1), Midr(midr_el1));
    /// assert_eq!(updates(0x410f_d4f0, 2), HardwareUpdates::AccessedAndDirty, "Neoverse-V2");
    /// assert_eq!(updates(0x412f_d050, 2), HardwareUpdates::Accessed, "Cortex-A55");
    /// ```
    pub fn of_cpu(mmfr1: Mmfr1, midr: Midr) -> Self {
        let is_broken = BROKEN_DIRTY_STATE.iter().any(|(implementer, part, revisions)| {
            *implementer == midr.implementer() && *part == midr.part() && revisions.contains(&midr.revision())
        });
        match mmfr1.0 & 0xf {
            0 => Self::Off,
            2.. if !is_broken => Self::AccessedAndDirty,
            _ => Self::Accessed,
        }
    }

    /// Returns the updates that TCR.HA and HD turn on. Without HA, HD has no effect (Arm ARM
    /// D8.5.2).
    pub(crate) const fn of_tcr_bits(ha: bool, hd: bool) -> Self {
        match (ha, hd) {
            (false, _) => Self::Off,
            (true, false) => Self::Accessed,
            (true, true) => Self::AccessedAndDirty,
        }
    }

    /// Returns whether hardware changes leaves at all.
    #[inline]
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }

    /// Returns the bits to set in the regime's TCR, or in VTCR_EL2 for stage 2: HA and HD. Every
    /// TCR value of this crate has them clear. Each stage has its own.
    pub const fn tcr(self, regime: Regime) -> u64 {
        let ha = match regime {
            Regime::El1And0 | Regime::El2And0 => 39,
            Regime::El2 | Regime::El3 | Regime::Stage2(_) => 21,
        };
        match self {
            Self::Off => 0,
            Self::Accessed => 1 << ha,
            Self::AccessedAndDirty => 0b11 << ha,
        }
    }

    /// Returns what `leaf`, valid in `regime`, is after every update that hardware may make.
    #[inline]
    pub const fn of_leaf(self, regime: Regime, leaf: Descriptor) -> Descriptor {
        match self {
            Self::Off => leaf,
            Self::Accessed => Descriptor(leaf.0 | ACCESSED),
            Self::AccessedAndDirty if leaf.0 & DIRTY_MODIFIER == 0 => Descriptor(leaf.0 | ACCESSED),
            // S2AP[1] gives the permission that AP[2] takes.
            Self::AccessedAndDirty if regime.is_stage_2() => Descriptor(leaf.0 | ACCESSED | READ_ONLY),
            Self::AccessedAndDirty => Descriptor((leaf.0 | ACCESSED) & !READ_ONLY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Attributes, Geometry, Level, Pa, Stage2};

    #[test]
    fn ha_and_hd_have_their_own_places_in_each_layout_of_tcr() {
        let both = HardwareUpdates::AccessedAndDirty;
        for (regime, ha) in [
            (Regime::El1And0, 39),
            (Regime::El2And0, 39),
            (Regime::El2, 21),
            (Regime::El3, 21),
            (Regime::Stage2(Stage2::Base), 21),
        ] {
            assert_eq!(both.tcr(regime), 0b11u64 << ha, "{regime}");
            assert_eq!(HardwareUpdates::Accessed.tcr(regime), 1 << ha, "{regime}");
            assert_eq!(HardwareUpdates::Off.tcr(regime), 0);
        }
    }

    #[test]
    fn the_field_of_the_cpu_says_what_it_can() {
        let of = |field: u64| HardwareUpdates::of_cpu(Mmfr1(field | 0xff0), Midr(0x410f_d4f0));
        assert_eq!(of(0), HardwareUpdates::Off);
        assert_eq!(of(1), HardwareUpdates::Accessed);
        // 3: the access flag of tables too (FEAT_HAFT), which TCR2 turns on.
        assert_eq!((of(2), of(3)), (HardwareUpdates::AccessedAndDirty, HardwareUpdates::AccessedAndDirty));
    }

    #[test]
    fn a_cpu_with_an_erratum_in_dirty_state_has_the_access_flag_alone() {
        let of = |midr: u64| HardwareUpdates::of_cpu(Mmfr1(2), Midr(midr));
        for broken in [0x410f_d050, 0x412f_d051, 0x410f_d460, 0x410f_d462, 0x51df_805e] {
            assert_eq!(of(broken), HardwareUpdates::Accessed, "{broken:#x}");
        }
        for sound in [0x410f_d463, 0x411f_d461, 0x51df_805f, 0x510f_d050] {
            assert_eq!(of(sound), HardwareUpdates::AccessedAndDirty, "{sound:#x}");
        }
        assert_eq!(HardwareUpdates::of_cpu(Mmfr1(0), Midr(0x412f_d050)), HardwareUpdates::Off);
    }

    #[test]
    fn hardware_makes_a_clean_leaf_dirty_and_no_other_writable() {
        let stage_2 = Geometry::stage_2(crate::Granule::K4, 40, 40, Stage2::Base).unwrap();
        for (geometry, kind, [clean, dirty, read_only]) in [
            (
                Geometry::K4_48,
                Attributes::KERNEL_DATA,
                [Access::KernelReadWriteClean, Access::KernelReadWriteDirty, Access::KernelReadOnly],
            ),
            (
                stage_2,
                Attributes::GUEST_RAM,
                [Access::GuestReadWriteClean, Access::GuestReadWriteDirty, Access::GuestReadOnly],
            ),
        ] {
            let leaf = |access, accessed| {
                Descriptor::page(geometry, Pa(0x4000_0000), Attributes { access, accessed, ..kind })
            };
            let regime = geometry.regime();
            let both = |found| HardwareUpdates::AccessedAndDirty.of_leaf(regime, found);
            assert_eq!(both(leaf(clean, false)), leaf(dirty, true));
            assert_eq!(both(leaf(dirty, true)), leaf(dirty, true));
            assert_eq!(both(leaf(read_only, false)), leaf(read_only, true));
            assert_eq!(HardwareUpdates::Accessed.of_leaf(regime, leaf(clean, false)), leaf(clean, true));
            assert_eq!(HardwareUpdates::Off.of_leaf(regime, leaf(clean, false)), leaf(clean, false));
            let found = leaf(clean, true).attributes(geometry, Level::L3).unwrap();
            assert_eq!((found.access, found.access.writable()), (clean, true));
        }
    }
}
