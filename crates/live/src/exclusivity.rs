//! Who may access the range during an edit.

/// Who may access the range during the edit: a [`Target`](crate::Target) without its addresses.
// Four bytes, so that a plan has no padding, which would be copied byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Exclusivity {
    /// Any CPU, at any time.
    InUse,
    /// No CPU accesses the range.
    Quiescent,
    /// No CPU walks the tree.
    Parked,
}
