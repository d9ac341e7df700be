//! What a CPU can do, read from the values of its ID registers.

use crate::Granule;

/// ID_AA64MMFR0_EL1: PA size and granules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Mmfr0(pub u64);

impl Mmfr0 {
    /// Bits of physical address (PARange), at most 52 here: a larger size (56, with FEAT_D128) or
    /// an unknown encoding counts as the largest that VMSAv8-64 descriptors hold.
    pub const fn pa_bits(self) -> u8 {
        match self.0 & 0xf {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        }
    }

    /// The encoding of the least PARange that has `bits` bits of physical address, at most 52.
    pub const fn least_pa_range(bits: u8) -> u64 {
        match bits {
            0..=32 => 0,
            33..=36 => 1,
            37..=40 => 2,
            41..=42 => 3,
            43..=44 => 4,
            45..=48 => 5,
            _ => 6,
        }
    }

    /// Whether stage 1 can use `granule` (TGran4, TGran16, TGran64).
    pub const fn supports(self, granule: Granule) -> bool {
        match granule {
            // 0b0000 and up, as a signed field: 0b1111 says no.
            Granule::K4 => self.0 >> 28 & 0xf < 0b1000,
            Granule::K16 => {
                let field = self.0 >> 20 & 0xf;
                field != 0 && field < 0b1000
            }
            Granule::K64 => self.0 >> 24 & 0xf < 0b1000,
        }
    }

    /// Whether stage 1 has 52-bit addresses with `granule` and TCR.DS = 1 (FEAT_LPA2): TGran4 and
    /// TGran16 say so. With 64K they come from FEAT_LVA and FEAT_LPA, so this is `false`.
    pub const fn lpa2(self, granule: Granule) -> bool {
        match granule {
            // Signed: 0b1111 says that there is no such granule.
            Granule::K4 => matches!(self.0 >> 28 & 0xf, 1..=7),
            Granule::K16 => matches!(self.0 >> 20 & 0xf, 2..=7),
            Granule::K64 => false,
        }
    }

    /// Whether stage 2 can use `granule` (TGran4_2, TGran16_2, TGran64_2).
    pub const fn supports_at_stage_2(self, granule: Granule) -> bool {
        match self.stage_2_field(granule) {
            // As at stage 1: TGran4, TGran16, TGran64.
            0 => self.supports(granule),
            field => field != 1,
        }
    }

    /// Whether stage 2 has 52-bit addresses with `granule` and VTCR_EL2.DS = 1 (FEAT_LPA2).
    pub const fn lpa2_at_stage_2(self, granule: Granule) -> bool {
        match (granule, self.stage_2_field(granule)) {
            (Granule::K64, _) => false,
            (_, 0) => self.lpa2(granule),
            (_, field) => field == 3,
        }
    }

    const fn stage_2_field(self, granule: Granule) -> u64 {
        match granule {
            Granule::K4 => self.0 >> 40 & 0xf,
            Granule::K16 => self.0 >> 32 & 0xf,
            Granule::K64 => self.0 >> 36 & 0xf,
        }
    }

    /// Whether ASIDs have 16 bits (ASIDBits).
    pub const fn asid16(self) -> bool {
        self.0 >> 4 & 0xf == 0b0010
    }
}

/// ID_AA64MMFR1_EL1: VMIDs, and what tables can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Mmfr1(pub u64);

impl Mmfr1 {
    /// Whether VMIDs have 16 bits (VMIDBits, FEAT_VMID16).
    pub const fn vmid16(self) -> bool {
        self.0 >> 4 & 0xf == 0b0010
    }

    /// Whether EL1 and EL0 of a guest execute memory independently at stage 2 (XNX, FEAT_XNX).
    pub const fn xnx(self) -> bool {
        self.0 >> 28 & 0xf != 0
    }
}

/// The level of support for changing block sizes without break-before-make (FEAT_BBM).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BbmLevel {
    /// Every size change needs break-before-make.
    L0,
    /// Size changes go through the nT bit. Until they are complete, accesses may fault.
    L1,
    /// Size changes in place; a TLB conflict abort may be raised.
    L2,
    /// Size changes in place, and no conflict abort is ever raised.
    L3,
}

