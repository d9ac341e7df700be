//! The forms in which kernels are shipped: an arm64 Image as it is, compressed, or in an EFI zboot
//! container.
//!
//! Compressed files are as gzip and zstd write them. A zboot is what firmware takes for a PE
//! executable that unpacks a kernel. Layout of its first bytes, all numbers little-endian: "MZ" at
//! 0, "zimg" at 4, the payload's offset at 8 and its size at 12 (u32 each), the name of the
//! compression with a NUL at 24, 0x8182_23cd at 0x38, the offset of the PE header at 0x3c. What is
//! compressed is the Image with zeros up to its image_size. After a zstd payload, and not counted
//! in its size, follow 4 bytes with the size of what is unpacked.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// How a kernel is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Packing {
    /// Not at all
    Raw,
    /// As `gzip Image` does
    Gzip,
    /// As `zstd Image` does
    Zstd,
    /// An EFI zboot that holds gzip
    ZbootGzip,
    /// An EFI zboot that holds zstd, with a window as large as Linux's build makes it
    ZbootZstd,
}

/// Why a kernel can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackingError {
    /// A zboot holds an Image and nothing else.
    #[error("a zboot holds an arm64 Image; the kernel's magic at offset 0x38 is {0:02x?}, not that of one")]
    NoImage([u8; 4]),
    /// The header contradicts the file, or makes a zboot of more than [`LARGEST_IMAGE`].
    #[error(
        "the Image's header says image_size={image_size:#x}; with a file of {file:#x} bytes that makes no \
         zboot \
         (the largest is {LARGEST_IMAGE:#x})"
    )]
    ImageSize {
        /// The header's field, bytes.
        image_size: u64,
        /// The file, bytes.
        file: u64,
    },
    /// The compressor failed.
    #[error("compressing the kernel: {0}")]
    Compressor(#[from] std::io::Error),
}

/// The largest image_size that is padded, bytes: far above any kernel, and well below what a
/// zboot's fields hold.
const LARGEST_IMAGE: u64 = 1 << 30;

const IMAGE_SIZE: usize = 16;
const IMAGE_MAGIC: usize = 0x38;
/// Where the payload begins: after the headers.
const PAYLOAD: u32 = 0x1000;
const PE_HEADER: u32 = 0x40;
/// The log2 of the window that `zstd --ultra -22` uses.
const ULTRA_WINDOW: u32 = 27;

/// Packs `kernel` in the form `packing`.
pub fn pack(kernel: &[u8], packing: Packing) -> Result<Vec<u8>, PackingError> {
    match packing {
        Packing::Raw => Ok(kernel.to_vec()),
        Packing::Gzip => gzip(kernel),
        Packing::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(kernel.len() as u64))?;
            encoder.write_all(kernel)?;
            Ok(encoder.finish()?)
        }
        Packing::ZbootGzip => Ok(zboot("gzip", &gzip(&padded(kernel)?)?, &[])),
        Packing::ZbootZstd => {
            let image = padded(kernel)?;
            let size = (image.len() as u32).to_le_bytes();
            Ok(zboot("zstd", &zstd_from_a_pipe(&image)?, &size))
        }
    }
}

fn gzip(data: &[u8]) -> Result<Vec<u8>, PackingError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data)?;
    Ok(encoder.finish()?)
}

/// As Linux's build calls zstd: through a pipe, so that the frame does not say how much it holds,
/// and with the largest window. The rest of that level would take half a minute; far matches keep
/// the window in use.
fn zstd_from_a_pipe(data: &[u8]) -> Result<Vec<u8>, PackingError> {
    let mut encoder = zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(false)?;
    encoder.window_log(ULTRA_WINDOW)?;
    encoder.long_distance_matching(true)?;
    encoder.write_all(data)?;
    Ok(encoder.finish()?)
}

/// The Image with zeros up to its image_size.
fn padded(kernel: &[u8]) -> Result<Vec<u8>, PackingError> {
    let magic = field(kernel, IMAGE_MAGIC);
    if magic != *b"ARM\x64" {
        return Err(PackingError::NoImage(magic));
    }
    let image_size = u64::from_le_bytes(field(kernel, IMAGE_SIZE));
    let file = kernel.len() as u64;
    if image_size < file || image_size > LARGEST_IMAGE {
        return Err(PackingError::ImageSize { image_size, file });
    }
    let mut image = kernel.to_vec();
    image.resize(image_size as usize, 0);
    Ok(image)
}

/// `N` bytes at `offset`; zeros where the file ends before.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..offset + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

