//! The headers of an ELF core: where its memory lies, and its notes.

use std::ops::Range;

use object::LittleEndian as LE;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, EM_AARCH64, FileHeader64, PN_XNUM, PT_LOAD, PT_NOTE, ProgramHeader64,
    SectionHeader64,
};
use thiserror::Error;

/// A file, or what stands for one.
pub trait Bytes {
    /// Its length.
    fn len(&self) -> u64;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// It can't be read there.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> std::io::Result<()>;
}

/// Memory that lies in the core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// Its physical addresses.
    pub memory: Range<u64>,
    /// Where it begins in the file.
    pub offset: u64,
}

/// What the headers say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    /// The memory that the file holds, in its order.
    pub loads: Vec<Load>,
    /// The places of notes in the file.
    pub notes: Vec<Range<u64>>,
    /// How many bytes of memory the headers promise beyond the end of the file.
    pub missing: u64,
}

/// Most segments that are taken: more than any machine has ranges of memory.
const MOST: u64 = 1 << 18;
const HEADER: usize = size_of::<ProgramHeader64<LE>>();

/// Why a file is no core of an arm64 machine.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// The file can't be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// The file ends in the middle of its headers.
    #[error("it is truncated: its headers end at {end:#x} and the file at {len:#x}")]
    Truncated {
        /// Where the headers end.
        end: u64,
        /// The length of the file.
        len: u64,
    },
    /// Not of 64 bits and little-endian.
    #[error("it is not a little-endian 64-bit ELF file")]
    Form,
    /// Of another architecture.
    #[error("it is of ELF machine {machine}, and arm64 is {}", EM_AARCH64.0)]
    Machine {
        /// e_machine.
        machine: u16,
    },
    /// The headers of segments have a size that no one uses.
    #[error("its program headers have {size} bytes, not {HEADER}")]
    HeaderSize {
        /// e_phentsize.
        size: u16,
    },
    /// More segments than any machine has ranges of memory.
    #[error("it has {count} program headers, more than {MOST}")]
    Segments {
        /// How many.
        count: u64,
    },
}

impl Headers {
    /// The headers of `file`.
    ///
    /// # Errors
    /// Every [`HeaderError`].
    pub fn read(file: &dyn Bytes) -> Result<Self, HeaderError> {
        let mut first = [0; size_of::<FileHeader64<LE>>()];
        read(file, 0, &mut first)?;
        let (header, _) = object::from_bytes::<FileHeader64<LE>>(&first).map_err(|()| HeaderError::Form)?;
        if header.e_ident.class != ELFCLASS64 || header.e_ident.data != ELFDATA2LSB {
            return Err(HeaderError::Form);
        }
        match header.e_machine.get(LE) {
            EM_AARCH64 => {}
            machine => return Err(HeaderError::Machine { machine: machine.0 }),
        }
        let count = match header.e_phnum.get(LE) {
            // The number does not fit, and section 0 has it.
            PN_XNUM => {
                let mut bytes = [0; size_of::<SectionHeader64<LE>>()];
                read(file, header.e_shoff.get(LE), &mut bytes)?;
                let (section, _) =
                    object::from_bytes::<SectionHeader64<LE>>(&bytes).map_err(|()| HeaderError::Form)?;
                u64::from(section.sh_info.get(LE))
            }
            count => count.into(),
        };
        let size = header.e_phentsize.get(LE);
        if count != 0 && usize::from(size) != HEADER {
            return Err(HeaderError::HeaderSize { size });
        }
        if count > MOST {
            return Err(HeaderError::Segments { count });
        }
        Self::of_segments(file, header.e_phoff.get(LE), count)
    }

    fn of_segments(file: &dyn Bytes, first: u64, count: u64) -> Result<Self, HeaderError> {
        let mut headers = Self::default();
        let end = first.checked_add(count * HEADER as u64);
        let len = file.len();
        if end.is_none_or(|end| end > len) {
            return Err(HeaderError::Truncated { end: end.unwrap_or(u64::MAX), len });
        }
        for nth in 0..count {
            let mut bytes = [0; HEADER];
            read(file, first + nth * HEADER as u64, &mut bytes)?;
            let (segment, _) =
                object::from_bytes::<ProgramHeader64<LE>>(&bytes).map_err(|()| HeaderError::Form)?;
            headers.add(segment, len);
        }
        Ok(headers)
    }

    fn add(&mut self, segment: &ProgramHeader64<LE>, len: u64) {
        let (offset, size) = (segment.p_offset.get(LE), segment.p_filesz.get(LE));
        let there = size.min(len.saturating_sub(offset));
        match segment.p_type.get(LE) {
            PT_NOTE => self.notes.push(offset..offset.saturating_add(there)),
            PT_LOAD => {
                let start = segment.p_paddr.get(LE);
                // /proc/kcore says so of memory that is only virtual.
                if start == u64::MAX {
                    return;
                }
                self.missing = self.missing.saturating_add(size - there);
                self.loads.push(Load { memory: start..start.saturating_add(there), offset });
            }
            _ => {}
        }
    }
}

