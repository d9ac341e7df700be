//! The place of the last allocation.

use linmap_vmsa::{Pa, PaRange};

/// The arguments of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub len: u64,
    pub align: u64,
    pub limit: PaRange,
}

/// The place of the last allocation. As long as only equal requests follow, each gets the bytes
/// directly below the last one: no free range above fits this request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    pub request: Request,
    /// Index of the reserved range that starts with the last allocation.
    pub index: usize,
    /// The number of free bytes directly below that range, inside the limit; 0 if there was no
    /// allocation.
    pub room: u64,
}

impl Cursor {
    /// No allocation. It is all zero, so that a memblock in a `static` needs no space in the image.
    pub const NONE: Self =
        Self { request: Request { len: 0, align: 0, limit: PaRange::new(Pa(0), Pa(0)) }, index: 0, room: 0 };
}
