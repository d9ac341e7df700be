//! Kernels of which one instruction is another: found by its function and its place in it among
//! those that a recording has, replaced in the Image.

mod image;
mod instruction;
mod judging;
#[path = "../../../cli/src/symbols/kallsyms.rs"]
mod kallsyms;
mod recording;

pub use image::Kernel;
pub use instruction::{Change, Instruction};
pub use judging::{Mutant, judge_mutants};
pub use recording::{Mistake, OVERDUE, Recording, Site};