fn read(file: &dyn Bytes, offset: u64, bytes: &mut [u8]) -> Result<(), HeaderError> {
    let len = file.len();
    match offset.checked_add(bytes.len() as u64) {
        Some(end) if end <= len => Ok(file.read(offset, bytes)?),
        end => Err(HeaderError::Truncated { end: end.unwrap_or(u64::MAX), len }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Bytes for Vec<u8> {
        fn len(&self) -> u64 {
            self.as_slice().len() as u64
        }

        fn read(&self, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
            let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
            match from.and_then(|from| from.get(..bytes.len())) {
                Some(found) => bytes.copy_from_slice(found),
                None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
            Ok(())
        }
    }

    /// A core of arm64 whose program headers have these types, offsets, physical addresses and
    /// sizes, in a file of 8 KiB.
    fn core(segments: &[(u32, u64, u64, u64)]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([4, 0, 183, 0, 1, 0, 0, 0]);
        for word in [0, 64, 0u64] {
            file.extend(word.to_le_bytes());
        }
        for half in [0, 0, 64, 56, segments.len() as u16, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        for &(kind, offset, start, size) in segments {
            file.extend(kind.to_le_bytes());
            file.extend(0u32.to_le_bytes());
            for word in [offset, !0, start, size, size, 0] {
                file.extend(word.to_le_bytes());
            }
        }
        file.resize(8192, 0);
        file
    }

    fn good() -> Vec<u8> {
        core(&[
            (4, 0x200, 0, 0x80),
            (1, 0x400, 0x4000_0000, 0x1000),
            (1, 0x1400, 0x8000_0000, 0x400),
            (7, 0, 0, 9),
        ])
    }

    #[test]
    fn memory_and_notes_are_where_the_headers_say() {
        let headers = Headers::read(&good()).unwrap();
        assert_eq!(headers.notes, [0x200..0x280]);
        let loads = [
            Load { memory: 0x4000_0000..0x4000_1000, offset: 0x400 },
            Load { memory: 0x8000_0000..0x8000_0400, offset: 0x1400 },
        ];
        assert_eq!((headers.loads, headers.missing), (loads.to_vec(), 0));
    }

    #[test]
    fn what_lies_beyond_the_end_of_the_file_is_missing() {
        let headers =
            Headers::read(&core(&[(1, 0x1000, 0, 0x1800), (1, u64::MAX, 0, 1), (1, 0, u64::MAX, 9)]));
        let headers = headers.unwrap();
        assert_eq!(headers.missing, 0x801);
        assert_eq!(headers.loads[0], Load { memory: 0..0x1000, offset: 0x1000 });
        assert_eq!(headers.loads.len(), 2, "memory without a physical address is none");
    }

    #[test]
    fn headers_that_are_wrong_are_said_to_be() {
        let with = |at: usize, byte| {
            let mut file = good();
            file[at] = byte;
            Headers::read(&file).unwrap_err().to_string()
        };
        assert!(with(4, 1).contains("64-bit"));
        assert!(with(18, 62).contains("ELF machine 62"));
        assert!(with(54, 55).contains("55 bytes"));
        assert!(with(37, 0xff).contains("truncated"));
        let cut = good()[..100].to_vec();
        assert!(Headers::read(&cut).unwrap_err().to_string().contains("truncated"));
        assert!(Headers::read(&Vec::new()).is_err());
    }

    #[test]
    fn a_number_of_segments_that_does_not_fit_is_in_section_0_and_has_a_limit() {
        let mut file = good();
        file[56..58].copy_from_slice(&[0xff; 2]);
        file[40..48].copy_from_slice(&0x1000u64.to_le_bytes());
        file[0x1000 + 44] = 3;
        assert_eq!(Headers::read(&file).unwrap().loads.len(), 2);
        file[0x1000 + 47] = 0xff;
        assert!(matches!(Headers::read(&file), Err(HeaderError::Segments { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn any_headers_end(
            changes in prop::collection::vec((0_usize..300, any::<u8>()), 0..24),
            len in 0_usize..8192,
        ) {
            let mut file = good();
            for (at, byte) in changes {
                file[at] = byte;
            }
            if let Ok(headers) = Headers::read(&file) {
                let len = file.len() as u64;
                prop_assert!(headers.notes.iter().all(|note| note.start >= len || note.end <= len));
                prop_assert!(headers.loads.iter().all(|load| load.memory.start <= load.memory.end));
            }
            file.truncate(len);
            let _ = Headers::read(&file);
        }
    }
}
