//! Events as a recorder saw them.

use core::fmt::{Display, Formatter, Result};

use crate::event::Event;

/// An event, and where the instruction lies that it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Recorded {
    /// What happened.
    pub event: Event,
    /// The virtual address of the instruction, if the recorder gave one.
    pub pc: Option<u64>,
}

impl From<Event> for Recorded {
    /// The event without a place.
    fn from(event: Event) -> Self {
        Self { event, pc: None }
    }
}

impl Display for Recorded {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.event.fmt(f)?;
        self.pc.map_or(Ok(()), |pc| write!(f, " pc={pc:#x}"))
    }
}