/// Makes the container. It contains no program: firmware cannot start it, only a boot loader that
/// unpacks it can.
fn zboot(compression: &str, payload: &[u8], trailer: &[u8]) -> Vec<u8> {
    const PE_MACHINE_ARM64: u16 = 0xaa64;
    let mut file = vec![0; PAYLOAD as usize];
    let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(4, b"zimg");
    put(8, &PAYLOAD.to_le_bytes());
    put(12, &(payload.len() as u32).to_le_bytes());
    put(24, compression.as_bytes());
    put(0x38, &0x8182_23cdu32.to_le_bytes());
    put(0x3c, &PE_HEADER.to_le_bytes());
    put(PE_HEADER as usize, b"PE\0\0");
    put(PE_HEADER as usize + 4, &PE_MACHINE_ARM64.to_le_bytes());
    file.extend_from_slice(payload);
    file.extend_from_slice(trailer);
    // Sections of a PE file end on multiples of 512.
    file.resize(file.len().next_multiple_of(512), 0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// An Image of 1 MiB whose header asks for 64 KiB more.
    fn image() -> Vec<u8> {
        let mut image: Vec<u8> = (0..1u32 << 20).map(|at| ((at / 7) ^ (at >> 9)) as u8).collect();
        image[IMAGE_SIZE..IMAGE_SIZE + 8].copy_from_slice(&0x11_0000u64.to_le_bytes());
        image[IMAGE_MAGIC..IMAGE_MAGIC + 4].copy_from_slice(b"ARM\x64");
        image
    }

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    /// The payload by the container's own fields, and what follows it.
    fn payload<'z>(zboot: &'z [u8], compression: &[u8]) -> (&'z [u8], &'z [u8]) {
        let number = |offset| u32::from_le_bytes(field(zboot, offset)) as usize;
        assert_eq!((&zboot[..2], &zboot[4..8]), (&b"MZ"[..], &b"zimg"[..]));
        assert_eq!(&zboot[24..24 + compression.len()], compression);
        assert_eq!(zboot[0x38..0x3c], [0xcd, 0x23, 0x82, 0x81]);
        assert_eq!(&zboot[number(0x3c)..number(0x3c) + 6], b"PE\0\0\x64\xaa");
        zboot[number(8)..].split_at(number(12))
    }

    #[test]
    fn what_is_compressed_is_the_kernel() {
        let image = image();
        assert_eq!(pack(&image, Packing::Raw).unwrap(), image);
        assert_eq!(gunzip(&pack(&image, Packing::Gzip).unwrap()), image);
        assert_eq!(zstd::decode_all(&pack(&image, Packing::Zstd).unwrap()[..]).unwrap(), image);
    }

    #[test]
    fn a_zboot_holds_the_image_padded_to_its_size_in_memory() {
        let mut whole = image();
        whole.resize(0x11_0000, 0);
        let gzip = pack(&image(), Packing::ZbootGzip).unwrap();
        assert_eq!(gunzip(payload(&gzip, b"gzip\0").0), whole);
        let zstd = pack(&image(), Packing::ZbootZstd).unwrap();
        let (frame, rest) = payload(&zstd, b"zstd\0");
        assert_eq!(zstd::decode_all(frame).unwrap(), whole);
        assert_eq!(rest[..4], 0x11_0000u32.to_le_bytes(), "the size follows the frame");
    }

    /// RFC 8878, 3.1.1.1: the frame header's descriptor, then the window descriptor.
    #[test]
    fn a_zboots_zstd_frame_has_a_window_of_128_mib_and_says_no_size() {
        let zboot = pack(&image(), Packing::ZbootZstd).unwrap();
        let (frame, _) = payload(&zboot, b"zstd\0");
        assert_eq!(frame[..4], 0xfd2f_b528u32.to_le_bytes());
        let descriptor = frame[4];
        assert_eq!(descriptor >> 5, 0, "neither a content size nor a single segment");
        assert_eq!(descriptor & 4, 4, "a checksum");
        assert_eq!(frame[5] >> 3, 27 - 10);
        let plain = pack(&image(), Packing::Zstd).unwrap();
        assert_ne!(plain[4] >> 5, 0, "a file's frame says its size");
    }

    #[test]
    fn what_is_no_image_makes_no_zboot() {
        let mut image = image();
        image[IMAGE_SIZE..IMAGE_SIZE + 8].copy_from_slice(&0xf_ffffu64.to_le_bytes());
        let too_short = pack(&image, Packing::ZbootGzip);
        assert!(matches!(too_short, Err(PackingError::ImageSize { image_size: 0xf_ffff, file: 0x10_0000 })));
        image[IMAGE_SIZE..IMAGE_SIZE + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(pack(&image, Packing::ZbootZstd), Err(PackingError::ImageSize { .. })));
        assert!(matches!(pack(b"\x7fELF", Packing::ZbootGzip), Err(PackingError::NoImage([0, 0, 0, 0]))));
    }
}
