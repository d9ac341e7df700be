//! What a CPU can do, read from the values of its ID registers.

use crate::Granule;

/// ID_AA64MMFR0_EL1: PA size and granules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Mmfr0(pub u64);

impl Mmfr0 {
    /// Bits of physical address (PARange), at most 52 here: a larger size (56, with FEAT_D128) or an unknown
    /// encoding counts as the largest that VMSAv8-64 descriptors hold.
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

    /// Whether ASIDs have 16 bits (ASIDBits).
    pub const fn asid16(self) -> bool {
        self.0 >> 4 & 0xf == 0b0010
    }
}

/// The level of support for changing block sizes without break-before-make (FEAT_BBM).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BbmLevel {
    /// Every size change needs break-before-make.
    L0,
    /// Size changes go through the nT bit; accesses may fault meanwhile.
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

/// ID_AA64MMFR2_EL1: the BBM level.
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
}

/// MIDR_EL1: which CPU this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Midr(pub u64);

/// The oldest revision of a CPU that never raises conflict aborts at BBM level 2 although its ID register does not say
/// level 3. Implementer and part number as in MIDR_EL1; the revision is variant and revision (0x12 is r1p2).
struct NoConflictAbort {
    implementer: u8,
    part: u16,
    since: u8,
}

const fn since(implementer: u8, part: u16, revision: u8) -> NoConflictAbort {
    NoConflictAbort { implementer, part, since: revision }
}

/// The CPUs whose makers promise level 3's behaviour. C1-Ultra and C1-Premium before r1p1 can livelock without
/// break-before-make (erratum 3683289); Neoverse-V3AE before r0p2 has erratum 3053180.
const NO_CONFLICT_ABORT: [NoConflictAbort; 6] = [
    since(0x41, 0xd82, 0x03), // Cortex-X4
    since(0x41, 0xd84, 0x02), // Neoverse-V3
    since(0x41, 0xd83, 0x02), // Neoverse-V3AE
    since(0x4e, 0x010, 0x00), // NVIDIA Olympus
    since(0xc0, 0xac3, 0x00), // AmpereOne
    since(0xc0, 0xac4, 0x00), // AmpereOne A
];

impl Midr {
    /// The BBM level to rely on, given what the ID register reports: level 3 for the CPUs known never to raise
    /// conflict aborts, what is reported for all others.
    pub fn bbm(self, reported: BbmLevel) -> BbmLevel {
        let implementer = (self.0 >> 24) as u8;
        let part = (self.0 >> 4 & 0xfff) as u16;
        let revision = (self.0 >> 16 & 0xf0 | self.0 & 0xf) as u8;
        let listed = NO_CONFLICT_ABORT
            .iter()
            .any(|cpu| cpu.implementer == implementer && cpu.part == part && revision >= cpu.since);
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
    fn the_list_of_cpus_raises_level_2_to_3_from_its_revision_on() {
        // Neoverse-V3 r0p2 and r0p1.
        assert_eq!(Midr(0x410f_d842).bbm(BbmLevel::L2), BbmLevel::L3);
        assert_eq!(Midr(0x410f_d841).bbm(BbmLevel::L2), BbmLevel::L2);
        // Variant counts before revision: r1p0 is newer than r0p2.
        assert_eq!(Midr(0x411f_d840).bbm(BbmLevel::L2), BbmLevel::L3);
        assert_eq!(Midr(0x411f_d0c0).bbm(BbmLevel::L0), BbmLevel::L0, "Neoverse-N1 is not listed");
    }

    #[test]
    fn the_bbm_field_reads_as_its_level() {
        assert_eq!(Mmfr2(0x2 << 52).bbm(), BbmLevel::L2);
        assert_eq!(Mmfr2(0x3 << 52).bbm(), BbmLevel::L3);
        assert_eq!(Mmfr2(0).bbm(), BbmLevel::L0);
    }
}
