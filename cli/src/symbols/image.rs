//! Symbols of an arm64 Image, raw or packed, by its own kallsyms.

use linmap_kexec::{KernelFile, UnpackError};

use super::kallsyms::Kallsyms;
use super::table::{LIMIT, Rank, Symbols};
use crate::failure::Failure;

/// The symbols of the kernel in `file`.
pub fn symbols(file: &[u8]) -> Result<Symbols, Failure> {
    let kind = KernelFile::recognise(file)?;
    let image = match unpack(kind) {
        Err(Unpacking::Crate(UnpackError::LongerThanAnnounced { .. })) => unpack(kind.counted(LIMIT)?),
        unpacked => unpacked,
    };
    let image = image.map_err(|error| match error {
        Unpacking::Crate(error) => error.into(),
        Unpacking::TooLong => Failure::new(format_args!("more than {} MiB unpacked", LIMIT >> 20)),
    })?;
    let Some(kallsyms) = Kallsyms::find(&image) else {
        return Err(Failure::new("an arm64 Image without kallsyms, or with tables of an unknown form")
            .hint("give the kernel's ELF file (vmlinux) or its System.map"));
    };
    let first = kallsyms.first();
    let mut symbols = Symbols::default();
    kallsyms.each(|offset, kind, name| {
        if !kind.eq_ignore_ascii_case(&'a') {
            symbols.add(first.unwrap_or(0).wrapping_add(offset), Rank::of(kind), name);
        }
    });
    symbols.is_linked = first.is_some();
    symbols.code.add(first.unwrap_or(0), &image);
    symbols.finish(first)
}

enum Unpacking {
    Crate(UnpackError),
    TooLong,
}

impl From<UnpackError> for Unpacking {
    fn from(error: UnpackError) -> Self {
        Self::Crate(error)
    }
}

fn unpack(kind: KernelFile<'_>) -> Result<Vec<u8>, Unpacking> {
    let mut unpacker = kind.unpack()?;
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match unpacker.read(&mut piece)? {
            0 => return Ok(bytes),
            more => bytes.extend_from_slice(piece.get(..more).unwrap_or_default()),
        }
        if bytes.len() as u64 > LIMIT {
            return Err(Unpacking::TooLong);
        }
    }
}
