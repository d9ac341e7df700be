//! Barriers without effect on any table: they are counted, and are no events.

use std::collections::HashMap;

use linmap_trace::binary::{Barrier, Idle};

/// How often each barrier had no effect.
#[derive(Default)]
pub struct IdleBarriers(HashMap<(u64, Barrier), u64>);

impl IdleBarriers {
    /// The barrier at `pc` was executed and had no effect.
    pub fn count(&mut self, pc: u64, barrier: Barrier) {
        *self.0.entry((pc, barrier)).or_insert(0) += 1;
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
