#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod access;
mod asids;
mod barriers;
mod cached;
mod common;
mod compare;
mod config;
mod conflict;
mod control;
mod culprit;
mod current_asid;
mod descriptor;
mod dirty;
mod dormant;
mod entries;
mod excerpt;
mod forget;
mod fresh;
mod guest;
mod invalidate;
mod leaves;
mod limits;
mod machine;
mod memory;
pub mod minimise;
mod miss;
mod mmu_off;
mod needed;
mod observed;
mod outcome;
mod overdue;
mod passed;
mod paths;
mod places;
mod regime;
mod roots;
mod rules;
mod runs;
mod scope;
mod settle;
mod space;
mod stage_two;
mod step;
mod store;
mod stretch;
mod tables;
mod taken;
mod tcr;
pub mod trace;
mod updates;
mod verdict;
mod violation;
mod witness;

/// The events that a machine takes: those of [`linmap_trace`].
pub mod event {
    pub use linmap_trace::{Access, Domain, Event, Register, Tlbi, TlbiScope, Use};
}

pub use config::{Config, ConfigError, Leniency};
pub use excerpt::{Breadth, Chosen, Excerpt};
pub use forget::Resumed;
pub use linmap_trace::Event;
pub use machine::Machine;
pub use miss::Miss;
pub use rules::Rule;
pub use space::Space;
pub use taken::TakenBack;
pub use trace::Trace;
pub use verdict::{Legal, Verdict};
pub use violation::Violation;
pub use witness::{Missed, Witness};