impl BbmLevel {
    /// The level's number, 0 to 3.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// ID_AA64MMFR2_EL1: the BBM level, the VA size, and memory types of stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Mmfr2(pub u64);

impl Mmfr2 {
    /// The BBM field as the CPU reports it. Values above 3 promise at least level 3.
    pub const fn bbm(self) -> BbmLevel {
        match self.0 >> 52 & 0xf {
            0 => BbmLevel::L0,
            1 => BbmLevel::L1,
            2 => BbmLevel::L2,
            _ => BbmLevel::L3,
        }
    }

    /// Whether virtual addresses have 52 bits with the 64K granule (VARange, FEAT_LVA).
    pub const fn va52(self) -> bool {
        self.0 >> 16 & 0xf != 0
    }

    /// Whether stage 2 can force memory to be write-back cacheable (FWB, FEAT_S2FWB).
    pub const fn fwb(self) -> bool {
        self.0 >> 40 & 0xf != 0
    }
}

/// ID_AA64PFR1_EL1: memory tagging.
///
/// ```
/// use linmap_vmsa::id::{Mmfr1, Pfr1};
///
/// assert!(Pfr1(0b0010 << 8).tagged_memory(), "FEAT_MTE2");
/// assert!(Mmfr1(0b0010 << 4).vmid16(), "FEAT_VMID16");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Pfr1(pub u64);

impl Pfr1 {
    /// Whether memory can have allocation tags (MTE, FEAT_MTE2). Value 1 is the instructions alone.
    pub const fn tagged_memory(self) -> bool {
        self.0 >> 8 & 0xf >= 2
    }
}

/// ID_AA64ISAR0_EL1: instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Isar0(pub u64);

impl Isar0 {
    /// Whether TLBs are invalidated by range (TLB, FEAT_TLBIRANGE). Value 1 is the outer shareable
    /// forms alone.
    pub const fn tlbi_range(self) -> bool {
        self.0 >> 56 & 0xf >= 2
    }

