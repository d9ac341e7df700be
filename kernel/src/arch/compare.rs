//! Comparing tables with the CPU's vector registers.
//!
//! The kernel is built without them, so that no code uses them by accident. This routine is called
//! by a CPU that needs nothing of what they held.

use core::arch::global_asm;

use linmap_table::verify::{CompareEntries, PortableLoop};

use crate::arch::cpu;

global_asm!(include_str!("compare.S"));

unsafe extern "C" {
    fn compare_entries(entries: *const u64, turns: usize, first: u64, step: u64) -> usize;
}

/// How many entries the routine compares at a time.
const TURN: usize = 64;

/// Comparison by vector registers: two instructions an entry instead of almost four.
#[derive(Clone, Copy, Debug)]
pub struct VectorLoop {
    has_vectors: bool,
}

impl VectorLoop {
    /// Lets this CPU use its vector registers, if it has any.
    pub fn new() -> Self {
        let has_vectors = cpu::has_vectors();
        if has_vectors {
            cpu::enable_vectors();
        }
        Self { has_vectors }
    }
}

impl CompareEntries for VectorLoop {
    fn leading(&self, entries: &[u64], first: u64, step: u64) -> usize {
        let turns = entries.len() / TURN;
        if !self.has_vectors || turns == 0 {
            return PortableLoop.leading(entries, first, step);
        }
        // SAFETY: the routine reads so many turns of the slice and changes nothing but registers
        // that a call may change. The CPU has vector registers, and they are enabled.
        let right = unsafe { compare_entries(entries.as_ptr(), turns, first, step) };
        let before = right * TURN;
        let rest = entries.get(before..).unwrap_or_default();
        before + PortableLoop.leading(rest, first.wrapping_add(step.wrapping_mul(before as u64)), step)
    }
}
