//! The outline of a zstd stream (RFC 8878): its frames and blocks, from their headers alone. Before
//! anything is unpacked it gives the memory that unpacking needs, and checks that the stream is
//! complete and has nothing after it.

use super::packing::{Packed, Packing};
use super::unpack_error::UnpackError;
use super::zstd_block::{BLOCK_MAX, Outline};

/// The longest window that is accepted, in bytes: the longest of `zstd --ultra -22`.
pub const ZSTD_WINDOW_MAX: u64 = 0x800_0000;
/// The first bytes of a frame.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The second to fourth byte of a skippable frame. The high four bits of the first are 5.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// The unit of the memory that is asked for.
const UNIT: usize = 4096;

/// A frame's outline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// The offset of its first block in the stream.
    pub blocks: usize,
    /// The offset of its end, after its checksum.
    pub end: usize,
    /// The longest distance of a match in bytes, at most the frame's content.
    pub window: u64,
    /// The length of its content and the offset of that number, if it is in the header.
    pub content_len: Option<(u64, usize)>,
    /// Whether it ends with a checksum.
    pub checksum: bool,
    /// Length of its longest compressed block in bytes.
    longest_block: usize,
    /// The most sequences of a block.
    most_sequences: usize,
}

/// The outline of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survey {
    /// The longest window of a frame.
    window: u64,
    longest_block: usize,
    most_sequences: usize,
    /// The length of its content, if all frames have it in their headers.
    pub content_len: Option<u64>,
}

impl Survey {
    /// Surveys the whole stream.
    pub fn of(packed: Packed<'_>) -> Result<Self, UnpackError> {
        let mut survey = Self { window: 0, longest_block: 0, most_sequences: 0, content_len: Some(0) };
        let mut at = 0;
        while let Some(frame) = Frame::next(packed, at)? {
            at = frame.end;
            survey.window = survey.window.max(frame.window);
            survey.longest_block = survey.longest_block.max(frame.longest_block);
            survey.most_sequences = survey.most_sequences.max(frame.most_sequences);
            let len = survey.content_len.zip(frame.content_len);
            survey.content_len = len.and_then(|(len, (more, _))| len.checked_add(more));
        }
        Ok(survey)
    }

    /// Returns the window with which the decoder allocates its ring buffer once and for all: the
    /// longest window, and the most that a block adds before it is found to be too long, which is
    /// its literals, its matches and one match more.
    pub fn ring(&self) -> u64 {
        self.window + 3 * BLOCK_MAX as u64 + 64
    }

    /// Returns the bytes of heap that suffice for any content of the blocks, a multiple of
    /// [`UNIT`].
    pub fn memory_needed(&self) -> usize {
        // ruzstd rounds a ring buffer up like this.
        let slack = 2 * BLOCK_MAX as u64;
        let ring = (self.ring() - slack).next_power_of_two() + slack + 1;
        // Its vectors grow by doubling. The memory of a vector before and after all doublings is
        // less than four times its final size. So the bounds hold even if the heap never reuses a
        // hole.
        let packed = 4 * self.longest_block;
        // The shortest code of a literal has one bit, and literals are counted only after the last.
        let literals = 4 * (8 * self.longest_block + BLOCK_MAX);
        let sequences = 4 * 12 * self.most_sequences;
        // Tables, and the rounding of the heap.
        let tables = 0x2_0000;
        // No window is longer than ZSTD_WINDOW_MAX, no block longer than BLOCK_MAX: this fits 32
        // bits.
        (ring as usize + packed + literals + sequences + tables).next_multiple_of(UNIT)
    }
}

impl Frame {
    /// Returns the first frame from offset `at` of the stream that is not skippable, or `None` if
    /// there is none.
    pub fn next(packed: Packed<'_>, at: usize) -> Result<Option<Self>, UnpackError> {
        let mut reader = Reader { packed, at };
        loop {
            let start = reader.at;
            if start == packed.bytes.len() {
                return Ok(None);
            }
            match *packed.bytes.get(start..).unwrap_or_default() {
                [low, b1, b2, b3, ..] if low & 0xf0 == 0x50 && [b1, b2, b3] == SKIPPABLE => {
                    reader.take(4, "a skippable frame's header")?;
                    let len = reader.number(4, "a skippable frame's header")?;
                    reader.take(usize::try_from(len).unwrap_or(usize::MAX), "a skippable frame")?;
                }
                [b0, b1, b2, b3, ..] if [b0, b1, b2, b3] == MAGIC => {
                    reader.at += MAGIC.len();
                    return Self::read(&mut reader, start).map(Some);
                }
                _ => {
                    let len = (packed.bytes.len() - start) as u64;
                    return Err(UnpackError::TrailingData {
                        packing: Packing::Zstd,
                        at: reader.place(start),
                        len,
                    });
                }
            }
        }
    }

