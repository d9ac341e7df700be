//! Reading zstd frames (RFC 8878). The survey reads the headers; ruzstd unpacks the blocks.

use alloc::vec::Vec;

use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read;

use super::packing::{Packed, Packing};
use super::unpack_error::UnpackError;
use super::zstd_survey::{Frame, MAGIC, Survey};

/// Reads a zstd stream.
pub(super) struct Unzstd<'a> {
    packed: Packed<'a>,
    content_len: Option<u64>,
    decoder: FrameDecoder,
    /// The offset of the next block or frame in the stream.
    at: usize,
    /// The current frame, and the number of bytes unpacked from it.
    frame: Option<(Frame, u64)>,
}

impl<'a> Unzstd<'a> {
    /// Surveys the whole stream and allocates memory for it.
    pub fn new(packed: Packed<'a>) -> Result<Self, UnpackError> {
        let survey = Survey::of(packed)?;
        // The decoder panics if it has no memory. So it is made only if there is enough.
        let needed = survey.memory_needed();
        if Vec::<u8>::new().try_reserve_exact(needed).is_err() {
            return Err(UnpackError::NoMemory { needed: needed as u64 });
        }
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(survey.ring());
        let stream = Self { packed, content_len: survey.content_len, decoder, at: 0, frame: None };
        stream.with_ring(survey.ring())
    }

    /// Makes the decoder allocate its whole ring buffer. It does so for the second frame that it
    /// sees.
    fn with_ring(mut self, window: u64) -> Result<Self, UnpackError> {
        for _ in 0..2 {
            self.begin(window, false)?;
        }
        Ok(self)
    }

    /// Returns the number of bytes of all frames, if all have it in their headers.
    pub fn content_len(&self) -> Option<u64> {
        self.content_len
    }

    /// Begins a frame, with a header that asks only for the memory that the frame needs.
    fn begin(&mut self, window: u64, checksum: bool) -> Result<(), UnpackError> {
        // A single segment; its length, in eight bytes, is the window.
        let descriptor = 0b1110_0000 | u8::from(checksum) << 2;
        let mut header = [0; 13];
        header
            .iter_mut()
            .zip(MAGIC.into_iter().chain([descriptor]).chain(window.to_le_bytes()))
            .for_each(|(to, from)| *to = from);
        self.decoder.reset(&header[..]).map_err(|_| self.corrupt("a frame's header"))
    }

    /// Unpacks at least one byte to `out`, which is not empty. Returns 0 at the end of the last
    /// frame.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        loop {
            let Some((frame, read)) = self.frame else {
                let Some(frame) = Frame::next(self.packed, self.at)? else { return Ok(0) };
                self.at = frame.blocks;
                self.begin(frame.window, frame.checksum)?;
                self.frame = Some((frame, 0));
                continue;
            };
            // The decoder does not return the bytes in the window of an unfinished frame.
            let len = self.decoder.read(out).map_err(|_| self.corrupt("a frame"))?;
            if len != 0 {
                let read = read + len as u64;
                if frame.content_len.is_some_and(|(expected, _)| read > expected) {
                    return self.wrong_length(frame, read);
                }
                self.frame = Some((frame, read));
                return Ok(len);
            }
            if self.decoder.is_finished() {
                self.check(frame, read)?;
                self.at = frame.end;
                self.frame = None;
            } else {
                self.block(frame)?;
            }
        }
    }

    /// Unpacks the next block into the decoder's ring buffer, which holds at most the window.
    fn block(&mut self, frame: Frame) -> Result<(), UnpackError> {
        let mut source = self.packed.bytes.get(self.at..frame.end).unwrap_or_default();
        let decoded = self.decoder.decode_blocks(&mut source, BlockDecodingStrategy::UptoBlocks(1));
        decoded.map_err(|error| {
            self.corrupt(match error {
                FrameDecoderError::FailedToReadBlockBody(_) => "a block's content breaks the rules",
                _ => "a block",
            })
        })?;
        self.at = frame.end - source.len();
        Ok(())
    }

    /// Checks a frame after its last byte.
    fn check(&self, frame: Frame, read: u64) -> Result<(), UnpackError> {
        if frame.content_len.is_some_and(|(expected, _)| read != expected) {
            return self.wrong_length(frame, read);
        }
        let (expected, found) =
            (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        match (expected, found) {
            (Some(expected), Some(found)) if expected != found => {
                let at = self.place(frame.end - 4);
                Err(UnpackError::Checksum { packing: Packing::Zstd, at, expected, found })
            }
            _ => Ok(()),
        }
    }

    fn wrong_length<T>(&self, frame: Frame, found: u64) -> Result<T, UnpackError> {
        let (expected, at) = frame.content_len.unwrap_or_default();
        Err(UnpackError::Length { packing: Packing::Zstd, at: self.place(at), expected, found })
    }

    /// Returns the offset in the file of an offset in the stream.
    fn place(&self, at: usize) -> u64 {
        (self.packed.offset + at) as u64
    }

    fn corrupt(&self, what: &'static str) -> UnpackError {
        UnpackError::Corrupt { packing: Packing::Zstd, what, at: self.place(self.at) }
    }
}
