//! A build, or edits, that the checker found legal, and the number of events.

use std::time::Duration;

/// A build, or edits, that the checker found legal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked {
    pub(super) events: u64,
    pub(super) time: Duration,
    /// Bytes of all tables built.
    pub(super) table_bytes: u64,
}
