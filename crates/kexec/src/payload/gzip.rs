//! Reading gzip members (RFC 1952). Headers and trailers are read here; miniz_oxide unpacks the
//! content.

use crc32fast::Hasher;
use miniz_oxide::inflate::stream::{InflateState, MinReset, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

use super::packing::{Packed, Packing};
use super::unpack_error::UnpackError;

const ID: [u8; 2] = [0x1f, 0x8b];
/// The only compression method.
const DEFLATE: u8 = 8;
/// Flags of a member's header.
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;
/// Length of CRC-32 and length modulo 2^32.
const TRAILER_LEN: usize = 8;

/// Reads a gzip stream.
pub(super) struct Gunzip<'a> {
    stream: &'a [u8],
    /// The offset of `stream` in the file.
    offset: usize,
    /// The number of bytes of `stream` that were read.
    at: usize,
    inflate: InflateState,
    /// The checksum of the member so far.
    crc: Hasher,
    /// The length of the member so far, modulo 2^32.
    len: u32,
    /// Whether the reader is between a member's header and its trailer.
    within: bool,
}

impl<'a> Gunzip<'a> {
    /// Returns a reader of a stream that starts with [`ID`].
    pub fn new(packed: Packed<'a>) -> Self {
        Self {
            stream: packed.bytes,
            offset: packed.offset,
            at: 0,
            inflate: InflateState::new(DataFormat::Raw),
            crc: Hasher::new(),
            len: 0,
            within: false,
        }
    }

    /// Unpacks at least one byte to `out`, which is not empty. Returns 0 at the end of the last
    /// member.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        loop {
            if !self.within {
                if self.at == self.stream.len() {
                    return Ok(0);
                }
                self.header()?;
                self.inflate.reset_as(MinReset);
                self.crc = Hasher::new();
                self.len = 0;
                self.within = true;
            }
            let packed = self.stream.get(self.at..).unwrap_or_default();
            let step = inflate(&mut self.inflate, packed, out, MZFlush::None);
            self.at += step.bytes_consumed;
            let unpacked = out.get(..step.bytes_written).unwrap_or_default();
            self.crc.update(unpacked);
            // At most the length of a file.
            self.len = self.len.wrapping_add(unpacked.len() as u32);
            match step.status {
                Ok(MZStatus::StreamEnd) => {
                    self.trailer()?;
                    self.within = false;
                }
                Ok(_) if step.bytes_written == 0 && step.bytes_consumed == 0 => {
                    return Err(self.truncated("compressed data"));
                }
                Ok(_) => {}
                Err(_) if self.at == self.stream.len() && step.bytes_written == 0 => {
                    return Err(self.truncated("compressed data"));
                }
                Err(_) => return Err(self.corrupt("the compressed data break the rules of deflate")),
            }
            if step.bytes_written != 0 {
                return Ok(step.bytes_written);
            }
        }
    }

    /// Reads a member's header.
    fn header(&mut self) -> Result<(), UnpackError> {
        let start = self.at;
        if !self.stream.get(start..).is_some_and(|rest| rest.starts_with(&ID)) {
            let len = (self.stream.len() - start) as u64;
            return Err(UnpackError::TrailingData { packing: Packing::Gzip, at: self.place(), len });
        }
        // Time, extra flags and operating system mean nothing here.
        let [_, _, method, flags, ..] = *self.take::<10>("a member's header")?;
        if method != DEFLATE {
            return Err(self.corrupt("the method is not deflate"));
        }
        if flags & RESERVED != 0 {
            return Err(self.corrupt("a reserved flag is set"));
        }
        if flags & FEXTRA != 0 {
            let len = u16::from_le_bytes(*self.take("a member's extra field")?);
            let end = self.at + usize::from(len);
            if end > self.stream.len() {
                return Err(self.truncated("a member's extra field"));
            }
            self.at = end;
        }
        for (flag, what) in [(FNAME, "a member's file name"), (FCOMMENT, "a member's comment")] {
            if flags & flag != 0 {
                let rest = self.stream.get(self.at..).unwrap_or_default();
                let nul = rest.iter().position(|&byte| byte == 0).ok_or(self.truncated(what))?;
                self.at += nul + 1;
            }
        }
        if flags & FHCRC != 0 {
            let found = crc32fast::hash(self.stream.get(start..self.at).unwrap_or_default()) & 0xffff;
            let at = self.place();
            let expected = u32::from(u16::from_le_bytes(*self.take("a member's header CRC")?));
            self.check(at, expected, found)?;
        }
        Ok(())
    }

    /// Reads a member's trailer and compares it with the unpacked bytes.
    fn trailer(&mut self) -> Result<(), UnpackError> {
        let at = self.place();
        let &[c0, c1, c2, c3, l0, l1, l2, l3] = self.take::<TRAILER_LEN>("a member's trailer")?;
        self.check(at, u32::from_le_bytes([c0, c1, c2, c3]), self.crc.clone().finalize())?;
        let expected = u32::from_le_bytes([l0, l1, l2, l3]);
        if expected != self.len {
            let (expected, found) = (expected.into(), self.len.into());
            return Err(UnpackError::Length { packing: Packing::Gzip, at: at + 4, expected, found });
        }
        Ok(())
    }

    fn check(&self, at: u64, expected: u32, found: u32) -> Result<(), UnpackError> {
        if expected != found {
            return Err(UnpackError::Checksum { packing: Packing::Gzip, at, expected, found });
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self, within: &'static str) -> Result<&'a [u8; N], UnpackError> {
        let bytes = self.stream.get(self.at..).and_then(<[u8]>::first_chunk).ok_or(self.truncated(within))?;
        self.at += N;
        Ok(bytes)
    }

    /// Returns the offset of the next byte in the file.
    fn place(&self) -> u64 {
        (self.offset + self.at) as u64
    }

    fn truncated(&self, within: &'static str) -> UnpackError {
        let at = (self.offset + self.stream.len()) as u64;
        UnpackError::Truncated { packing: Packing::Gzip, within, at }
    }

    fn corrupt(&self, what: &'static str) -> UnpackError {
        UnpackError::Corrupt { packing: Packing::Gzip, what, at: self.place() }
    }
}
