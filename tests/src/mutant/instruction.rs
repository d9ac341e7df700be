//! Instructions that a mutant loses, by their words (Arm ARM C4.1).

/// NOP.
const NOP: u32 = 0xd503_201f;

/// A kind of instruction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Instruction {
    /// DSB with an option that waits for stores alone.
    DsbStores,
    /// Any other DSB.
    DsbAll,
    /// ISB.
    Isb,
    /// TLBI of every CPU.
    TlbiShared,
    /// TLBI of this CPU.
    TlbiLocal,
}

impl Instruction {
    /// The kind of the instruction with this word, if it is one of these.
    pub fn of(word: u32) -> Option<Self> {
        // CRm is the option of a barrier.
        let option = word >> 8 & 0xf;
        match word & 0xffff_f0ff {
            0xd503_309f => Some(if option & 3 == 2 { Self::DsbStores } else { Self::DsbAll }),
            0xd503_30df => Some(Self::Isb),
            // SYS with CRn 8 is TLBI; CRm has 1, 2 and 3 for CPUs of a domain.
            _ if word & 0xfff8_f000 == 0xd508_8000 => {
                Some(if matches!(option, 1..=3) { Self::TlbiShared } else { Self::TlbiLocal })
            }
            _ => None,
        }
    }
}

/// What becomes of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is a NOP.
    Nop,
    /// A TLBI of every CPU is one of this CPU.
    Local,
}

impl Change {
    /// What is instead of the instruction with this word.
    pub fn of(self, word: u32) -> u32 {
        match self {
            Self::Nop => NOP,
            // VAE1IS has CRm 3 and RVAE1IS 2; VAE1 has 7 and RVAE1 6.
            Self::Local => word | 4 << 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_known_by_their_words() {
        for (word, instruction) in [
            (0xd503_3a9f, Some(Instruction::DsbStores)),
            (0xd503_3b9f, Some(Instruction::DsbAll)),
            (0xd503_3fdf, Some(Instruction::Isb)),
            (0xd508_8369, Some(Instruction::TlbiShared)),
            (0xd508_8260, Some(Instruction::TlbiShared)),
            (0xd508_871f, Some(Instruction::TlbiLocal)),
            (0xd503_3bbf, None),
            (NOP, None),
        ] {
            assert_eq!(Instruction::of(word), instruction, "{word:#x}");
        }
        let local = Change::Local.of(0xd508_8369);
        assert_eq!((local, Instruction::of(local)), (0xd508_8769, Some(Instruction::TlbiLocal)));
        assert_eq!(Instruction::of(Change::Local.of(0xd508_8260)), Some(Instruction::TlbiLocal));
    }
}