    /// Reads a frame that begins at `start`. The reader is after its magic number.
    fn read(reader: &mut Reader<'_>, start: usize) -> Result<Self, UnpackError> {
        const HEADER: &str = "a frame's header";
        let descriptor = reader.number(1, HEADER)?;
        if descriptor & 1 << 3 != 0 {
            return Err(reader.corrupt(start, "a reserved bit of a frame's header is set"));
        }
        let single_segment = descriptor & 1 << 5 != 0;
        let checksum = descriptor & 1 << 2 != 0;
        let window = match single_segment {
            true => None,
            false => {
                let byte = reader.number(1, HEADER)?;
                let base = 1_u64 << (10 + (byte >> 3));
                Some(base + base / 8 * (byte & 7))
            }
        };
        let dictionary_len = [0, 1, 2, 4].get(descriptor as usize & 3).copied().unwrap_or(0);
        if reader.number(dictionary_len, HEADER)? != 0 {
            return Err(reader.corrupt(start, "a frame needs a dictionary"));
        }
        let len_at = reader.at;
        let content_len = match (descriptor >> 6, single_segment) {
            (0, false) => None,
            (0, true) => Some(reader.number(1, HEADER)?),
            (1, _) => Some(reader.number(2, HEADER)? + 256),
            (2, _) => Some(reader.number(4, HEADER)?),
            _ => Some(reader.number(8, HEADER)?),
        };
        let window = window.or(content_len).unwrap_or(0);
        let block_max = usize::try_from(window).map_or(BLOCK_MAX, |window| window.min(BLOCK_MAX));

        let blocks = reader.at;
        let (mut longest_block, mut most_sequences, mut most) = (0, 0, 0_u64);
        loop {
            let block = reader.at;
            let header = reader.number(3, "a block's header")?;
            // 21 bits.
            let size = (header >> 3) as usize;
            if size > block_max {
                return Err(reader.corrupt(block, "a block is longer than a block may be"));
            }
            let unpacked = match header >> 1 & 3 {
                0 => {
                    reader.take(size, "a block")?;
                    size
                }
                1 => {
                    reader.take(1, "a block")?;
                    size
                }
                2 => {
                    let content = reader.take(size, "a block")?;
                    let outline =
                        Outline::of(content, block_max).map_err(|what| reader.corrupt(block, what))?;
                    longest_block = longest_block.max(size);
                    most_sequences = most_sequences.max(outline.sequences);
                    block_max
                }
                _ => return Err(reader.corrupt(block, "a block is of the reserved kind")),
            };
            // Far below 2^64: the stream is in memory.
            most = most.saturating_add(unpacked as u64);
            if header & 1 != 0 {
                break;
            }
        }
        if checksum {
            reader.take(4, "a frame's checksum")?;
        }
        let window = window.min(most).min(content_len.unwrap_or(u64::MAX));
        if window > ZSTD_WINDOW_MAX {
            return Err(UnpackError::Window { at: reader.place(start), window, max: ZSTD_WINDOW_MAX });
        }
        let content_len = content_len.map(|len| (len, len_at));
        Ok(Self { blocks, end: reader.at, window, content_len, checksum, longest_block, most_sequences })
    }
}

/// Reads the bytes of a stream.
struct Reader<'a> {
    packed: Packed<'a>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, within: &'static str) -> Result<&'a [u8], UnpackError> {
        let bytes = self.packed.bytes;
        let bytes_and_end = self.at.checked_add(len).and_then(|end| Some((bytes.get(self.at..end)?, end)));
        let (read, end) = bytes_and_end.ok_or_else(|| {
            let at = self.place(bytes.len());
            UnpackError::Truncated { packing: Packing::Zstd, within, at }
        })?;
        self.at = end;
        Ok(read)
    }

    /// Reads a little-endian number of at most 8 bytes.
    fn number(&mut self, len: usize, within: &'static str) -> Result<u64, UnpackError> {
        Ok(self.take(len, within)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Returns the offset in the file of an offset in the stream.
    fn place(&self, at: usize) -> u64 {
        (self.packed.offset + at) as u64
    }

    fn corrupt(&self, at: usize, what: &'static str) -> UnpackError {
        UnpackError::Corrupt { packing: Packing::Zstd, what, at: self.place(at) }
    }
}
