//! The check of a plan: each step against the memory as it is, the steps before it, and what TLBs
//! may still hold.
//!
//! It does not know how plans are made. A plan that it accepts follows the rules of Arm ARM D8.16
//! on CPUs with the tree's BBM level, whatever its source. It may refuse unusual plans that are
//! legal.
//!
//! A plan is read once, step by step. [`History`](crate::history::History) records which entries
//! were stored. [`checker`] records what has to be invalidated, and what is ordered.

mod barriers;
mod checker;
mod entries;
mod parked;
mod removed;
mod short_plan;
mod steps;
mod together;
mod updates;
mod valid_again;

pub(crate) use steps::{Author, check};
