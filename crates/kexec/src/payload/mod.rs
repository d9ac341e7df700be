//! The files of a payload: the archive that holds them, and the kernel, which is recognised,
//! checked and unpacked.

mod archive;
mod file_format;
mod gzip;
mod image;
mod kernel_file;
mod kernel_file_error;
mod packing;
mod unpack_error;
mod unpacker;
mod zboot;
#[cfg(feature = "zstd")]
mod zstd;
#[cfg(feature = "zstd")]
mod zstd_block;
#[cfg(feature = "zstd")]
mod zstd_survey;

pub use archive::{Archive, ArchiveError, Member, Members};
pub use file_format::FileFormat;
pub(crate) use image::BASE_ALIGN;
pub use image::{Image, ImageError, PlacementFlag};
pub use kernel_file::KernelFile;
pub use kernel_file_error::KernelFileError;
pub use packing::Packing;
pub use unpack_error::UnpackError;
pub use unpacker::Unpacker;
#[cfg(feature = "zstd")]
pub use zstd_survey::ZSTD_WINDOW_MAX;
