//! A linear map that is built on host memory and compared with what the rules say: every byte is
//! mapped to itself exactly once with the right attributes, nothing else is mapped, every leaf is
//! the largest that alignment allows, and no table is more than it takes.
//!
//! The tables are read by their bits. Neither `linmap-table` nor `linmap-vmsa` takes part in that.

pub mod build;
mod cost;
mod cpu;
pub mod expected;
mod frames;
pub mod geometries;
pub mod host;
mod read;
