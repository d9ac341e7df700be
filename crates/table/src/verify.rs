//! Verification: every entry of a tree against a list of what the tree must translate.
//!
//! Nothing is read back from tables to find out what they should say. The list comes from whoever
//! knows what is mapped, and all addresses that it does not name must have no entry. The walk reads
//! each entry once and compares whole descriptors: a bit that means nothing to the hardware counts
//! like any other.

mod compare;
mod cursor;
mod expected;
mod sharing;
mod tree_error;
mod verifier;

pub use compare::{CompareEntries, PortableLoop};
pub use expected::{Content, Expected, Validity};
pub use sharing::{WritableAndExecutable, check_writable_or_executable};
pub use tree_error::{EntryPlace, TreeError, WantedEntry};
pub use verifier::{AccessFlag, Compared, Tree, verify_tree};
