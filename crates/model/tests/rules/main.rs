//! What the machine accepts and what it refuses, each mistake beside the form that is right. One
//! program, because each takes its time to build.

#[path = "../scene/mod.rs"]
mod scene;

mod dormant;
mod entries;
mod hierarchy;
mod in_common;
mod isb;
mod overdue;
mod own_walks;
mod passed;
mod regimes;
mod registers;
mod runs;
mod stage_two;
mod tlbi;
mod updates;
mod upper_asids;
mod walks_off;
