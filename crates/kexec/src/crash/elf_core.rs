//! The ELF header through which a crash kernel sees the memory of the crashed kernel.
//!
//! A crash kernel finds it by `linux,elfcorehdr` and shows it as /proc/vmcore: an ELF64 core file
//! (System V ABI for the Arm 64-bit Architecture) whose file offsets are physical addresses.

use linmap_fdt::MeasuredBuffer;
use linmap_vmsa::{Pa, PaRange, Va};
use thiserror::Error;

const FILE_HEADER_LEN: u16 = 64;
const PROGRAM_HEADER_LEN: u16 = 56;
/// Notes and their parts are aligned to this many bytes.
const NOTE_ALIGN: u64 = 4;
/// The most program headers. 0xffff would mean that their number is stored elsewhere; crash kernels
/// do not read that.
const MAX_HEADERS: usize = 0xfffe;

const ELF64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const ELF_VERSION: u8 = 1;
const ET_CORE: u16 = 4;
const EM_AARCH64: u16 = 183;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Executable, writable and readable.
const RWX: u32 = 7;

/// The memory of the running kernel that a crash kernel sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfCore<'a> {
    /// The RAM to show, ascending. It excludes the crash kernel's own memory, whose content
    /// changes.
    pub memory: &'a [PaRange],
    /// VA − PA of the linear map, wrapping.
    pub linear_offset: u64,
    /// The kernel image in memory.
    pub image: PaRange,
    /// The virtual address of the image, by which a debugger finds the kernel's variables.
    pub image_va: Va,
    /// The memory into which [`CoreNotes`](crate::CoreNotes) are written during a crash; it starts
    /// at a multiple of 4.
    pub notes: PaRange,
}

/// Why a header cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ElfCoreError {
    /// There is no memory to show.
    #[error("the ELF core header has no RAM to show")]
    NoMemory,
    /// The ranges of RAM are not ascending.
    #[error(
        "{range} of the ELF core header's RAM is empty or begins below {after}, the end of the \
         range before it"
    )]
    Order {
        /// The later range.
        range: PaRange,
        /// The end of the earlier range; 0 if there is none.
        after: Pa,
    },
    /// The image is not in RAM to show.
    #[error("the kernel image {image} is empty or not in one of the ELF core header's ranges of RAM")]
    Image {
        /// The image.
        image: PaRange,
    },
    /// The memory for notes is empty or misaligned.
    #[error("the notes at {notes} for the ELF core header are empty or not at a multiple of {NOTE_ALIGN}")]
    Notes {
        /// Their range.
        notes: PaRange,
    },
    /// There are too many ranges.
    #[error(
        "{ranges} ranges of RAM are too many for the {MAX_HEADERS} program headers of an ELF core header"
    )]
    TooMany {
        /// The number of ranges of RAM.
        ranges: usize,
    },
    /// The buffer is too small.
    #[error("the ELF core header has {needed:#x} bytes, its buffer {capacity:#x}")]
    NoRoom {
        /// Length of the header in bytes.
        needed: usize,
        /// Length of the buffer in bytes.
        capacity: usize,
    },
}

impl ElfCore<'_> {
    /// Returns the length of the header in bytes.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), without [`ElfCoreError::NoRoom`].
    pub fn measure(&self) -> Result<usize, ElfCoreError> {
        self.put(&mut [])
    }

    /// Writes the header into `buffer` and returns its length in bytes, which `linux,elfcorehdr`
    /// must have.
    ///
    /// # Errors
    ///
    /// `buffer` is unchanged after
    /// - [`ElfCoreError::NoMemory`], [`ElfCoreError::Order`], [`ElfCoreError::TooMany`]: `memory`
    ///   is empty, has an empty range, is not ascending, or has too many ranges;
    /// - [`ElfCoreError::Image`]: the image is not in `memory`;
    /// - [`ElfCoreError::Notes`]: the notes are empty or misaligned;
    /// - [`ElfCoreError::NoRoom`]: the header does not fit.
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, ElfCoreError> {
        let capacity = buffer.len();
        let needed = self.measure()?;
        if needed > capacity {
            return Err(ElfCoreError::NoRoom { needed, capacity });
        }
        self.put(buffer)
    }

    fn put(&self, buffer: &mut [u8]) -> Result<usize, ElfCoreError> {
        let count = self.check()?;
        let mut output = MeasuredBuffer::new(buffer);
        put_file_header(&mut output, count);
        // The virtual address of notes is meaningless: crash kernels read them at the file offset.
        put_program_header(&mut output, PT_NOTE, 0, self.notes, Va(0));
        put_program_header(&mut output, PT_LOAD, RWX, self.image, self.image_va);
        for &range in self.memory {
            let va = Va(range.start.0.wrapping_add(self.linear_offset));
            put_program_header(&mut output, PT_LOAD, RWX, range, va);
        }
        Ok(output.len())
    }

    /// Checks all fields, and returns the number of program headers.
    fn check(&self) -> Result<u16, ElfCoreError> {
        let Self { memory, image, notes, .. } = *self;
        if memory.is_empty() {
            return Err(ElfCoreError::NoMemory);
        }
        let mut after = Pa(0);
        for &range in memory {
            if range.is_empty() || range.start < after {
                return Err(ElfCoreError::Order { range, after });
            }
            after = range.end;
        }
        if image.is_empty() || !memory.iter().any(|range| range.covers(image)) {
            return Err(ElfCoreError::Image { image });
        }
        if notes.is_empty() || !notes.start.0.is_multiple_of(NOTE_ALIGN) {
            return Err(ElfCoreError::Notes { notes });
        }
        let ranges = memory.len();
        let count = Some(ranges.saturating_add(2)).filter(|&count| count <= MAX_HEADERS);
        count.and_then(|count| count.try_into().ok()).ok_or(ElfCoreError::TooMany { ranges })
    }
}

