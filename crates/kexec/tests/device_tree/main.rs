//! Device trees for the next kernel: edited, and read by it.

mod any_tree;
mod kept;
mod next_tree;
mod tree;
