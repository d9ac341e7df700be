//! From the registers of a CPU to the roots of its trees.

use std::collections::BTreeMap;

use linmap_vmsa::id::Mmfr0;
use linmap_vmsa::{Regime, Stage2, TableRegisters, Walk, WalkError};

use crate::dump::guest::{AddressSpace, Root, RootRegister};
use crate::failure::Failure;

/// Which regimes to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum WantedRegime {
    /// EL1 and its user space: TTBR0_EL1, TTBR1_EL1
    El1,
    /// EL2, and with HCR_EL2.E2H its user space: TTBR0_EL2, TTBR1_EL2
    El2,
    /// EL3: TTBR0_EL3
    El3,
    /// Stage 2 of EL1: VTTBR_EL2
    Stage2,
}

impl WantedRegime {
    fn holds(self, register: RootRegister) -> bool {
        self == match register {
            RootRegister::Ttbr0El1 | RootRegister::Ttbr1El1 => Self::El1,
            RootRegister::Ttbr0El2 | RootRegister::Ttbr1El2 => Self::El2,
            RootRegister::Ttbr0El3 => Self::El3,
            RootRegister::VttbrEl2 => Self::Stage2,
        }
    }
}

/// The registers that tell which trees a CPU walks.
pub const NAMES: [&str; 21] = [
    "TTBR0_EL1",
    "TTBR1_EL1",
    "TCR_EL1",
    "TCR2_EL1",
    "MAIR_EL1",
    "SCTLR_EL1",
    "TTBR0_EL2",
    "TTBR1_EL2",
    "TCR_EL2",
    "TCR2_EL2",
    "MAIR_EL2",
    "SCTLR_EL2",
    "HCR_EL2",
    "VTTBR_EL2",
    "VTCR_EL2",
    "TTBR0_EL3",
    "TCR_EL3",
    "MAIR_EL3",
    "SCTLR_EL3",
    "ID_AA64MMFR0_EL1",
    "ID_AA64MMFR1_EL1",
];

