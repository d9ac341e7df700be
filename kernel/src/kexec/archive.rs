//! The boot loader's initrd, which is the archive with payload and script.

use linmap_kexec::{Archive, ArchiveError};
use linmap_vmsa::PaRange;
use thiserror::Error;

use crate::arch::platform::Platform;
use crate::memory::physical::Memory;

/// Why the archive can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ArchiveAccessError {
    /// The initrd's memory is not mapped.
    #[error("the initrd at {initrd} does not lie in one mapped range of memory")]
    InitrdNotMapped {
        /// Its range in /chosen.
        initrd: PaRange,
    },
    /// The initrd overlaps the running kernel.
    #[error("the initrd at {initrd} overlaps the kernel image at {image}")]
    InitrdOverImage {
        /// Its range in /chosen.
        initrd: PaRange,
        /// The range of the image.
        image: PaRange,
    },
    /// The initrd is not an archive.
    #[error("archive: {0}")]
    Archive(#[from] ArchiveError),
}

impl ArchiveAccessError {
    /// The error's kind in a line for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InitrdNotMapped { .. } | Self::InitrdOverImage { .. } => "initrd",
            Self::Archive(_) => "archive",
        }
    }
}

/// Opens the archive that the boot loader passed as initrd. `None` without an initrd.
///
/// # Errors
/// [`ArchiveAccessError`].
pub fn open(platform: &Platform, memory: &Memory) -> Result<Option<Archive<'static>>, ArchiveAccessError> {
    let Some(initrd) = platform.initrd else { return Ok(None) };
    if !memory.is_mapped(initrd) {
        return Err(ArchiveAccessError::InitrdNotMapped { initrd });
    }
    let image = platform.image.range();
    if initrd.overlaps(image) {
        return Err(ArchiveAccessError::InitrdOverImage { initrd, image });
    }
    // SAFETY: the linear map has all of it, and memblock reserved it from the start. Nothing writes
    // to it: it shares no byte with the image.
    let bytes = unsafe { memory.constant_bytes(initrd) };
    Ok(Some(Archive::parse(bytes)?))
}
