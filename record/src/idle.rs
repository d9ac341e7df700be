//! Barriers without effect on any table: they are counted, and are no events.

use std::collections::HashMap;

use linmap_trace::binary::{Barrier, Idle};

/// The most places that are told apart: code at EL0 can be anywhere.
const MOST: usize = 1 << 16;

/// How often each barrier had no effect.
#[derive(Default)]
pub struct IdleBarriers(HashMap<(u64, Barrier), u64>);

impl IdleBarriers {
    /// The barrier at `pc` was executed and had no effect. Those at places beyond the most count
    /// as at 0.
    pub fn count(&mut self, pc: u64, barrier: Barrier) {
        let is_full = self.0.len() >= MOST && !self.0.contains_key(&(pc, barrier));
        *self.0.entry((if is_full { 0 } else { pc }, barrier)).or_insert(0) += 1;
    }

    /// All of them, those at low addresses first.
    pub fn take(&mut self) -> Vec<Idle> {
        let mut all: Vec<Idle> = std::mem::take(&mut self.0)
            .into_iter()
            .map(|((pc, barrier), count)| Idle { pc, barrier, count })
            .collect();
        all.sort_by_key(|idle| idle.pc);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barriers_at_ever_more_places_take_bounded_memory_and_all_count() {
        let mut idle = IdleBarriers::default();
        for nth in 0..2 * MOST as u64 {
            idle.count(0x40_0000 + 4 * nth, Barrier::Isb);
        }
        assert!(idle.0.len() <= MOST + 1);
        let all = idle.take();
        assert_eq!(all.iter().map(|idle| idle.count).sum::<u64>(), 2 * MOST as u64);
        assert_eq!(all[0].pc, 0);
    }
}
