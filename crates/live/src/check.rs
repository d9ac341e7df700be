//! The check of a plan: every step against the memory as it is, what the steps before it have made
//! of that, and what TLBs may still hold.
//!
//! It does not know how plans are made. A plan that it accepts breaks no rule of Arm ARM D8.16 on
//! CPUs with the tree's BBM level, whoever made it; it may refuse unusual plans that would be
//! legal.
//!
//! A plan is read once, step by step. What a step may depend on is kept as it is read: which
//! entries were stored ([`History`](crate::history::History)), what has to be invalidated, and what
//! is ordered ([`checker`]).

mod barriers;
mod checker;
mod entries;
mod parked;
mod short_plan;
mod steps;

pub(crate) use steps::{Author, check};
