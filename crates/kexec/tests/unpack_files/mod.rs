//! Kernels to unpack, packed in every way, and a heap that has no more than it was given.

// Not every test needs all of it.
#![allow(dead_code)]

pub mod arena;

use std::io::Write;

use flate2::{Compression, GzBuilder};
use linmap_kexec::{KernelFile, UnpackError};
use zstd::zstd_safe::CParameter;

/// An image of `len` bytes, at least 64, whose header asks for `image_size`: runs, repetitions and
/// noise.
pub fn image(len: usize, image_size: u64) -> Vec<u8> {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut image = Vec::with_capacity(len + 256);
    while image.len() < len {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let n = (noise >> 33) as usize;
        match n % 4 {
            0 => image.resize(image.len() + n / 4 % 200, (n >> 8) as u8),
            1 if image.len() > 300 => {
                let from = n / 4 % (image.len() - 200);
                image.extend_from_within(from..from + n / 16 % 200);
            }
            _ => image.extend_from_slice(&noise.to_le_bytes()),
        }
    }
    image.truncate(len);
    image[..64].fill(0);
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[24..32].copy_from_slice(&0b1010_u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

/// One gzip member.
pub fn gzip(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What a zstd frame says about itself.
#[derive(Clone, Copy, Debug)]
pub struct ZstdFrame {
    pub level: i32,
    pub checksum: bool,
    /// Says how much it holds.
    pub content_len: bool,
    /// Base 2 logarithm of the window in bytes.
    pub window_log: Option<u32>,
}

impl ZstdFrame {
    /// As zstd(1) packs a file.
    pub const USUAL: Self = Self { level: 3, checksum: true, content_len: true, window_log: None };

    pub fn pack(self, content: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), self.level).unwrap();
        encoder.set_parameter(CParameter::ChecksumFlag(self.checksum)).unwrap();
        encoder.set_parameter(CParameter::ContentSizeFlag(self.content_len)).unwrap();
        if let Some(log) = self.window_log {
            encoder.set_parameter(CParameter::WindowLog(log)).unwrap();
        }
        if self.content_len {
            encoder.set_pledged_src_size(Some(content.len() as u64)).unwrap();
        }
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }
}

/// An EFI zboot image: a header, some bytes of "code", the payload, and something after it.
pub fn zboot(payload: &[u8], compression: &str) -> Vec<u8> {
    let mut file = vec![0x90; 0x400];
    file[..0x40].fill(0);
    file[..2].copy_from_slice(b"MZ");
    file[4..8].copy_from_slice(b"zimg");
    file[8..12].copy_from_slice(&0x400_u32.to_le_bytes());
    file[12..16].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    file[24..24 + compression.len()].copy_from_slice(compression.as_bytes());
    file[0x38..0x3c].copy_from_slice(&[0xcd, 0x23, 0x82, 0x81]);
    file.extend_from_slice(payload);
    file.extend_from_slice(&[0x55; 0x123]);
    file
}

/// Unpacks `file` in pieces of up to `step` bytes, and checks what must hold however it ends.
pub fn unpack(file: &KernelFile<'_>, step: usize) -> Result<Vec<u8>, UnpackError> {
    let mut unpacker = file.unpack()?;
    let image_size = unpacker.image().image_size;
    let mut unpacked = Vec::new();
    let mut piece = vec![0; step];
    let end = loop {
        match unpacker.read(&mut piece) {
            Ok(0) => break Ok(()),
            Ok(len) => unpacked.extend_from_slice(&piece[..len]),
            Err(error) => break Err(error),
        }
        assert_eq!(unpacker.read_so_far(), unpacked.len() as u64);
        assert!(unpacked.len() as u64 <= image_size);
    };
    match end {
        Ok(()) => {
            assert_eq!(unpacker.read(&mut piece), Ok(0), "the end stays the end");
            Ok(unpacked)
        }
        Err(error) => {
            assert_eq!(unpacker.read(&mut piece), Err(UnpackError::Failed));
            Err(error)
        }
    }
}
