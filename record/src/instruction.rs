//! Instructions that a recorder has to see, by their encoding.

use linmap_trace::{Access, Domain, Tlbi, TlbiScope};

/// What an instruction does, with the number of its operand register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Instruction {
    Dsb(Domain, Access),
    /// DSB with nXS, of loads and stores.
    DsbNxs(Domain),
    Isb,
    Eret,
    Tlbi(Tlbi, u8),
    /// A TLBI with nXS.
    TlbiNxs(Tlbi, u8),
    /// MSR of a register of translation, or of vectors.
    Write(System, u8),
    /// A call of firmware or a hypervisor: SMC or HVC.
    Call {
        is_smc: bool,
    },
    Dmb(Domain, Access),
    /// DC ZVA, DC GZVA or STZGM, which raise no callback for what they store. Nor do the next.
    Zero(u8),
    /// SETP, SETM, SETE, and those that store tags as well.
    Set {
        stage: Stage,
        to: u8,
        left: u8,
        value: u8,
    },
    /// CPYP, CPYM, CPYE, and those that copy forward alone.
    Copy {
        stage: Stage,
        to: u8,
        left: u8,
    },
}

/// A stage of a memory copy or set. The main one and the last read their registers alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    Prologue,
    Other,
}

/// A system register whose writes matter, as the instruction calls it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct System {
    pub name: Name,
    pub suffix: Suffix,
}

/// A register without its suffix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Name {
    Sctlr,
    Ttbr0,
    Ttbr1,
    Tcr,
    Mair,
    Vbar,
    Hcr,
    Vtcr,
    Vttbr,
}

/// The suffix of a register's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Suffix {
    El1,
    El2,
    El12,
    El3,
}

impl Instruction {
    /// Whether it is a barrier of loads alone.
    pub fn is_of_loads(self) -> bool {
        matches!(self, Self::Dsb(_, Access::Loads) | Self::Dmb(_, Access::Loads))
    }

    /// What `word` does, if it matters.
    pub fn of(word: u32) -> Option<Self> {
        if matches!(word, 0xd69f_03e0 | 0xd69f_0bff | 0xd69f_0fff) {
            return Some(Self::Eret);
        }
        if matches!(word & 0xffe0_001f, 0xd400_0002 | 0xd400_0003) {
            return Some(Self::Call { is_smc: word & 1 == 1 });
        }
        if word & 0xffff_fc00 == 0xd920_0000 {
            return Some(Self::Zero((word >> 5 & 0x1f) as u8));
        }
        if word & 0xfb20_0c00 == 0x1900_0400 {
            return copy_or_set(word);
        }
        if word & 0xffc0_0000 != 0xd500_0000 {
            return None;
        }
        let field = |shift: u32, bits: u32| (word >> shift & ((1 << bits) - 1)) as u8;
        let [read, op0, op1, crn, crm, op2, rt] =
            [(21, 1), (19, 2), (16, 3), (12, 4), (8, 4), (5, 3), (0, 5)]
                .map(|(shift, bits)| field(shift, bits));
        if read == 1 {
            return None;
        }
        match (op0, op1, crn, op2) {
            (0, 3, 3, 4) => barrier(crm).map(|(domain, access)| Self::Dsb(domain, access)),
            (0, 3, 3, 5) => barrier(crm).map(|(domain, access)| Self::Dmb(domain, access)),
            // The domain in CRm<3:2>.
            (0, 3, 3, 1) => barrier(crm | 0b11).map(|(domain, _)| Self::DsbNxs(domain)),
            (0, 3, 3, 6) => Some(Self::Isb),
            (1, 3, 7, 1 | 4) if crm == 4 => Some(Self::Zero(rt)),
            (1, _, 8, _) => tlbi(op1, crm, op2).map(|tlbi| Self::Tlbi(tlbi, rt)),
            (1, _, 9, _) => tlbi(op1, crm, op2).map(|tlbi| Self::TlbiNxs(tlbi, rt)),
            (3, _, _, _) => {
                let suffix = match op1 {
                    0 => Suffix::El1,
                    4 => Suffix::El2,
                    5 => Suffix::El12,
                    6 => Suffix::El3,
                    _ => return None,
                };
                let name = match (crn, crm, op2) {
                    (1, 0, 0) => Name::Sctlr,
                    (2, 0, 0) => Name::Ttbr0,
                    (2, 0, 1) => Name::Ttbr1,
                    (2, 0, 2) => Name::Tcr,
                    (10, 2, 0) => Name::Mair,
                    (12, 0, 0) => Name::Vbar,
                    (1, 1, 0) if suffix == Suffix::El2 => Name::Hcr,
                    (2, 1, 0) if suffix == Suffix::El2 => Name::Vttbr,
                    (2, 1, 2) if suffix == Suffix::El2 => Name::Vtcr,
                    _ => return None,
                };
                Some(Self::Write(System { name, suffix }, rt))
            }
            _ => None,
        }
    }
}

