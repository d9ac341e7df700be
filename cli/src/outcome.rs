//! What a command ended with.

/// What a command ended with, as its exit code says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done; the trace is legal, the dumps are equal.
    Good,
    /// Done; the trace is illegal, or the dumps differ.
    Bad,
}
