//! EFI zboot: a PE file with a compressed kernel. Its header, at the start of the file, is a PE
//! header whose unused bytes describe the payload (Linux,
//! drivers/firmware/efi/libstub/zboot-header.S):
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 2 | `MZ` |
//! | 4 | 4 | `zimg` |
//! | 8 | 4 | offset of the payload, little-endian |
//! | 12 | 4 | length of the payload in bytes |
//! | 24 | 32 | name of the compression, NUL-terminated |
//! | 0x38 | 4 | the magic number of Linux's PE images |

use core::ops::Range;

use super::kernel_file_error::KernelFileError;
use super::packing::Packing;

/// Length of the header up to the magic number at 0x38.
const HEADER_LEN: usize = 0x3c;
/// `LINUX_PE_MAGIC`.
const PE_MAGIC: [u8; 4] = [0xcd, 0x23, 0x82, 0x81];

/// The header.
pub(super) struct Zboot {
    /// The range of the payload in the file.
    pub payload: Range<usize>,
    /// The packing of the payload.
    pub packing: Packing,
}

impl Zboot {
    /// Reads the header of `file`, which begins with `MZ` and has `zimg`.
    pub fn parse(file: &[u8]) -> Result<Self, KernelFileError> {
        let len = file.len() as u64;
        let header = file
            .first_chunk::<HEADER_LEN>()
            .ok_or(KernelFileError::ZbootHeader { what: "next byte", at: len })?;
        let word = |at: usize| -> u32 {
            header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        if word(0x38).to_le_bytes() != PE_MAGIC {
            return Err(KernelFileError::ZbootHeader { what: "magic number of Linux's PE images", at: 0x38 });
        }
        let (offset, payload_len) = (word(8), word(12));
        let bad = KernelFileError::ZbootPayload { offset, payload_len, len };
        let (Ok(start), Ok(size)) = (usize::try_from(offset), usize::try_from(payload_len)) else {
            return Err(bad);
        };
        let payload = start..start.checked_add(size).ok_or(bad)?;
        if start < HEADER_LEN || payload.is_empty() || payload.end > file.len() {
            return Err(bad);
        }
        let name = header.get(24..0x38).unwrap_or_default();
        let packing = match name.split(|&byte| byte == 0).next() {
            Some(b"gzip") => Packing::Gzip,
            // Linux's build writes the name of its command: zstd with a level.
            Some(b"zstd" | b"zstd22") => Packing::Zstd,
            other => {
                let mut name = [0; 8];
                name.iter_mut().zip(other.unwrap_or_default()).for_each(|(to, &from)| *to = from);
                return Err(KernelFileError::ZbootCompression { name });
            }
        };
        Ok(Self { payload, packing })
    }
}