/// A memory copy or set (Arm ARM C4.1, "Memory Copy and Memory Set").
fn copy_or_set(word: u32) -> Option<Instruction> {
    let field = |shift: u32| (word >> shift & 0x1f) as u8;
    let (to, left, other) = (field(0), field(5), field(16));
    // SET's stage is in op2<3:2>; there is no fourth.
    let (is_set, stage) = match word >> 22 & 3 {
        3 => (true, word >> 14 & 3),
        stage => (false, stage),
    };
    let stage = match stage {
        0 => Stage::Prologue,
        1 | 2 => Stage::Other,
        _ => return None,
    };
    Some(if is_set {
        Instruction::Set { stage, to, left, value: other }
    } else {
        Instruction::Copy { stage, to, left }
    })
}

/// What a DSB or DMB orders.
fn barrier(crm: u8) -> Option<(Domain, Access)> {
    // SSBB and PSSBB.
    if matches!(crm, 0b0000 | 0b0100) {
        return None;
    }
    let domain = match crm >> 2 {
        0 => Domain::Osh,
        1 => Domain::Nsh,
        2 => Domain::Ish,
        _ => Domain::Sy,
    };
    let access = match crm & 3 {
        1 => Access::Loads,
        2 => Access::Stores,
        _ => Access::All,
    };
    // Reserved values of the option are SY.
    let domain = if crm & 3 == 0 { Domain::Sy } else { domain };
    Some((domain, access))
}

/// The TLBI of SYS op1, C8 or C9, CRm, op2 (Arm ARM C5.5).
fn tlbi(op1: u8, crm: u8, op2: u8) -> Option<Tlbi> {
    use TlbiScope as Is;
    // CRm without what tells local, inner and outer forms apart, and whether it is broadcast.
    let (form, broadcast) = match (op1, crm) {
        (_, 7) => (Form::Plain, false),
        (_, 1 | 3) => (Form::Plain, true),
        (_, 6) => (Form::Range, false),
        (_, 2 | 5) => (Form::Range, true),
        (4, 4) => (Form::Stage2, matches!(op2, 0 | 4 | 3 | 7)),
        (4, 0) => (Form::Stage2, true),
        _ => return None,
    };
    let scope = match (op1, form, op2) {
        (0, Form::Plain, 0) => Is::AllEl1,
        (0, Form::Plain, 1) => Is::Va,
        (0, Form::Plain, 2) => Is::Asid,
        (0, Form::Plain, 3) => Is::VaAnyAsid,
        (0, Form::Plain, 5) => Is::VaLast,
        (0, Form::Plain, 7) => Is::VaAnyAsidLast,
        (0, Form::Range, 1) => Is::Range,
        (0, Form::Range, 3) => Is::RangeAnyAsid,
        (0, Form::Range, 5) => Is::RangeLast,
        (0, Form::Range, 7) => Is::RangeAnyAsidLast,
        (4, Form::Plain, 0) => Is::AllEl2,
        (4, Form::Plain, 1) => Is::VaEl2,
        (4, Form::Plain, 4) => Is::AllStages,
        (4, Form::Plain, 5) => Is::VaEl2Last,
        (4, Form::Plain, 6) => Is::AllStagesVmid,
        (4, Form::Range, 1) => Is::RangeEl2,
        (4, Form::Range, 5) => Is::RangeEl2Last,
        (6, Form::Plain, 0) => Is::AllEl3,
        (6, Form::Plain, 1) => Is::VaEl3,
        (6, Form::Plain, 5) => Is::VaEl3Last,
        (6, Form::Range, 1) => Is::RangeEl3,
        (6, Form::Range, 5) => Is::RangeEl3Last,
        (4, Form::Stage2, 0 | 1) => Is::Ipa,
        (4, Form::Stage2, 4 | 5) => Is::IpaLast,
        (4, Form::Stage2, 2 | 3) => Is::IpaRange,
        (4, Form::Stage2, 6 | 7) => Is::IpaRangeLast,
        _ => return None,
    };
    Some(Tlbi { scope, broadcast })
}

#[derive(Clone, Copy)]
enum Form {
    Plain,
    Range,
    Stage2,
}

/// What an access to memory has to be told apart by.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Accesses {
    /// It reads and writes memory at once, so that it loses nothing that hardware updates: an
    /// atomic, a compare-and-swap, or the store of an exclusive pair.
    pub is_atomic: bool,
    /// It is a load-acquire.
    pub acquires: bool,
    /// It is a store-release.
    pub releases: bool,
}

