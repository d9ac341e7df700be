//! The files of a payload.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use linmap_kexec::{Image, KernelFile, KernelFileError, Packing, PlacementFlag, UnpackError};

use super::pe;
use crate::failure::Failure;
use crate::file_kind::FileKind;
use crate::plan::size::Bytes;

/// The most bytes of a file, packed and unpacked.
pub const LIMIT: u64 = 1 << 30;

/// The kernel of a payload, unpacked.
#[derive(Debug)]
pub struct Kernel {
    /// Its header, with room for the file.
    pub image: Image,
    /// The file that is placed.
    pub bytes: Vec<u8>,
    packing: Packing,
    is_zboot: bool,
}

impl Kernel {
    /// Reads and unpacks the kernel at `path`.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let file = read_file(path)?;
        Self::unpack(&file).map_err(|error| error.of(path.display()))
    }

    /// Unpacks a kernel.
    pub fn unpack(file: &[u8]) -> Result<Self, Failure> {
        let kind = KernelFile::recognise(file).map_err(|error| match error {
            KernelFileError::NoKernel { .. } => {
                let kind = FileKind::of(file.get(..FileKind::HEAD).unwrap_or(file));
                Failure::new(format_args!("{kind} is not an arm64 kernel")).hint(
                    "give an Image, raw or packed with gzip or zstd, or an EFI zboot image (vmlinuz.efi)",
                )
            }
            error => error.into(),
        })?;
        match Self::unpack_as(kind) {
            Err(Unpacking::Crate(UnpackError::LongerThanAnnounced { .. })) => {
                Self::unpack_as(kind.counted(LIMIT)?)
            }
            unpacked => unpacked,
        }
        .map_err(|error| match error {
            Unpacking::Crate(error) => error.into(),
            Unpacking::TooLong => {
                Failure::new(format_args!("the kernel has more than {} MiB unpacked", LIMIT >> 20))
            }
            Unpacking::CutShort { len, whole } => Failure::new(format_args!(
                "the kernel is cut short: it has {len} bytes, and {whole} by its PE header"
            ))
            .hint("copy or build it again"),
        })
    }

    fn unpack_as(kind: KernelFile<'_>) -> Result<Self, Unpacking> {
        let mut unpacker = kind.unpack()?;
        let image = unpacker.image();
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match unpacker.read(&mut piece)? {
                0 => break,
                more => bytes.extend_from_slice(piece.get(..more).unwrap_or_default()),
            }
            if bytes.len() as u64 > LIMIT {
                return Err(Unpacking::TooLong);
            }
        }
        if let Some(whole) = pe::file_len(&bytes).filter(|whole| *whole > bytes.len() as u64) {
            return Err(Unpacking::CutShort { len: bytes.len() as u64, whole });
        }
        Ok(Self { image, bytes, packing: kind.packing(), is_zboot: kind.is_zboot() })
    }

    /// What the file is, for reports.
    pub fn describe(&self) -> String {
        let packing = match (self.is_zboot, self.packing) {
            (true, packing) => format!("EFI zboot with {packing}"),
            (false, Packing::Raw) => "raw".into(),
            (false, packing) => packing.to_string(),
        };
        let pages = self
            .image
            .page_size
            .map_or("pages of any size".into(), |granule| format!("{}K pages", granule.bytes() >> 10));
        let place = match self.image.placement {
            PlacementFlag::Anywhere => "at any multiple of 2 MiB",
            PlacementFlag::NearDramBase => "near the start of RAM",
        };
        let size = Bytes(self.image.image_size);
        format!("arm64 Image, {packing}, {size} in memory {place}, {pages}")
    }

    /// How the file is packed, for programs: `raw`, `gzip` or `zstd`, and whether EFI zboot is
    /// around it.
    pub fn packing(&self) -> (String, bool) {
        (self.packing.to_string(), self.is_zboot)
    }
}

/// Why unpacking ended early.
#[derive(Debug)]
enum Unpacking {
    Crate(UnpackError),
    TooLong,
    CutShort { len: u64, whole: u64 },
}

impl From<UnpackError> for Unpacking {
    fn from(error: UnpackError) -> Self {
        Self::Crate(error)
    }
}

/// Reads a file of at most [`LIMIT`] bytes.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = || -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 {
            0 => Err(Failure::new("an empty file")),
            1..=LIMIT => Ok(bytes),
            _ => Err(Failure::new(format_args!("a file of more than {} MiB", LIMIT >> 20))),
        }
    };
    read().map_err(|error| error.of(path.display()))
}