    /// Whether there are instructions for SHA-256 (SHA2, FEAT_SHA256).
    pub const fn sha2(self) -> bool {
        self.0 >> 12 & 0xf != 0
    }
}

/// MIDR_EL1: which CPU this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Midr(pub u64);

/// The oldest revision of a CPU that never raises conflict aborts at BBM level 2 although its ID
/// register does not say level 3. Implementer and part number as in MIDR_EL1; the revision is
/// variant and revision (0x12 is r1p2).
struct NoConflictAbort {
    implementer: u8,
    part: u16,
    since: u8,
}

const fn since(implementer: u8, part: u16, revision: u8) -> NoConflictAbort {
    NoConflictAbort { implementer, part, since: revision }
}

/// The CPUs whose vendors promise level 3's behaviour: Linux's list, as its arm64 maintainers
/// collected it from Arm and other vendors (arch/arm64/kernel/cpufeature.c, September 2025 and July
/// 2026). C1-Ultra and C1-Premium before r1p1 can livelock without break-before-make (erratum
/// 3683289); Neoverse-V3AE before r0p2 has erratum 3053180. Part numbers are those of the CPUs'
/// technical reference manuals (MIDR_EL1) and of Trusted Firmware-A's headers; Cortex-A520AE's is
/// LLVM's.
const NO_CONFLICT_ABORT: [NoConflictAbort; 15] = [
    since(0x41, 0xd4d, 0x00), // Cortex-A715
    since(0x41, 0xd82, 0x03), // Cortex-X4
    since(0x41, 0xd83, 0x02), // Neoverse-V3AE
    since(0x41, 0xd84, 0x02), // Neoverse-V3
    since(0x41, 0xd87, 0x00), // Cortex-A725
    since(0x41, 0xd88, 0x00), // Cortex-A520AE
    since(0x41, 0xd89, 0x00), // Cortex-A720AE
    since(0x41, 0xd8a, 0x00), // C1-Nano
    since(0x41, 0xd8b, 0x00), // C1-Pro
    since(0x41, 0xd8c, 0x11), // C1-Ultra
    since(0x41, 0xd8e, 0x00), // Neoverse-N3
    since(0x41, 0xd90, 0x11), // C1-Premium
    since(0x4e, 0x010, 0x00), // NVIDIA Olympus
    since(0xc0, 0xac3, 0x00), // AmpereOne
    since(0xc0, 0xac4, 0x00), // AmpereOne A
];

/// Names of CPUs, by implementer and part number: those of the list, and others that are common or
/// that QEMU has.
const NAMES: [(u8, u16, &str); 29] = [
    (0x41, 0xd03, "Cortex-A53"),
    (0x41, 0xd04, "Cortex-A35"),
    (0x41, 0xd05, "Cortex-A55"),
    (0x41, 0xd07, "Cortex-A57"),
    (0x41, 0xd08, "Cortex-A72"),
    (0x41, 0xd0b, "Cortex-A76"),
    (0x41, 0xd0c, "Neoverse-N1"),
    (0x41, 0xd40, "Neoverse-V1"),
    (0x41, 0xd41, "Cortex-A78"),
    (0x41, 0xd47, "Cortex-A710"),
    (0x41, 0xd49, "Neoverse-N2"),
    (0x41, 0xd4d, "Cortex-A715"),
    (0x41, 0xd4f, "Neoverse-V2"),
    (0x41, 0xd82, "Cortex-X4"),
    (0x41, 0xd83, "Neoverse-V3AE"),
    (0x41, 0xd84, "Neoverse-V3"),
    (0x41, 0xd87, "Cortex-A725"),
    (0x41, 0xd88, "Cortex-A520AE"),
    (0x41, 0xd89, "Cortex-A720AE"),
    (0x41, 0xd8a, "C1-Nano"),
    (0x41, 0xd8b, "C1-Pro"),
    (0x41, 0xd8c, "C1-Ultra"),
    (0x41, 0xd8e, "Neoverse-N3"),
    (0x41, 0xd90, "C1-Premium"),
    (0x46, 0x001, "A64FX"),
    (0x4e, 0x010, "Olympus"),
    (0x00, 0x051, "QEMU max"),
    (0xc0, 0xac3, "AmpereOne"),
    (0xc0, 0xac4, "AmpereOne A"),
];

impl Midr {
    pub(crate) const fn implementer(self) -> u8 {
        (self.0 >> 24) as u8
    }

    pub(crate) const fn part(self) -> u16 {
        (self.0 >> 4 & 0xfff) as u16
    }

    /// rNpM as 0xNM.
    pub(crate) const fn revision(self) -> u8 {
        (self.0 >> 16 & 0xf0 | self.0 & 0xf) as u8
    }

    /// What the CPU is called, if it is a common one.
    pub fn name(self) -> Option<&'static str> {
        let named = NAMES
            .iter()
            .find(|(implementer, part, _)| *implementer == self.implementer() && *part == self.part());
        named.map(|(_, _, name)| *name)
    }