fn put_file_header(output: &mut MeasuredBuffer<'_>, program_headers: u16) {
    output.put(&[0x7f, b'E', b'L', b'F', ELF64, LITTLE_ENDIAN, ELF_VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [ET_CORE, EM_AARCH64] {
        output.put(&half.to_le_bytes());
    }
    output.put(&u32::from(ELF_VERSION).to_le_bytes());
    // Entry, where the program headers begin, no section headers.
    for double in [0, u64::from(FILE_HEADER_LEN), 0] {
        output.put(&double.to_le_bytes());
    }
    // Flags.
    output.put(&0u32.to_le_bytes());
    for half in [FILE_HEADER_LEN, PROGRAM_HEADER_LEN, program_headers, 0, 0, 0] {
        output.put(&half.to_le_bytes());
    }
}

fn put_program_header(output: &mut MeasuredBuffer<'_>, kind: u32, flags: u32, range: PaRange, va: Va) {
    for word in [kind, flags] {
        output.put(&word.to_le_bytes());
    }
    // Offset, virtual and physical address, length in the file and in memory, alignment.
    let start = range.start.0;
    for double in [start, va.0, start, range.len(), range.len(), 0] {
        output.put(&double.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use object::elf::{self, FileHeader64};
    use object::read::elf::{FileHeader, ProgramHeader};
    use object::{Endianness, LittleEndian};
    use proptest::prelude::*;

    use super::*;

    const OFFSET: u64 = 0xffff_0000_0000_0000_u64.wrapping_sub(0x4000_0000);
    const MEMORY: [PaRange; 2] =
        [PaRange::new(Pa(0x4000_0000), Pa(0x6000_0000)), PaRange::new(Pa(0x6800_0000), Pa(0x10_0000_0000))];
    const CORE: ElfCore<'static> = ElfCore {
        memory: &MEMORY,
        linear_offset: OFFSET,
        image: PaRange::new(Pa(0x4020_0000), Pa(0x4041_0000)),
        image_va: Va(0xffff_8000_8000_0000),
        notes: PaRange::new(Pa(0x4050_0000), Pa(0x4050_2000)),
    };

    fn written(core: &ElfCore<'_>) -> Vec<u8> {
        let mut buffer = std::vec![0xaa; core.measure().unwrap()];
        assert_eq!(core.write(&mut buffer), Ok(buffer.len()));
        buffer
    }

    /// Kind, virtual address, physical address, length of each program header.
    fn headers(bytes: &[u8]) -> Vec<(elf::ProgramType, u64, u64, u64)> {
        let header = FileHeader64::<Endianness>::parse(bytes).unwrap();
        let endian = header.endian().unwrap();
        assert_eq!(endian, Endianness::Little);
        assert_eq!((header.e_type(endian), header.e_machine(endian)), (elf::ET_CORE, elf::EM_AARCH64));
        // What Linux insists on before it believes a core header.
        assert_eq!(header.e_ident().class, elf::ELFCLASS64);
        assert_eq!((header.e_ident().version, header.e_version(endian)), (elf::EV_CURRENT, 1));
        assert_eq!(usize::from(header.e_ehsize(endian)), size_of::<FileHeader64<LittleEndian>>());
        assert_eq!(header.e_phentsize(endian), 56);
        assert_eq!(header.sections(endian, bytes).unwrap().len(), 0);
        let all = header.program_headers(endian, bytes).unwrap().iter().map(|header| {
            assert_eq!(header.p_offset(endian), header.p_paddr(endian));
            assert_eq!(header.p_filesz(endian), header.p_memsz(endian));
            (header.p_type(endian), header.p_vaddr(endian), header.p_paddr(endian), header.p_memsz(endian))
        });
        all.collect()
    }

    #[test]
    fn the_header_shows_notes_image_and_memory() {
        let expected = [
            (elf::PT_NOTE, 0, 0x4050_0000, 0x2000),
            (elf::PT_LOAD, 0xffff_8000_8000_0000, 0x4020_0000, 0x21_0000),
            (elf::PT_LOAD, 0xffff_0000_0000_0000, 0x4000_0000, 0x2000_0000),
            (elf::PT_LOAD, 0xffff_0000_2800_0000, 0x6800_0000, 0xf_9800_0000),
        ];
        let bytes = written(&CORE);
        assert_eq!(bytes.len(), 64 + 4 * 56);
        assert_eq!(headers(&bytes), expected);
    }

    #[test]
    fn a_buffer_that_is_too_small_is_left_as_it_was() {
        let needed = CORE.measure().unwrap();
        let capacity = needed - 1;
        let mut buffer = std::vec![0xaa; capacity];
        assert_eq!(CORE.write(&mut buffer), Err(ElfCoreError::NoRoom { needed, capacity }));
        assert!(buffer.iter().all(|&byte| byte == 0xaa));
    }

    #[test]
    fn bytes_behind_the_header_stay() {
        let needed = CORE.measure().unwrap();
        let mut buffer = std::vec![0xaa; needed + 10];
        assert_eq!(CORE.write(&mut buffer), Ok(needed));
        assert_eq!(buffer[..needed], written(&CORE));
        assert_eq!(buffer[needed..], [0xaa; 10]);
    }

    #[test]
    fn memory_that_makes_no_sense_is_refused() {
        let [low, high] = MEMORY;
        let with = |memory: &[PaRange]| ElfCore { memory, ..CORE }.measure();
        assert_eq!(with(&[]), Err(ElfCoreError::NoMemory));
        assert_eq!(with(&[high, low]), Err(ElfCoreError::Order { range: low, after: high.end }));
        assert_eq!(with(&[low, low]), Err(ElfCoreError::Order { range: low, after: low.end }));
        let empty = PaRange::new(Pa(0x9000_0000), Pa(0x9000_0000));
        assert_eq!(with(&[low, empty]), Err(ElfCoreError::Order { range: empty, after: low.end }));
        assert_eq!(with(&[high]), Err(ElfCoreError::Image { image: CORE.image }));
    }

    #[test]
    fn notes_that_are_misaligned_or_empty_are_refused() {
        for notes in [PaRange::new(Pa(0x1002), Pa(0x2000)), PaRange::new(Pa(0x1000), Pa(0x1000))] {
            assert_eq!(ElfCore { notes, ..CORE }.measure(), Err(ElfCoreError::Notes { notes }));
        }
    }

    #[test]
    fn program_headers_are_counted_in_16_bits() {
        let pages: Vec<PaRange> =
            (0..0xfffdu64).map(|page| PaRange::new(Pa(page << 13), Pa((page << 13) + 0x1000))).collect();
        let image = PaRange::new(Pa(0x2000), Pa(0x3000));
        let most = ElfCore { memory: &pages[1..], image, ..CORE };
        assert_eq!(headers(&written(&most)).len(), MAX_HEADERS);
        let more = ElfCore { memory: &pages, ..most };
        assert_eq!(more.measure(), Err(ElfCoreError::TooMany { ranges: 0xfffd }));
    }

    proptest! {
        #[test]
        fn any_memory_is_read_back(gaps in prop::collection::vec((0u64..1 << 40, 1u64..1 << 40), 1..20)) {
            let mut end = 0;
            let mut memory = Vec::new();
            for (gap, len) in gaps {
                let start = end + gap;
                end = start + len;
                memory.push(PaRange::new(Pa(start), Pa(end)));
            }
            let core = ElfCore { memory: &memory, image: memory[0], ..CORE };
            let read = headers(&written(&core));
            let loads = memory.iter().map(|range| {
                (elf::PT_LOAD, range.start.0.wrapping_add(OFFSET), range.start.0, range.len())
            });
            prop_assert!(read.into_iter().skip(2).eq(loads));
        }
    }
}
