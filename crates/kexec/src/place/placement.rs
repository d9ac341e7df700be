//! The places of a payload's parts.

use linmap_vmsa::{Pa, PaRange};

/// The most bytes of a device tree, and the size of the block that it gets.
pub(super) const DTB_BLOCK: u64 = 0x20_0000;

/// The initrd of a payload that is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initrd {
    /// The payload has none.
    Absent,
    /// It has this many bytes and may lie anywhere the kernel can reach it.
    Len(u64),
    /// It stays in this range.
    At(PaRange),
}

/// The places of a payload's parts. No two share a 4 KiB page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadPlacement {
    /// The image: `image_size` bytes. Its first byte is the entry point.
    pub image: PaRange,
    /// The initrd, exactly as long as the initrd is. Unless it stays where it was, it starts at a
    /// multiple of 64 KiB.
    pub initrd: Option<PaRange>,
    /// The device tree, exactly as long as the tree is. It starts at a multiple of 2 MiB.
    pub dtb: PaRange,
}

impl PayloadPlacement {
    /// Returns the payload's entry point: the image's first byte.
    pub fn entry(&self) -> Pa {
        self.image.start
    }
}