/// The values of registers, by name.
#[derive(Clone, Debug, Default)]
pub struct Registers(BTreeMap<&'static str, u64>);

/// The trees that a CPU walks, and what has to be said of those that are not shown.
#[derive(Debug, Default)]
pub struct Found {
    /// The trees.
    pub roots: Vec<Root>,
    /// Trees that are in use and can't be read.
    pub notes: Vec<String>,
    /// Why regimes have no tree.
    unused: Vec<String>,
}

impl Registers {
    /// Sets a register.
    pub fn set(&mut self, name: &'static str, value: u64) {
        self.0.insert(name, value);
    }

    /// The value of a register, if it is known.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    fn bit(&self, name: &str, bit: u32) -> bool {
        self.get(name).is_some_and(|value| value >> bit & 1 != 0)
    }

    /// The trees of the regimes that `wanted` names, or of all that are in use, in the registers
    /// that `given` lists unless it is empty.
    pub fn roots(&self, wanted: &[WantedRegime], given: &[RootRegister]) -> Found {
        let mut found = Found::default();
        let is_wanted = |register| {
            (wanted.is_empty() || wanted.iter().any(|regime| regime.holds(register)))
                && (given.is_empty() || given.contains(&register))
        };
        // TGE: EL1 is not in use. DC: it has no stage 1 and a stage 2.
        let (e2h, tge, dc) = (self.bit("HCR_EL2", 34), self.bit("HCR_EL2", 27), self.bit("HCR_EL2", 12));
        let has_stage_2 = !tge && (dc || self.bit("HCR_EL2", 0));
        let addresses = if has_stage_2 { AddressSpace::Intermediate } else { AddressSpace::Physical };
        if tge {
            found.unused.push("HCR_EL2.TGE is set, so EL1 is not in use".to_owned());
        } else if dc {
            found.unused.push("HCR_EL2.DC is set, so EL1 has no stage 1".to_owned());
        } else {
            self.stage_1(1, Regime::El1And0, addresses, &is_wanted, &mut found);
        }
        let reads_el1 = found.roots.iter().any(|root| root.addresses == AddressSpace::Intermediate);
        let el2 = if e2h { Regime::El2And0 } else { Regime::El2 };
        if self.get("TTBR0_EL2").is_some() {
            self.stage_1(2, el2, AddressSpace::Physical, &is_wanted, &mut found);
        }
        // The tables of EL1 can't be read without it.
        if has_stage_2 && (reads_el1 || is_wanted(RootRegister::VttbrEl2)) {
            self.stage_2(&mut found);
        } else if wanted.contains(&WantedRegime::Stage2) {
            found.unused.push("HCR_EL2.VM is clear, so there is no stage 2".to_owned());
        }
        if self.get("TTBR0_EL3").is_some() {
            self.stage_1(3, Regime::El3, AddressSpace::Physical, &is_wanted, &mut found);
        }
        found
    }

    fn mmfr0(&self) -> Mmfr0 {
        // Unknown: 52 bits of PA, which take nothing away from what TCR says.
        Mmfr0(self.get("ID_AA64MMFR0_EL1").unwrap_or(0x6))
    }

    fn stage_1(
        &self,
        el: u8,
        regime: Regime,
        addresses: AddressSpace,
        is_wanted: &dyn Fn(RootRegister) -> bool,
        found: &mut Found,
    ) {
        let (lower, upper) = match el {
            1 => (RootRegister::Ttbr0El1, Some(RootRegister::Ttbr1El1)),
            2 => (RootRegister::Ttbr0El2, Some(RootRegister::Ttbr1El2)),
            _ => (RootRegister::Ttbr0El3, None),
        };
        if !is_wanted(lower) && !upper.is_some_and(is_wanted) {
            return;
        }
        let name = |register: &str| format!("{register}_EL{el}");
        if !self.bit(&name("SCTLR"), 0) {
            found.unused.push(format!("SCTLR_EL{el}.M is clear, so the MMU of EL{el} is off"));
            return;
        }
        if let Some(what) = self.get(&name("TCR2")).and_then(unsupported) {
            found.notes.push(format!("{} is not shown: TCR2_EL{el} turns on {what}", regime.name()));
            return;
        }
        let Some(tcr) = self.get(&name("TCR")) else {
            found.notes.push(format!("{} is not shown: TCR_EL{el} is unknown", regime.name()));
            return;
        };
        let of = |register: &str| self.get(&name(register)).unwrap_or(0);
        let registers = TableRegisters { tcr, ttbr0: of("TTBR0"), ttbr1: of("TTBR1") };
        let mut add = |register: RootRegister, walk: Result<Option<Walk>, WalkError>| match walk {
            Ok(Some(walk)) => found.roots.push(Root {
                register,
                geometry: walk.geometry,
                table: walk.root,
                first: walk.first,
                id: walk.id,
                tcr: Some(tcr),
                mair: self.get(&name("MAIR")),
                addresses,
                shareability: walk.shareability,
                writable_never_executes: self.bit(&name("SCTLR"), 19),
                has_table_permissions: walk.has_table_permissions,
                updates: walk.updates,
                ignores_top_byte: ignores_top_byte(register, regime, tcr),
            }),
            Ok(None) => found.unused.push(format!("TCR_EL{el} turns walks of {register} off")),
            Err(error) => {
                found.notes.push(format!("{register} is not shown: TCR_EL{el} is {tcr:#x}: {error}"));
            }
        };
        if is_wanted(lower) {
            add(lower, Walk::lower(regime, registers, self.mmfr0()));
        }
        if let Some(upper) = upper.filter(|&upper| regime.has_user_space() && is_wanted(upper)) {
            add(upper, Walk::upper(regime, registers, self.mmfr0()));
        }
    }

    fn stage_2(&self, found: &mut Found) {
        let (Some(vtcr), Some(vttbr)) = (self.get("VTCR_EL2"), self.get("VTTBR_EL2")) else {
            found.notes.push("stage 2 is not shown: VTCR_EL2 or VTTBR_EL2 is unknown".to_owned());
            return;
        };
        // S2PIE, S2POE, D128.
        if vtcr >> 36 & 0b111 != 0 {
            let what = "permission indirection or overlays, or descriptors of 128 bits";
            found.notes.push(format!("stage 2 is not shown: VTCR_EL2 {vtcr:#x} turns on {what}"));
            return;
        }
        // The form with two bits is that with one where the CPU has one: the other is 0.
        let has_xnx = self.get("ID_AA64MMFR1_EL1").is_none_or(|mmfr1| mmfr1 >> 28 & 0xf != 0);
        let features = match (self.bit("HCR_EL2", 46), has_xnx) {
            (false, false) => Stage2::Base,
            (true, false) => Stage2::Fwb,
            (false, true) => Stage2::Xnx,
            (true, true) => Stage2::FwbXnx,
        };
        match Walk::stage_2(vtcr, vttbr, features, self.mmfr0()) {
            Ok(walk) => found.roots.push(Root {
                register: RootRegister::VttbrEl2,
                geometry: walk.geometry,
                table: walk.root,
                first: walk.first,
                id: walk.id,
                tcr: Some(vtcr),
                mair: None,
                addresses: AddressSpace::Physical,
                shareability: walk.shareability,
                writable_never_executes: false,
                has_table_permissions: walk.has_table_permissions,
                updates: walk.updates,
                ignores_top_byte: false,
            }),
            Err(error) => found.notes.push(format!("stage 2 is not shown: VTCR_EL2 is {vtcr:#x}: {error}")),
        }
    }
}