impl Accesses {
    /// What the load or store `word` does.
    pub fn of(word: u32) -> Self {
        let bit = |at: u32| word >> at & 1 == 1;
        // Loads and stores of exclusives, ordered ones, and compare-and-swap: size 001000 o2 L o1.
        if word & 0x3f00_0000 == 0x0800_0000 {
            let (is_ordered, is_load, is_pair, o0) = (bit(23), bit(22), bit(21), bit(15));
            // CASP has the place of pairs of bytes and halfwords.
            if is_pair && (is_ordered || !bit(31)) {
                return Self { is_atomic: true, acquires: is_load, releases: o0 };
            }
            return Self { is_atomic: !is_ordered, acquires: o0 && is_load, releases: o0 && !is_load };
        }
        // LDAPR, which has a place among them.
        if word & 0x3fff_fc00 == 0x38bf_c000 {
            return Self { is_atomic: false, acquires: true, releases: false };
        }
        // Atomic memory operations: size 111000 A R 1. One that drops what it loads acquires
        // nothing (Arm ARM C6.2, LDADD and SWP).
        if word & 0x3f20_0c00 == 0x3820_0000 {
            let is_dropped = word & 0x1f == 31;
            return Self { is_atomic: true, acquires: bit(23) && !is_dropped, releases: bit(22) };
        }
        // LDAPUR and STLUR: size 011001 opc 0.
        if word & 0x3f20_0c00 == 0x1900_0000 {
            let is_load = word >> 22 & 3 != 0;
            return Self { is_atomic: false, acquires: is_load, releases: !is_load };
        }
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_known_by_their_encoding() {
        use Suffix::{El1, El2, El3, El12};
        let set = |stage| Some(Instruction::Set { stage, to: 0, left: 1, value: 2 });
        let copy = |stage| Some(Instruction::Copy { stage, to: 0, left: 1 });
        let write = |name, suffix, rt| Some(Instruction::Write(System { name, suffix }, rt));
        let tlbi = |name: &str, rt| Some(Instruction::Tlbi(Tlbi::named(name.as_bytes()).unwrap(), rt));
        for (word, expected) in [
            (0xd503_3b9f, Some(Instruction::Dsb(Domain::Ish, Access::All))),
            (0xd503_3a9f, Some(Instruction::Dsb(Domain::Ish, Access::Stores))),
            (0xd503_379f, Some(Instruction::Dsb(Domain::Nsh, Access::All))),
            (0xd503_3f9f, Some(Instruction::Dsb(Domain::Sy, Access::All))),
            (0xd503_399f, Some(Instruction::Dsb(Domain::Ish, Access::Loads))),
            // DSB ISHnXS, DSB NSHnXS.
            (0xd503_3a3f, Some(Instruction::DsbNxs(Domain::Ish))),
            (0xd503_363f, Some(Instruction::DsbNxs(Domain::Nsh))),
            (0xd508_931f, Some(Instruction::TlbiNxs(Tlbi::named(b"vmalle1is").unwrap(), 31))),
            (0xd503_3fdf, Some(Instruction::Isb)),
            (0xd69f_03e0, Some(Instruction::Eret)),
            (0xd508_831f, tlbi("vmalle1is", 31)),
            (0xd508_871f, tlbi("vmalle1", 31)),
            (0xd508_8320, tlbi("vae1is", 0)),
            (0xd508_8362, tlbi("vaae1is", 2)),
            (0xd508_83a1, tlbi("vale1is", 1)),
            (0xd508_83e3, tlbi("vaale1is", 3)),
            (0xd508_8345, tlbi("aside1is", 5)),
            (0xd508_8222, tlbi("rvae1is", 2)),
            (0xd508_82e2, tlbi("rvaale1is", 2)),
            (0xd50c_831f, tlbi("alle2is", 31)),
            (0xd50c_83df, tlbi("vmalls12e1is", 31)),
            (0xd50c_839f, tlbi("alle1is", 31)),
            (0xd50c_8020, tlbi("ipas2e1is", 0)),
            (0xd50c_8420, tlbi("ipas2e1", 0)),
            (0xd518_1000, write(Name::Sctlr, El1, 0)),
            (0xd518_2001, write(Name::Ttbr0, El1, 1)),
            (0xd518_2021, write(Name::Ttbr1, El1, 1)),
            (0xd518_2042, write(Name::Tcr, El1, 2)),
            (0xd518_a203, write(Name::Mair, El1, 3)),
            (0xd518_c008, write(Name::Vbar, El1, 8)),
            (0xd51c_1000, write(Name::Sctlr, El2, 0)),
            (0xd51c_1101, write(Name::Hcr, El2, 1)),
            (0xd51c_2102, write(Name::Vttbr, El2, 2)),
            (0xd51c_2143, write(Name::Vtcr, El2, 3)),
            (0xd51c_2024, write(Name::Ttbr1, El2, 4)),
            (0xd51d_1000, write(Name::Sctlr, El12, 0)),
            (0xd51d_2041, write(Name::Tcr, El12, 1)),
            (0xd51e_2000, write(Name::Ttbr0, El3, 0)),
            (0xd51e_c002, write(Name::Vbar, El3, 2)),
            // VTTBR_EL2 and HCR_EL2 have no other suffix.
            (0xd518_2100, None),
            (0xd51e_1101, None),
            (0xd400_0002, Some(Instruction::Call { is_smc: false })),
            (0xd400_0003, Some(Instruction::Call { is_smc: true })),
            (0xd50b_7427, Some(Instruction::Zero(7))),
            (0xd50b_7487, Some(Instruction::Zero(7))),
            // STZGM x1, [x2]; STGM x1, [x2], which stores tags alone.
            (0xd920_0041, Some(Instruction::Zero(2))),
            (0xd9a0_0041, None),
            (0xd503_3abf, Some(Instruction::Dmb(Domain::Ish, Access::Stores))),
            (0xd503_3bbf, Some(Instruction::Dmb(Domain::Ish, Access::All))),
            (0xd503_39bf, Some(Instruction::Dmb(Domain::Ish, Access::Loads))),
            // SETP, SETM, SETE [x0]!, x1!, x2; SETGE; SETPTN.
            (0x19c2_0420, set(Stage::Prologue)),
            (0x19c2_4420, set(Stage::Other)),
            (0x19c2_8420, set(Stage::Other)),
            (0x1dc2_8420, set(Stage::Other)),
            (0x19c2_3420, set(Stage::Prologue)),
            // CPYP, CPYM, CPYE [x0]!, [x2]!, x1!; CPYFP; CPYEWTN.
            (0x1d02_0420, copy(Stage::Prologue)),
            (0x1d42_0420, copy(Stage::Other)),
            (0x1d82_0420, copy(Stage::Other)),
            (0x1902_0420, copy(Stage::Prologue)),
            (0x1d82_4420, copy(Stage::Other)),
            // MRS x0, TTBR0_EL1; NOP; RET.
            (0xd538_2000, None),
            (0xd503_201f, None),
            (0xd65f_03c0, None),
        ] {
            assert_eq!(Instruction::of(word), expected, "{word:#x}");
        }
    }

    #[test]
    fn accesses_are_told_apart_by_what_they_order_and_whether_they_are_atomic() {
        for (word, is_atomic, acquires, releases) in [
            // ldxr x0, [x2]; stxr w1, x0, [x2]; ldaxr; stlxr; ldaxp; stlxp.
            (0xc85f_7c40, true, false, false),
            (0xc801_7c40, true, false, false),
            (0xc85f_fc40, true, true, false),
            (0xc801_fc40, true, false, true),
            (0xc87f_8440, true, true, false),
            (0xc821_8440, true, false, true),
            // cas x0, x1, [x2]; casa; casl; casal; caspal x0, x1, x2, x3, [x4].
            (0xc8a0_7c41, true, false, false),
            (0xc8e0_7c41, true, true, false),
            (0xc8a0_fc41, true, false, true),
            (0xc8e0_fc41, true, true, true),
            (0x4860_fc82, true, true, true),
            // swp x0, x1, [x2]; ldset; ldaddal; ldapr x0, [x1].
            (0xf820_8041, true, false, false),
            (0xf820_3041, true, false, false),
            (0xf8e0_0041, true, true, true),
            (0xf8bf_c020, false, true, false),
            // ldaddal x0, xzr, [x1]; swpa x0, xzr, [x1]; ldapr xzr, [x1].
            (0xf8e0_003f, true, false, true),
            (0xf8a0_803f, true, false, false),
            (0xf8bf_c03f, false, true, false),
            // stlr x0, [x1]; ldar; stlur x0, [x1]; ldapur.
            (0xc89f_fc20, false, false, true),
            (0xc8df_fc20, false, true, false),
            (0xd900_0020, false, false, true),
            (0xd940_0020, false, true, false),
            // str x0, [x1]; stp x0, x1, [x2]; str x0, [x1, x2].
            (0xf900_0020, false, false, false),
            (0xa900_0440, false, false, false),
            (0xf822_6820, false, false, false),
        ] {
            assert_eq!(Accesses::of(word), Accesses { is_atomic, acquires, releases }, "{word:#x}");
        }
    }
}
