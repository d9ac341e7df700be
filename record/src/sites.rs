//! Where instructions are that the recorder looks at.
//!
//! Translated code has the addresses of sites, and QEMU does not say when it forgets that code. So
//! sites live as long as QEMU, and their number is bounded.

use std::collections::HashMap;

use crate::instruction::Instruction;
use crate::recorder::NO_PC;

/// An instruction that is executed: where, and what.
#[derive(Debug)]
pub struct Site {
    pub pc: u64,
    pub instruction: Instruction,
}

/// The most sites with a PC of their own in each half of the addresses: code at EL0 can be
/// anywhere, and so can what a kernel compiles or loads.
const MOST: usize = 1 << 18;

/// The sites of the lower and of the upper half, by PC and word: code is translated again and
/// again.
#[derive(Default)]
pub struct Sites([HashMap<(u64, u32), &'static Site>; 2]);

impl Sites {
    /// The site of `word`, which is `instruction`, at `pc`.
    pub fn of(&mut self, pc: u64, word: u32, instruction: Instruction) -> &'static Site {
        let half = &mut self.0[(pc >> 55 & 1) as usize];
        let is_full = half.len() >= MOST && !half.contains_key(&(pc, word));
        let pc = if is_full { NO_PC } else { pc };
        half.entry((pc, word)).or_insert_with(|| Box::leak(Box::new(Site { pc, instruction })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_is_loaded_at_ever_new_addresses_takes_bounded_memory() {
        const ISB: u32 = 0xd503_3fdf;
        let mut sites = Sites::default();
        for start in [0xffff_8000_0000_0000, 0] {
            let mut at = |nth: u64| sites.of(start + 4 * nth, ISB, Instruction::Isb).pc;
            assert_eq!((0..2 * MOST as u64).filter(|nth| at(*nth) == start + 4 * nth).count(), MOST);
            assert_eq!(at(3 * MOST as u64), NO_PC);
            assert_eq!(at(1), start + 4, "what is known stays known");
        }
        assert!(sites.0.iter().all(|half| half.len() <= MOST + 1));
    }
}
