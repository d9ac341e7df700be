//! Unpacking a kernel piece by piece into the caller's memory.

use super::gzip::Gunzip;
use super::image::{HEADER_LEN, Image};
use super::packing::{Packed, Packing};
use super::unpack_error::UnpackError;
#[cfg(feature = "zstd")]
use super::zstd::Unzstd;

/// Unpacks a kernel. Its size is about 45 KiB, gzip's window and tables.
pub struct Unpacker<'a> {
    packing: Packing,
    stream: Stream<'a>,
    image: Image,
    /// The unpacked header.
    head: [u8; HEADER_LEN],
    /// The number of bytes returned to the caller, the header included.
    read: u64,
    failed: bool,
}

impl<'a> Unpacker<'a> {
    /// Unpacks the header. `file_len` is the length of the image's file, if it was counted.
    pub(super) fn new(packed: Packed<'a>, file_len: Option<u64>) -> Result<Self, UnpackError> {
        let packing = packed.packing;
        let mut stream = Stream::new(packed)?;
        let mut head = [0; HEADER_LEN];
        let mut len = 0;
        while let Some(rest) = head.get_mut(len..).filter(|rest| !rest.is_empty()) {
            match stream.read(rest)? {
                0 => break,
                more => len += more,
            }
        }
        let file_len = file_len.or(stream.announced_len()).unwrap_or(0);
        let image = Image::parse(head.get(..len).unwrap_or_default())?.with_file(file_len);
        Ok(Self { packing, stream, image, head, read: 0, failed: false })
    }

    /// Returns the image's header, with room for the file: the file has at most `image_size` bytes.
    pub fn image(&self) -> Image {
        self.image
    }

    /// Returns the number of bytes unpacked so far: the length of the image's file once
    /// [`Unpacker::read`] has returned 0.
    pub fn read_so_far(&self) -> u64 {
        self.read
    }

    /// Unpacks the next bytes of the image's file, its header included, to the start of `out`, and
    /// returns their number. It is 0 if `out` is empty, or if the file is complete and all
    /// checksums and lengths were correct. Until then the unpacked bytes are not trustworthy. The
    /// rest of `out` is not written, and no byte of it is read.
    ///
    /// # Errors
    ///
    /// - [`UnpackError::Truncated`], [`UnpackError::Corrupt`], [`UnpackError::TrailingData`]: the
    ///   stream is damaged.
    /// - [`UnpackError::Checksum`], [`UnpackError::Length`]: the unpacked bytes differ from the
    ///   packed file.
    /// - [`UnpackError::LongerThanAnnounced`]: the file is longer than `image_size` of
    ///   [`Unpacker::image`]. All bytes returned so far lie within that.
    /// - [`UnpackError::Failed`]: an earlier call failed.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        if self.failed {
            return Err(UnpackError::Failed);
        }
        let result = self.next(out);
        self.failed = result.is_err();
        self.read += result.unwrap_or(0) as u64;
        result
    }

    fn next(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        if out.is_empty() {
            return Ok(0);
        }
        let head = usize::try_from(self.read).ok().and_then(|read| self.head.get(read..));
        let left = self.image.image_size.saturating_sub(self.read);
        if let Some(head) = head.filter(|head| !head.is_empty()) {
            // A stream of unknown length may have an image_size below the length of the header.
            if left < head.len() as u64 {
                return Err(self.longer());
            }
            let len = head.len().min(out.len());
            out.iter_mut().zip(head).for_each(|(to, &from)| *to = from);
            return Ok(len);
        }
        if left == 0 {
            return match self.stream.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(self.longer()),
            };
        }
        let len = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        self.stream.read(out.get_mut(..len).unwrap_or_default())
    }

    fn longer(&self) -> UnpackError {
        UnpackError::LongerThanAnnounced { packing: self.packing, announced: self.image.image_size }
    }
}

/// The source of the bytes. Reading returns at least one byte, or 0 at the end.
#[allow(clippy::large_enum_variant)] // Only one exists at a time, and there is no heap for it.
enum Stream<'a> {
    Raw(&'a [u8]),
    Gzip(Gunzip<'a>),
    #[cfg(feature = "zstd")]
    Zstd(Unzstd<'a>),
}

impl<'a> Stream<'a> {
    fn new(packed: Packed<'a>) -> Result<Self, UnpackError> {
        Ok(match packed.packing {
            Packing::Raw => Self::Raw(packed.bytes),
            Packing::Gzip => Self::Gzip(Gunzip::new(packed)),
            #[cfg(feature = "zstd")]
            Packing::Zstd => Self::Zstd(Unzstd::new(packed)?),
            #[cfg(not(feature = "zstd"))]
            Packing::Zstd => {
                let what = "this build cannot unpack zstd";
                return Err(UnpackError::Corrupt { packing: Packing::Zstd, what, at: packed.offset as u64 });
            }
        })
    }

    /// Returns how many bytes there are in all, if the stream says so before it is unpacked.
    fn announced_len(&self) -> Option<u64> {
        match self {
            // The head was taken.
            Self::Raw(rest) => Some(rest.len() as u64 + HEADER_LEN as u64),
            // The trailer has it, but of the last member alone.
            Self::Gzip(_) => None,
            #[cfg(feature = "zstd")]
            Self::Zstd(stream) => stream.content_len(),
        }
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        match self {
            Self::Raw(rest) => {
                let len = rest.len().min(out.len());
                let (now, later) = rest.split_at_checked(len).unwrap_or_default();
                out.get_mut(..len).unwrap_or_default().copy_from_slice(now);
                *rest = later;
                Ok(len)
            }
            Self::Gzip(stream) => stream.read(out),
            #[cfg(feature = "zstd")]
            Self::Zstd(stream) => stream.read(out),
        }
    }
}
