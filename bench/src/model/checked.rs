//! A build that the checker found legal, and the number of its events.

use std::time::Duration;

use anyhow::{Result, bail};
use linmap_model::{Event, Machine};

/// A build that the checker found legal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked {
    pub(super) events: u64,
    pub(super) time: Duration,
    /// Bytes of all tables built.
    pub(super) table_bytes: u64,
}

/// How many events `machine`, which has refused none, has taken.
pub(super) fn events(machine: &mut Machine) -> Result<u64> {
    // A refusal says which event it is about. This one is by a CPU that no machine has.
    match machine.step(&Event::Isb { cpu: usize::MAX }) {
        Err(violation) => Ok(violation.event as u64),
        Ok(()) => bail!("a CPU that isn't there got an ISB"),
    }
}
