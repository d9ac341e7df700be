//! A machine to run table edits against: what its walkers may see and its TLBs may hold, at every moment, and whether
//! that is safe.
#![forbid(unsafe_code)]

pub mod event;
mod shape;

pub use event::Event;
pub use shape::{Config, ConfigError};

/// A machine and what happens on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The machine.
    pub config: Config,
    /// What happens, in order.
    pub events: Vec<Event>,
}
