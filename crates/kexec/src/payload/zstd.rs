//! Reading zstd frames (RFC 8878): their headers by the survey, their blocks by ruzstd.

use alloc::vec::Vec;

use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read;

use super::packing::{Packed, Packing};
use super::unpack_error::UnpackError;
use super::zstd_survey::{Frame, MAGIC, Survey};

/// A zstd stream being read.
pub(super) struct Unzstd<'a> {
    packed: Packed<'a>,
    content_len: Option<u64>,
    decoder: FrameDecoder,
    /// Where the next block or frame begins in the stream.
    at: usize,
    /// The frame that is being read, and how many bytes were read from it.
    frame: Option<(Frame, u64)>,
}

impl<'a> Unzstd<'a> {
    /// Looks at the whole stream and takes memory for it.
    pub fn new(packed: Packed<'a>) -> Result<Self, UnpackError> {
        let survey = Survey::of(packed)?;
        // The decoder can't be told that it has no memory: it panics. So it begins only if there is enough.
        let needed = survey.memory_needed();
        if Vec::<u8>::new().try_reserve_exact(needed).is_err() {
            return Err(UnpackError::NoMemory { needed: needed as u64 });
        }
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(survey.ring());
        let stream = Self { packed, content_len: survey.content_len, decoder, at: 0, frame: None };
        stream.with_ring(survey.ring())
    }

    /// Makes the decoder's ring buffer as large as it is ever needed. It does not begin with one, but makes it whole for
    /// the second frame that it sees.
    fn with_ring(mut self, window: u64) -> Result<Self, UnpackError> {
        for _ in 0..2 {
            self.begin(window, false)?;
        }
        Ok(self)
    }

    /// How many bytes all frames hold, if they say so.
    pub fn content_len(&self) -> Option<u64> {
        self.content_len
    }

    /// Begins a frame, with a header that asks for no more memory than it needs.
    fn begin(&mut self, window: u64, checksum: bool) -> Result<(), UnpackError> {
        // A single segment, whose length has eight bytes and is the window.
        let descriptor = 0b1110_0000 | u8::from(checksum) << 2;
        let mut header = [0; 13];
        header
            .iter_mut()
            .zip(MAGIC.into_iter().chain([descriptor]).chain(window.to_le_bytes()))
            .for_each(|(to, from)| *to = from);
        self.decoder.reset(&header[..]).map_err(|_| self.corrupt("a frame's header"))
    }

    /// Unpacks to `out`, which isn't empty: at least one byte, or 0 at the end of the last frame.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        loop {
            let Some((frame, read)) = self.frame else {
                let Some(frame) = Frame::next(self.packed, self.at)? else { return Ok(0) };
                self.at = frame.blocks;
                self.begin(frame.window, frame.checksum)?;
                self.frame = Some((frame, 0));
                continue;
            };
            // What is still in the window of an unfinished frame isn't given out.
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

    /// Unpacks the next block into the decoder's ring buffer, which has no more than the window in it.
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

    /// Checks a frame that was read to its end.
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

    /// Where an offset of the stream is in the file.
    fn place(&self, at: usize) -> u64 {
        (self.packed.offset + at) as u64
    }

    fn corrupt(&self, what: &'static str) -> UnpackError {
        UnpackError::Corrupt { packing: Packing::Zstd, what, at: self.place(self.at) }
    }
}
