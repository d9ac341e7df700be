//! Who may use the addresses of an edit while it happens.

/// Who may use the addresses of an edit while it happens: a [`Target`](crate::Target) without its
/// addresses.
// Of four bytes, so that a plan has no padding, which would be moved byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Exclusivity {
    /// Any CPU may use any of it at any moment.
    InUse,
    /// Nobody uses the addresses.
    Quiescent,
    /// Nobody walks the tree.
    Parked,
}