impl Found {
    /// The trees and the notes.
    ///
    /// # Errors
    /// There is no tree.
    pub fn roots_and_notes(self) -> Result<(Vec<Root>, Vec<String>), Failure> {
        if !self.roots.is_empty() {
            return Ok((self.roots, self.notes));
        }
        let why: Vec<_> = self.notes.into_iter().chain(self.unused).collect();
        let why = if why.is_empty() { "no such regime is known".to_owned() } else { why.join("; ") };
        Err(Failure::new(format_args!("no translation tables are in use: {why}"))
            .hint("let the guest run until it has them, or name others with --cpu or --regime"))
    }
}

/// Whether the top byte of the addresses that `register` translates is a tag: TCR_ELx.TBI0 and TBI1
/// of two halves, TBI of one range. TBID, which takes instruction fetches out, changes nothing:
/// data has tags all the same.
pub fn ignores_top_byte(register: RootRegister, regime: Regime, tcr: u64) -> bool {
    let bit = match register {
        RootRegister::Ttbr1El1 | RootRegister::Ttbr1El2 => 38,
        RootRegister::Ttbr0El1 | RootRegister::Ttbr0El2 | RootRegister::Ttbr0El3 => {
            if regime.has_user_space() { 37 } else { 20 }
        }
        RootRegister::VttbrEl2 => return false,
    };
    tcr >> bit & 1 != 0
}

