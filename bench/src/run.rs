//! What a contestant's work gives: a map and the time it took.

use std::time::{Duration, Instant};

use anyhow::Result;
use linmap_vmsa::Pa;

/// One finished map.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How long the case's work took.
    pub time: Duration,
    /// The root table.
    pub root: Pa,
    /// TLB invalidations asked for during the work. The host has none to execute.
    pub tlbis: u64,
}

impl Run {
    /// Times `work`, which returns the root table.
    ///
    /// # Errors
    /// Those of `work`.
    #[inline]
    pub fn timed<E>(work: impl FnOnce() -> Result<Pa, E>) -> Result<Self, E> {
        let start = Instant::now();
        let root = work()?;
        Ok(Self { time: start.elapsed(), root, tlbis: 0 })
    }
}
