//! The notes of a core file: the kernel that crashed, and the registers of its CPUs.
//!
//! They are written during the crash, into the memory [`ElfCore::notes`](crate::ElfCore::notes).

use core::fmt::{self, Write};

use linmap_fdt::MeasuredBuffer;
use linmap_vmsa::{Granule, Pa, Va};
use thiserror::Error;

const NT_PRSTATUS: u32 = 1;
/// Length of `struct elf_prstatus` of an arm64 Linux in bytes.
const PRSTATUS_LEN: u32 = 392;
/// The offsets of its thread number and its registers.
const PRSTATUS_PID: usize = 32;
const PRSTATUS_REGISTERS: usize = 112;
/// A note without name and content. Crash kernels stop reading at it.
const END: [u8; NOTE_HEADER_LEN] = [0; NOTE_HEADER_LEN];
const NOTE_HEADER_LEN: usize = 12;

/// The facts about the kernel that a debugger needs. Displayed as the lines of a `VMCOREINFO` note
/// (admin-guide/kdump/vmcoreinfo).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmcoreInfo<'a> {
    /// Name and version of the kernel, in one line.
    pub release: &'a str,
    /// The size of its pages.
    pub granule: Granule,
    /// Bits of a virtual address, 36 to 52.
    pub va_bits: u32,
    /// Where the root table of the kernel's half is mapped.
    pub root: Va,
    /// The physical address at the start of the linear region. It wraps if the map begins further
    /// on than memory.
    pub memstart: Pa,
    /// VA − PA of the kernel image, wrapping.
    pub image_offset: u64,
    /// How far the image is mapped from where it is linked, in bytes.
    pub kaslr_offset: u64,
}

impl fmt::Display for VmcoreInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "OSRELEASE={}", self.release)?;
        writeln!(f, "PAGESIZE={}", self.granule.bytes())?;
        writeln!(f, "SYMBOL(swapper_pg_dir)={:x}", self.root.0)?;
        writeln!(f, "NUMBER(VA_BITS)={}", self.va_bits)?;
        writeln!(f, "NUMBER(PHYS_OFFSET)={:#x}", self.memstart.0)?;
        writeln!(f, "NUMBER(kimage_voffset)={:#x}", self.image_offset)?;
        writeln!(f, "NUMBER(TCR_EL1_T1SZ)={:#x}", 64 - self.va_bits.min(64))?;
        writeln!(f, "KERNELOFFSET={:x}", self.kaslr_offset)
    }
}

/// The registers of a CPU when it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuRegisters {
    /// The CPU's number. Debuggers show it as thread `cpu + 1`, since 0 is not a thread.
    pub cpu: u32,
    /// x0 to x30.
    pub x: [u64; 31],
    /// The stack pointer.
    pub sp: u64,
    /// The program counter.
    pub pc: u64,
    /// PSTATE in the form of SPSR_ELx.
    pub pstate: u64,
}

/// The notes' buffer is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the notes of {cpus} CPUs have {needed:#x} bytes, their buffer {capacity:#x}")]
pub struct NotesError {
    /// The number of CPUs.
    pub cpus: usize,
    /// Length of the notes in bytes.
    pub needed: usize,
    /// Length of the buffer in bytes.
    pub capacity: usize,
}

/// The notes of a core file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreNotes<'a> {
    /// The kernel.
    pub info: VmcoreInfo<'a>,
}

impl CoreNotes<'_> {
    /// Returns the length in bytes of the notes of `cpus` CPUs.
    pub fn measure(&self, cpus: usize) -> usize {
        let each = NOTE_HEADER_LEN + padded("CORE\0".len()) + PRSTATUS_LEN as usize;
        let mut output = MeasuredBuffer::new(&mut []);
        self.put_info(&mut output);
        output.len().saturating_add(cpus.saturating_mul(each)).saturating_add(END.len())
    }

    /// Writes the notes, those of the CPUs first, and clears the rest of `buffer`, which ends the
    /// notes.
    ///
    /// # Errors
    ///
    /// [`NotesError`] if `buffer` is shorter than [`measure`](Self::measure); it is unchanged then.
    pub fn write<I>(&self, cpus: I, buffer: &mut [u8]) -> Result<(), NotesError>
    where
        I: Iterator<Item = CpuRegisters> + Clone,
    {
        let count = cpus.clone().count();
        let (needed, capacity) = (self.measure(count), buffer.len());
        if needed > capacity {
            return Err(NotesError { cpus: count, needed, capacity });
        }
        let mut output = MeasuredBuffer::new(buffer);
        for registers in cpus {
            put_note_head(&mut output, "CORE\0", PRSTATUS_LEN, NT_PRSTATUS);
            output.put(&registers.prstatus());
        }
        self.put_info(&mut output);
        output.clear_rest();
        Ok(())
    }

    fn put_info(&self, output: &mut MeasuredBuffer<'_>) {
        let mut text = MeasuredBuffer::new(&mut []);
        // The buffer accepts everything.
        let _ = write!(text, "{}", self.info);
        // The text is far below 4 GiB.
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        put_note_head(output, "VMCOREINFO\0", len, 0);
        let _ = write!(output, "{}", self.info);
        output.pad();
    }
}

impl CpuRegisters {
    /// Returns the registers as `struct elf_prstatus`; all other fields are 0.
    fn prstatus(&self) -> [u8; PRSTATUS_LEN as usize] {
        let mut bytes = [0; PRSTATUS_LEN as usize];
        let (before, rest) = bytes.split_at_mut(PRSTATUS_REGISTERS);
        before[PRSTATUS_PID..PRSTATUS_PID + 4].copy_from_slice(&self.cpu.wrapping_add(1).to_le_bytes());
        let registers = self.x.iter().chain([&self.sp, &self.pc, &self.pstate]);
        for (place, register) in rest.as_chunks_mut().0.iter_mut().zip(registers) {
            *place = register.to_le_bytes();
        }
        bytes
    }
}

