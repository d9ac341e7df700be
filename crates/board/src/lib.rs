#![doc = include_str!("../README.md")]

mod board;
mod cpu;
mod early_tables;
mod frames;
mod memory;
mod regime;
mod state;
mod walkers;
mod window;

pub use board::Board;
pub use cpu::BoardCpu;
pub use early_tables::EarlyTables;
pub use frames::BoardFrames;
pub use regime::BoardRegime;
pub use walkers::{Accesses, Walk, Walkers};
pub use window::BoardWindow;