    /// The BBM level to rely on, given what the ID register reports: level 3 for the CPUs known
    /// never to raise conflict aborts, what is reported for all others.
    ///
    /// ```
    /// use linmap_vmsa::id::{BbmLevel, Midr, Mmfr2};
    ///
    /// // Both registers of one CPU. A system has the lowest level of its CPUs.
    /// let level = |midr_el1: u64, mmfr2_el1: u64| Midr(midr_el1).bbm(Mmfr2(mmfr2_el1).bbm());
    /// assert_eq!(level(0x410f_d4f0, 2 << 52), BbmLevel::L2, "Neoverse-V2");
    /// assert_eq!(level(0x410f_d842, 2 << 52), BbmLevel::L3, "Neoverse-V3 r0p2, which is listed");
    /// assert_eq!(level(0x410f_d4f0, 3 << 52), BbmLevel::L3, "what reports level 3");
    /// ```
    pub fn bbm(self, reported: BbmLevel) -> BbmLevel {
        let listed = NO_CONFLICT_ABORT.iter().any(|cpu| {
            cpu.implementer == self.implementer() && cpu.part == self.part() && self.revision() >= cpu.since
        });
        if listed { BbmLevel::L3 } else { reported }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granule_fields_are_read_with_their_own_encodings() {
        // All fields 0: 4K and 64K are there, 16K is not (Cortex-A72).
        let a72 = Mmfr0(0x0000_1124);
        assert!(a72.supports(Granule::K4) && a72.supports(Granule::K64) && !a72.supports(Granule::K16));
        assert_eq!(a72.pa_bits(), 44);
        assert!(a72.asid16());
        let none = Mmfr0(0xff0f_ffff | 0xf << 28);
        assert!(!none.supports(Granule::K4) && !none.supports(Granule::K64));
    }

    #[test]
    fn lpa2_is_told_by_the_field_of_the_granule() {
        // QEMU's max: TGran4 1, TGran16 2. A CPU without LPA2 has both granules too.
        let (max, without) = (Mmfr0(0x1 << 28 | 0x2 << 20), Mmfr0(0x1 << 20));
        for granule in [Granule::K4, Granule::K16] {
            assert!(max.lpa2(granule) && max.supports(granule));
            assert!(!without.lpa2(granule) && without.supports(granule));
        }
        assert!(!max.lpa2(Granule::K64));
        assert!(!Mmfr0(0xf << 28).lpa2(Granule::K4), "no such granule");
        assert!(Mmfr2(1 << 16).va52() && !Mmfr2(!(0xf << 16)).va52());
    }

    #[test]
    fn stage_2_has_its_own_fields_for_granules_which_may_defer_to_those_of_stage_1() {
        // QEMU's max: TGran4 1, TGran16 2, and at stage 2 all of them 3, 3 and 2.
        let max = Mmfr0(0x1 << 28 | 0x2 << 20 | 3 << 40 | 3 << 32 | 2 << 36);
        assert!(max.lpa2_at_stage_2(Granule::K4) && max.lpa2_at_stage_2(Granule::K16));
        assert!(max.supports_at_stage_2(Granule::K64) && !max.lpa2_at_stage_2(Granule::K64));
        let deferring = Mmfr0(0x1 << 28);
        assert!(deferring.lpa2_at_stage_2(Granule::K4), "as at stage 1");
        assert!(deferring.supports_at_stage_2(Granule::K64));
        assert!(!deferring.supports_at_stage_2(Granule::K16), "TGran16 is 0");
        let none = Mmfr0(0x1 << 28 | 1 << 40 | 1 << 36);
        assert!(!none.supports_at_stage_2(Granule::K4) && !none.lpa2_at_stage_2(Granule::K4));
        assert!(!none.supports_at_stage_2(Granule::K64));
        assert!(!Mmfr0(0x1 << 28 | 2 << 40).lpa2_at_stage_2(Granule::K4), "2 is without LPA2");
    }

    #[test]
    fn features_of_stage_2_are_read_from_their_fields() {
        assert!(Mmfr1(2 << 4).vmid16() && !Mmfr1(0).vmid16());
        assert!(Mmfr1(1 << 28).xnx() && !Mmfr1(!(0xf << 28)).xnx());
        assert!(Mmfr2(1 << 40).fwb() && !Mmfr2(!(0xf << 40)).fwb());
    }

    #[test]
    fn the_list_of_cpus_raises_level_2_to_3_from_its_revision_on() {
        // Neoverse-V3 r0p2 and r0p1.
        assert_eq!(Midr(0x410f_d842).bbm(BbmLevel::L2), BbmLevel::L3);
        assert_eq!(Midr(0x410f_d841).bbm(BbmLevel::L2), BbmLevel::L2);
        // Variant counts before revision: r1p0 is newer than r0p2.
        assert_eq!(Midr(0x411f_d840).bbm(BbmLevel::L2), BbmLevel::L3);
        assert_eq!(Midr(0x411f_d0c0).bbm(BbmLevel::L0), BbmLevel::L0, "Neoverse-N1 is not listed");
    }

    #[test]
    fn revisions_with_an_erratum_keep_what_they_report() {
        // C1-Ultra and C1-Premium: r0p0, r0p1 and r1p0 can livelock, r1p1 and later are fixed.
        for part in [0xd8c, 0xd90] {
            let midr = |variant: u64, revision: u64| {
                Midr(0x41 << 24 | variant << 20 | 0xf << 16 | part << 4 | revision).bbm(BbmLevel::L2)
            };
            for affected in [(0, 0), (0, 1), (0, 0xf), (1, 0)] {
                assert_eq!(midr(affected.0, affected.1), BbmLevel::L2, "{part:#x} {affected:?}");
            }
            for fixed in [(1, 1), (1, 2), (2, 0)] {
                assert_eq!(midr(fixed.0, fixed.1), BbmLevel::L3, "{part:#x} {fixed:?}");
            }
        }
        // Cortex-X4 r0p2 and r0p3, Neoverse-V3AE r0p1 (erratum 3053180) and r0p2.
        assert_eq!(Midr(0x410f_d822).bbm(BbmLevel::L2), BbmLevel::L2);
        assert_eq!(Midr(0x410f_d823).bbm(BbmLevel::L2), BbmLevel::L3);
        assert_eq!(Midr(0x410f_d831).bbm(BbmLevel::L2), BbmLevel::L2);
        assert_eq!(Midr(0x410f_d832).bbm(BbmLevel::L2), BbmLevel::L3);
    }

    #[test]
    fn every_revision_of_a_cpu_without_errata_is_listed() {
        for part in [0xd4d, 0xd87, 0xd88, 0xd89, 0xd8a, 0xd8b, 0xd8e] {
            let midr = Midr(0x410f_0000 | part << 4);
            assert_eq!(midr.bbm(BbmLevel::L2), BbmLevel::L3, "{:?}", midr.name());
        }
        assert_eq!(Midr(0x4e0f_0100).bbm(BbmLevel::L2), BbmLevel::L3);
        // The same part number of another implementer is another CPU; Cortex-A720 and A520 are not
        // listed.
        assert_eq!(Midr(0x420f_d4d0).bbm(BbmLevel::L1), BbmLevel::L1);
        assert_eq!(Midr(0x410f_d810).bbm(BbmLevel::L2), BbmLevel::L2);
        assert_eq!(Midr(0x410f_d800).bbm(BbmLevel::L2), BbmLevel::L2);
    }

    #[test]
    fn every_listed_cpu_has_a_name_and_no_name_stands_twice() {
        for cpu in &NO_CONFLICT_ABORT {
            let midr = Midr(u64::from(cpu.implementer) << 24 | u64::from(cpu.part) << 4);
            assert!(midr.name().is_some(), "{midr:x?}");
        }
        for (i, name) in NAMES.iter().enumerate() {
            assert!(
                !NAMES[..i].iter().any(|other| other.2 == name.2 || (other.0, other.1) == (name.0, name.1))
            );
        }
    }

    #[test]
    fn the_least_pa_range_has_the_bits_and_the_one_below_has_not() {
        for bits in 1..=52 {
            let encoding = Mmfr0::least_pa_range(bits);
            assert!(Mmfr0(encoding).pa_bits() >= bits, "{bits}");
            assert!(encoding == 0 || Mmfr0(encoding - 1).pa_bits() < bits, "{bits}");
        }
    }

    #[test]
    fn range_invalidation_is_the_field_s_second_value() {
        assert!(!Isar0(0).tlbi_range() && !Isar0(1 << 56).tlbi_range() && Isar0(2 << 56).tlbi_range());
    }

    #[test]
    fn instructions_for_sha_256_are_there_from_the_field_s_first_value_on() {
        assert!(!Isar0(!(0xf << 12)).sha2() && Isar0(1 << 12).sha2() && Isar0(2 << 12).sha2());
    }

    #[test]
    fn the_bbm_field_reads_as_its_level() {
        assert_eq!(Mmfr2(0x2 << 52).bbm(), BbmLevel::L2);
        assert_eq!(Mmfr2(0x3 << 52).bbm(), BbmLevel::L3);
        assert_eq!(Mmfr2(0).bbm(), BbmLevel::L0);
    }
}
