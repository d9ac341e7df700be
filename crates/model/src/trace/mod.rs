//! Traces: a machine and what happens on it; and the formats of files that hold one.

pub mod casemate;
mod ranges;
mod read_error;
pub mod text;

pub use read_error::{Problem, ReadError};

use linmap_trace::Event;

use crate::config::Config;

/// A machine and what happens on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The machine.
    pub config: Config,
    /// What happens, in order.
    pub events: Vec<Event>,
}
