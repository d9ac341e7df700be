//! Loading a payload and entering it.

pub mod allocations;
pub mod archive;
pub mod command_line;
pub mod control;
pub mod core_file;
pub mod crash;
pub mod departure;
pub mod digests;
pub mod error;
pub mod exec;
pub mod hand_over;
pub mod heap;
pub mod listing;
pub mod load;
pub mod loaded;
pub mod next_line;
pub mod next_tree;
pub mod options;
pub mod orders;
pub mod payload;
pub mod place;
pub mod seeds;
pub mod segment;
pub mod stage;
pub mod tables;
pub mod transition;