/// Writes the head of a note: `name` with its NUL, `len` bytes of content.
fn put_note_head(output: &mut MeasuredBuffer<'_>, name: &str, len: u32, kind: u32) {
    for word in [name.len() as u32, len, kind] {
        output.put(&word.to_le_bytes());
    }
    output.put(name.as_bytes());
    output.pad();
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use linmap_vmsa::{PaRange, Va};
    use object::Endianness;
    use object::elf::{FileHeader64, PT_NOTE};
    use object::read::elf::{FileHeader, ProgramHeader};
    use proptest::prelude::*;

    use super::*;
    use crate::ElfCore;

    const INFO: VmcoreInfo<'static> = VmcoreInfo {
        release: "linmap-0.1.0",
        granule: Granule::K16,
        va_bits: 47,
        root: Va(0xffff_c000_0123_4000),
        memstart: Pa(0x4000_0000),
        image_offset: 0xffff_7fff_c000_0000,
        kaslr_offset: 0x1_2340_0000,
    };
    const TEXT: &str = "OSRELEASE=linmap-0.1.0\nPAGESIZE=16384\n\
        SYMBOL(swapper_pg_dir)=ffffc00001234000\nNUMBER(VA_BITS)=47\n\
        NUMBER(PHYS_OFFSET)=0x40000000\nNUMBER(kimage_voffset)=0xffff7fffc0000000\n\
        NUMBER(TCR_EL1_T1SZ)=0x11\nKERNELOFFSET=123400000\n";
    /// Where the notes are in a memory that is also the core file.
    const NOTES: usize = 0x1000;

    fn registers(cpu: u32) -> CpuRegisters {
        let value = |number: u64| u64::from(cpu) << 32 | number;
        CpuRegisters {
            cpu,
            x: core::array::from_fn(|number| value(number as u64)),
            sp: value(31),
            pc: value(32),
            pstate: value(33),
        }
    }

    /// Name, type and content of the notes that a reader of the core file finds; the first without
    /// a name ends them.
    fn read(cpus: &[CpuRegisters], spare: usize) -> Vec<(Vec<u8>, u32, Vec<u8>)> {
        let notes = CoreNotes { info: INFO };
        let len = notes.measure(cpus.len()) + spare;
        let mut memory = std::vec![0xaa; NOTES + len];
        let ram = PaRange::new(Pa(0), Pa(0x10_0000));
        let core = ElfCore {
            memory: &[ram],
            linear_offset: 0,
            image: ram,
            image_va: Va(0),
            notes: PaRange::new(Pa(NOTES as u64), Pa((NOTES + len) as u64)),
        };
        core.write(&mut memory[..NOTES]).unwrap();
        notes.write(cpus.iter().copied(), &mut memory[NOTES..]).unwrap();

        let header = FileHeader64::<Endianness>::parse(&*memory).unwrap();
        let endian = header.endian().unwrap();
        let segment = header.program_headers(endian, &*memory).unwrap().first().unwrap();
        assert_eq!(segment.p_type(endian), PT_NOTE);
        let mut notes = segment.notes(endian, &*memory).unwrap().unwrap();
        let mut all = Vec::new();
        while let Some(note) = notes.next().unwrap() {
            if note.name_bytes().is_empty() {
                return all;
            }
            let kind = note.n_type(endian);
            all.push((note.name_bytes().to_vec(), kind.0, note.desc().to_vec()));
        }
        panic!("no empty note ends the notes");
    }

    #[test]
    fn each_cpu_has_its_registers_where_debuggers_look() {
        let all = read(&[registers(0), registers(5)], 0);
        for (note, cpu) in all.iter().zip([0u32, 5]) {
            let (name, kind, status) = note;
            assert_eq!((&name[..], *kind, status.len()), (&b"CORE\0"[..], 1, 392));
            assert_eq!(status[32..36], (cpu + 1).to_le_bytes());
            for number in 0..34 {
                let at = 112 + number * 8;
                let value = u64::from(cpu) << 32 | number as u64;
                assert_eq!(status[at..at + 8], value.to_le_bytes(), "register {number}");
            }
            let others = [&status[..32], &status[36..112], &status[384..]];
            assert!(others.concat().iter().all(|&byte| byte == 0));
        }
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn the_kernel_is_described_as_text() {
        assert_eq!(read(&[], 0), [(b"VMCOREINFO\0".to_vec(), 0, TEXT.as_bytes().to_vec())]);
    }

    #[test]
    fn a_buffer_that_is_too_small_is_left_as_it_was() {
        let notes = CoreNotes { info: INFO };
        let needed = notes.measure(1);
        let capacity = needed - 1;
        let mut buffer = std::vec![0xaa; capacity];
        let error = NotesError { cpus: 1, needed, capacity };
        assert_eq!(notes.write([registers(0)].into_iter(), &mut buffer), Err(error));
        assert!(buffer.iter().all(|&byte| byte == 0xaa));
    }

    #[test]
    fn the_notes_of_more_cpus_than_memory_holds_need_more_than_there_is() {
        assert_eq!(CoreNotes { info: INFO }.measure(usize::MAX), usize::MAX);
    }

    proptest! {
        #[test]
        fn spare_room_ends_the_notes(cpus in 0u32..20, spare in 0usize..2000) {
            let cpus: Vec<_> = (0..cpus).map(registers).collect();
            // Notes are whole words.
            prop_assert_eq!(read(&cpus, spare & !3), read(&cpus, 0));
        }
    }
}
