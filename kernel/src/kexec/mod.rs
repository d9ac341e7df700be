//! Loading a payload and entering it.

pub mod command;
pub mod core_file;
pub mod crash;
pub mod departure;
pub mod exec;
pub mod heap;
pub mod load;
pub mod loaded;
mod next_line;
pub mod put;
pub mod seeds;
pub mod tables;
pub mod taken;
