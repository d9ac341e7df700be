#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod address_space;
mod apply;
mod apply_update;
mod change;
mod check;
mod checked_plan;
mod clear;
mod entry;
pub mod events;
mod every_leaf;
mod exclusivity;
mod fold;
mod foldable;
mod gather;
mod half;
mod hierarchy;
mod history;
mod in_asid;
mod invalidate;
mod maintenance;
mod map;
mod marks;
mod node;
mod plan;
mod plan_error;
mod planner;
mod protect;
mod refused;
mod report;
mod rewrite;
mod root_edits;
mod run;
mod scope;
mod script;
mod space_part;
mod split;
mod step;
mod target;
mod tlbi_coverage;
mod tree;
mod tree_context;
mod uniform;
mod uniform_updated;
mod unmap;
mod update;
mod updating;
mod written_pages;

pub use address_space::{AddressSpace, SpaceError, Tools, Translation};
pub use apply::EditCounts;
pub use change::Change;
pub use checked_plan::{Applied, CheckedPlan};
pub use every_leaf::Global;
pub use half::Half;
pub use invalidate::MAX_INVALIDATIONS;
pub use maintenance::Maintenance;
pub use marks::Marks;
pub use plan::Plan;
pub use plan_error::PlanError;

pub use refused::{BrokenRule, Refused};
pub use space_part::{PartError, SpacePart};
pub use step::{Edit, EveryLeaf, Invalidation, Reach, Step, Store};
pub use target::{Parked, Quiescent, Retried, Target};
pub use tree::LiveTree;
pub use update::Update;
