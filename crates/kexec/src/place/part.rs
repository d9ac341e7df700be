//! The parts of a payload.

use core::fmt;

/// A part of a payload that is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The kernel image.
    Image,
    /// The initrd.
    Initrd,
    /// The device tree.
    Dtb,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Initrd => "initrd",
            Self::Dtb => "device tree",
        })
    }
}
