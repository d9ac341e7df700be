//! Changes of a live tree as the lines of a trace, which the machine model judges.
//!
//! [`TracedTree::opening`] emits the machine and its tables. [`TracedTree::plan`] emits a change
//! that is about to be applied in use, [`TracedTree::parked_plan`] one that was applied parked.
//! Lines go to `emit` in order.
//!
//! Nothing is allocated: stores to consecutive entries become fills, and tables are walked a level
//! at a time.

mod fills;
mod tables;
mod traced_tree;

pub use traced_tree::{Roots, TracedTree};
