//! The halves of the VA space.

/// Which half of the VA space a tree translates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Half {
    /// From 0 on: the tree of a TTBR0.
    Low,
    /// Up to 2^64: the tree of a TTBR1.
    High,
}
