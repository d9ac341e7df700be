//! A machine to run table edits against: what its walkers may see and its TLBs may hold, at every moment, and whether
//! that is safe.
//!
//! [`Machine`] takes [`Event`]s, one an instruction, and says after each whether some caching and some order of stores
//! that the architecture allows makes it unsafe. Nothing is enumerated: the machine keeps, for every entry of every
//! table that can be walked, the set of values that a walker may still see and that each CPU may still hold.
//!
//! It is written from the architecture alone (Arm ARM DDI 0487, chapter D8), and shares no rule with the crates that it
//! checks.
//!
//! Where a set would be costly to keep exactly it is kept larger, so that an unsafe sequence is never called legal:
//! a DSB NSH orders stores only on a machine with one CPU; a tree that a TTBR left counts as walkable until an
//! invalidation of all of it, and until the ISB behind its DSB where the CPU issued that itself. Refused as unmodelled are hierarchical permissions (table attributes), TTBR.CnP on a
//! machine with several CPUs, and of TCR the ASID of TTBR1 (A1), walks that are off (EPD) and updates by hardware (HA,
//! HD). Of optional features that make more sequences legal only FEAT_BBM's levels count: none of FEAT_ETS2, for one.
#![forbid(unsafe_code)]

mod cached;
mod compare;
mod descriptor;
pub mod event;
mod fresh;
mod invalidate;
mod machine;
mod memory;
pub mod minimise;
mod order;
mod outcome;
mod roots;
mod rules;
mod settle;
mod shape;
mod space;
mod store;
mod tables;
pub mod trace;
mod violation;
mod walk;
mod witness;

pub use event::Event;
pub use machine::Machine;
pub use rules::Rule;
pub use shape::{Config, ConfigError};
pub use space::Space;
pub use violation::Violation;
pub use witness::Witness;

/// A machine and what happens on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The machine.
    pub config: Config,
    /// What happens, in order.
    pub events: Vec<Event>,
}

impl Trace {
    /// Lets everything happen.
    ///
    /// # Errors
    /// The first [`Violation`]; of an impossible machine, [`ConfigError`].
    pub fn check(&self) -> Result<Result<(), Violation>, ConfigError> {
        let mut machine = Machine::new(&self.config)?;
        Ok(self.events.iter().try_for_each(|event| machine.step(event)))
    }
}
