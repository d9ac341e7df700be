//! Instructions of translation, told apart as far as a kernel's file and a trace both show them.

/// What an instruction is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Instruction {
    /// DSB of reads and writes.
    Dsb,
    /// DSB of stores.
    DsbStores,
    /// ISB, or ERET.
    Synchronizes,
    /// TLBI.
    Tlbi,
    /// MSR of a register that has to do with translation.
    Msr,
}

impl Instruction {
    /// What the word of an instruction is, if it is one of these (Arm ARM C4.1.94, C5.1).
    pub fn of(word: u32) -> Option<Self> {
        if word == 0xd69f_03e0 {
            return Some(Self::Synchronizes);
        }
        if word >> 22 != 0b11_0101_0100 {
            return None;
        }
        let (crn, crm) = (word >> 12 & 0xf, word >> 8 & 0xf);
        match word >> 16 & 0x3f {
            0b00_0011 if word & 0xf0ff == 0x309f => {
                // SSBB and PSSBB have other names; loads alone order nothing of a table.
                match crm {
                    0b0000 | 0b0100 => None,
                    _ => match crm & 3 {
                        1 => None,
                        2 => Some(Self::DsbStores),
                        _ => Some(Self::Dsb),
                    },
                }
            }
            // DSB with nXS.
            0b00_0011 if word & 0xf0ff == 0x303f => Some(Self::Dsb),
            0b00_0011 if word & 0xf0ff == 0x30df => Some(Self::Synchronizes),
            // SYS with op0 = 1.
            0b00_1000..=0b00_1111 if matches!(crn, 8 | 9) => Some(Self::Tlbi),
            // op0 = 3: control, translation, memory types.
            0b01_1000..=0b01_1111 if matches!(crn, 1 | 2 | 10) => Some(Self::Msr),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_by_their_words() {
        for (word, what) in [
            (0xd503_3a9f, Some(Instruction::DsbStores)), // dsb ishst
            (0xd503_3b9f, Some(Instruction::Dsb)),       // dsb ish
            (0xd503_379f, Some(Instruction::Dsb)),       // dsb nsh
            (0xd503_3f9f, Some(Instruction::Dsb)),       // dsb sy
            (0xd503_309f, None),                         // ssbb
            (0xd503_3bbf, None),                         // dmb ish
            (0xd503_3fdf, Some(Instruction::Synchronizes)),
            (0xd69f_03e0, Some(Instruction::Synchronizes)),
            (0xd508_871f, Some(Instruction::Tlbi)), // tlbi vmalle1
            (0xd508_8323, Some(Instruction::Tlbi)), // tlbi vae1is, x3
            (0xd518_2021, Some(Instruction::Msr)),  // msr ttbr1_el1, x1
            (0xd518_1000, Some(Instruction::Msr)),  // msr sctlr_el1, x0
            (0xd538_2021, None),                    // mrs x1, ttbr1_el1
            (0xd50b_7423, None),                    // dc zva, x3
            (0xd503_201f, None),                    // nop
        ] {
            assert_eq!(Instruction::of(word), what, "{word:#x}");
        }
    }
}