/// What TCR2 turns on that gives descriptors another meaning.
fn unsupported(tcr2: u64) -> Option<&'static str> {
    let names = [
        (0, "protected tables (PnCH)"),
        (1, "permission indirection (PIE)"),
        (2, "permission overlays (E0POE)"),
        (3, "permission overlays (POE)"),
        (4, "attribute indices of four bits (AIE)"),
        (5, "descriptors of 128 bits (D128)"),
    ];
    names.into_iter().find(|(bit, _)| tcr2 >> bit & 1 != 0).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::registers::{SCTLR_MMU_AND_CACHES, tcr};
    use linmap_vmsa::{Geometry, Pa};

    const MMU: u64 = SCTLR_MMU_AND_CACHES;
    const E2H: u64 = 1 << 34;
    const TGE: u64 = 1 << 27;

    fn at_el1() -> Registers {
        let mut registers = Registers::default();
        let tcr = tcr(Geometry::K4_48, Geometry::K4_48, true).unwrap();
        for (name, value) in [
            ("TTBR0_EL1", 0x4100_0000),
            ("TTBR1_EL1", 0x4200_0000),
            ("TCR_EL1", tcr),
            ("MAIR_EL1", 0xff),
            ("SCTLR_EL1", MMU),
        ] {
            registers.set(name, value);
        }
        registers
    }

    fn with_el2(hcr: u64) -> Registers {
        let mut registers = at_el1();
        let (tcr, of_one) = (registers.get("TCR_EL1").unwrap(), 0x8081_3510 + (3 << 16));
        for (name, value) in [
            ("TTBR0_EL2", 0x5100_0000),
            ("TTBR1_EL2", 0x5200_0000),
            ("TCR_EL2", if hcr & E2H != 0 { tcr } else { of_one }),
            ("SCTLR_EL2", MMU),
            ("HCR_EL2", hcr),
            ("VTTBR_EL2", 0x0007_0000_6000_2000),
            ("VTCR_EL2", 0x8002_3558),
        ] {
            registers.set(name, value);
        }
        registers
    }

    fn names(found: &Found) -> Vec<(RootRegister, u64, AddressSpace)> {
        found.roots.iter().map(|root| (root.register, root.table.0, root.addresses)).collect()
    }

    #[test]
    fn a_kernel_at_el1_has_two_trees() {
        let found = at_el1().roots(&[], &[]);
        let physical = AddressSpace::Physical;
        let expected = [
            (RootRegister::Ttbr0El1, 0x4100_0000, physical),
            (RootRegister::Ttbr1El1, 0x4200_0000, physical),
        ];
        assert_eq!(names(&found), expected);
        assert_eq!(found.roots[0].mair, Some(0xff));
        assert_eq!(found.roots_and_notes().unwrap().1, Vec::<String>::new());
    }

    #[test]
    fn under_e2h_and_tge_the_kernel_s_trees_are_in_the_registers_of_el2() {
        let found = with_el2(E2H | TGE | 1).roots(&[], &[]);
        let registers: Vec<_> =
            found.roots.iter().map(|root| (root.register, root.geometry.regime())).collect();
        let regime = Regime::El2And0;
        assert_eq!(registers, [(RootRegister::Ttbr0El2, regime), (RootRegister::Ttbr1El2, regime)]);
        let error = with_el2(E2H | TGE).roots(&[WantedRegime::El1], &[]).roots_and_notes().unwrap_err();
        assert!(error.to_string().contains("TGE"), "{error}");
    }

    #[test]
    fn a_hypervisor_has_one_range_and_stage_2_and_the_guest_s_tables_are_behind_it() {
        let found = with_el2(1).roots(&[], &[]);
        let (physical, intermediate) = (AddressSpace::Physical, AddressSpace::Intermediate);
        let expected = [
            (RootRegister::Ttbr0El1, 0x4100_0000, intermediate),
            (RootRegister::Ttbr1El1, 0x4200_0000, intermediate),
            (RootRegister::Ttbr0El2, 0x5100_0000, physical),
            (RootRegister::VttbrEl2, 0x6000_2000, physical),
        ];
        assert_eq!(names(&found), expected);
        assert_eq!(found.roots[2].geometry.regime(), Regime::El2);
        assert_eq!((found.roots[3].id, found.roots[3].geometry.va_bits()), (7, 40));
        // EL1 can't be read without stage 2.
        let found = with_el2(1).roots(&[WantedRegime::El1], &[]);
        assert_eq!(names(&found), [expected[0], expected[1], expected[3]]);
        let found = with_el2(1).roots(&[WantedRegime::El2], &[]);
        assert_eq!(names(&found), [expected[2]]);
        let found = with_el2(0).roots(&[WantedRegime::Stage2], &[]).roots_and_notes().unwrap_err();
        assert!(found.to_string().contains("HCR_EL2.VM is clear"), "{found}");
    }

    #[test]
    fn what_is_off_or_has_no_support_is_said_by_name() {
        let with = |name, value| {
            let mut registers = at_el1();
            registers.set(name, value);
            registers.roots(&[], &[])
        };
        let error = with("SCTLR_EL1", 0).roots_and_notes().unwrap_err();
        assert!(error.to_string().contains("SCTLR_EL1.M is clear, so the MMU of EL1 is off"), "{error}");
        let error = with("TCR2_EL1", 2).roots_and_notes().unwrap_err();
        assert!(error.to_string().contains("permission indirection (PIE)"), "{error}");
        // The other half is shown.
        let tcr = at_el1().get("TCR_EL1").unwrap();
        let (roots, notes) = with("TCR_EL1", tcr | 3 << 14).roots_and_notes().unwrap();
        assert_eq!((roots.len(), notes.len()), (1, 1));
        assert!(notes[0].contains("TTBR0_EL1 is not shown"), "{notes:?}");
        let (roots, notes) = with("TCR_EL1", tcr | 1 << 7).roots_and_notes().unwrap();
        assert_eq!((roots.len(), notes.len()), (1, 0), "EPD0");
    }

    #[test]
    fn only_the_registers_that_were_given_are_shown() {
        let found = at_el1().roots(&[], &[RootRegister::Ttbr1El1]);
        assert_eq!(found.roots[0].table, Pa(0x4200_0000));
        assert_eq!(found.roots.len(), 1);
    }

    #[test]
    fn the_top_byte_is_a_tag_where_tcr_says_so() {
        let ignored = |mut registers: Registers, name, bit: u32| {
            registers.set(name, registers.get(name).unwrap() | 1 << bit);
            let roots = registers.roots(&[], &[]).roots.into_iter();
            let tagged = roots.filter(|root| root.ignores_top_byte);
            tagged.map(|root| root.register).collect::<Vec<_>>()
        };
        assert_eq!(ignored(at_el1(), "TCR_EL1", 37), [RootRegister::Ttbr0El1]);
        assert_eq!(ignored(at_el1(), "TCR_EL1", 38), [RootRegister::Ttbr1El1]);
        assert_eq!(ignored(with_el2(1), "TCR_EL2", 20), [RootRegister::Ttbr0El2]);
        assert_eq!(ignored(with_el2(E2H | TGE), "TCR_EL2", 38), [RootRegister::Ttbr1El2]);
    }
}
