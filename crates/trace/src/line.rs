//! A line of a trace.

use crate::event::Event;
use crate::head::{Head, Ram};
use crate::recorded::Recorded;

/// A line of a trace: a [`Head`], then [`Ram`], then [`Event`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Line {
    /// The machine: the first line, once.
    Machine(Head),
    /// Memory of the machine.
    Ram(Ram),
    /// What happens.
    Event(Recorded),
}

impl From<Event> for Line {
    fn from(event: Event) -> Self {
        Self::Event(event.into())
    }
}
