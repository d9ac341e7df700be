//! Device trees for the next kernel: edited, and read by it.

mod any_tree;
mod next_tree;
mod preserved;
mod tree;
mod vacated;
