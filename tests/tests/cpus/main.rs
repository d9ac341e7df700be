//! Several CPUs: brought up, interrupted, refused, switched off and on, and handed over, on
//! machines of many kinds and with device trees that lie.

mod bbm_level;
mod bindings;
mod expect;
mod handed_over;
mod refused;
mod start;
mod tree;
mod wrong_trees;
