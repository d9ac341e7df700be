//! The verdict on a whole trace.

use crate::config::ConfigError;
use crate::machine::Machine;
use crate::trace::Trace;
use crate::violation::Violation;

impl Trace {
    /// Runs all events and returns the first [`Violation`] as the inner error.
    ///
    /// # Errors
    /// [`ConfigError`] of an impossible machine.
    pub fn check(&self) -> Result<Result<(), Violation>, ConfigError> {
        let mut machine = Machine::new(&self.config)?;
        Ok(self.events.iter().try_for_each(|event| machine.step(event)))
    }
}
