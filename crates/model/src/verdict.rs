//! The verdict on a whole trace, and how much it says.

use std::fmt;

use crate::config::ConfigError;
use crate::machine::Machine;
use crate::trace::Trace;
use crate::violation::Violation;

/// What it means that a sequence broke no rule.
///
/// The machine refuses what is unsafe at some moment. A translation that should be gone is unsafe
/// only once software relies on its absence, and [`Event::Settled`](crate::Event::Settled) is how a
/// trace says that it does. Without one, most missing invalidations are not found.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Legal {
    /// At the last `settled` everything that may be cached agreed with the tables.
    Settled {
        /// The number of events after it.
        after: usize,
    },
    /// No `settled`: a missing invalidation is found only where another event is unsafe without it.
    NeverSettled,
}

/// How a sequence was judged.
pub type Verdict = Result<Legal, Violation>;

impl fmt::Display for Legal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled { after: 0 } => f.write_str("legal"),
            Self::Settled { after } => {
                write!(
                    f,
                    "legal; an invalidation missing in the {after} events after the last \
                    `settled` may go unnoticed"
                )
            }
            Self::NeverSettled => {
                f.write_str("legal, but without a `settled` a missing invalidation may go unnoticed")
            }
        }
    }
}

impl Machine {
    /// The number of events so far.
    pub fn events(&self) -> usize {
        self.events
    }

    /// The verdict on all events so far.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn verdict(&self) -> Verdict {
        match (self.broken, self.settled) {
            (Some(violation), _) => Err(violation),
            (None, Some(event)) => Ok(Legal::Settled { after: self.events - event - 1 }),
            (None, None) => Ok(Legal::NeverSettled),
        }
    }
}

impl Trace {
    /// Runs all events. The first [`Violation`] is the inner error.
    ///
    /// # Errors
    /// [`ConfigError`] of an impossible machine.
    pub fn check(&self) -> Result<Verdict, ConfigError> {
        let mut machine = Machine::new(&self.config)?;
        for event in &self.events {
            if let Err(violation) = machine.step(event) {
                return Ok(Err(violation));
            }
        }
        Ok(machine.verdict())
    }
}
