//! The guest's memory, which QEMU shares through a file.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

use crate::qemu;

/// A range of RAM and where it is mapped.
struct Ram {
    start: u64,
    len: u64,
    at: NonNull<u8>,
}

/// The guest's RAM, and frames of memory that can't be stored to.
pub struct Memory {
    ram: Vec<Ram>,
    /// Ranges of flash and ROM, as first byte and length.
    roms: Vec<(u64, u64)>,
    /// What of them was read, by word.
    rom: HashMap<u64, u64>,
    /// Reads memory through QEMU.
    read: ReadRom,
}

/// Reads `len` bytes at a physical address outside RAM, if that can be.
pub type ReadRom = fn(pa: u64, len: u64) -> Option<Vec<u8>>;

const PROT_READ: i32 = 1;
const MAP_SHARED: i32 = 1;

impl Memory {
    /// Maps the RAM that the file at `layout` lists: a line `START LENGTH OFFSET` in hexadecimal
    /// for each range of the file at `memory`, and a line `START LENGTH rom` for each of flash or
    /// ROM.
    pub fn map(memory: &Path, layout: &Path, read: ReadRom) -> Result<Self, String> {
        let of = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = File::open(memory).map_err(|error| of(memory, &error))?;
        let size = file.metadata().map_err(|error| of(memory, &error))?.len();
        let text = fs::read_to_string(layout).map_err(|error| of(layout, &error))?;
        let mut ram = Vec::new();
        let mut roms = Vec::new();
        for line in text.lines() {
            if let Some((start, len)) = line.strip_suffix(" rom").and_then(|rest| rest.split_once(' ')) {
                let number = |digits| u64::from_str_radix(digits, 16).ok();
                let range =
                    number(start).zip(number(len)).filter(|(start, len)| start.checked_add(*len).is_some());
                roms.push(range.ok_or_else(|| of(layout, &"not the lines that linmap writes"))?);
                continue;
            }
            let numbers: Vec<_> = line.split(' ').map(|word| u64::from_str_radix(word, 16)).collect();
            let [Ok(start), Ok(len), Ok(offset)] = numbers[..] else {
                return Err(of(layout, &"not the lines that linmap writes"));
            };
            let is_inside = offset.checked_add(len).is_some_and(|end| end <= size);
            if !is_inside
                || len == 0
                || (start | len | offset) & 0xfff != 0
                || start.checked_add(len).is_none()
            {
                return Err(of(layout, &"memory that the file does not have"));
            }
            // SAFETY: A new mapping of `len` bytes of an open file, which has them. The result is
            // checked.
            let at = unsafe {
                let (len, offset) = (len as usize, offset as i64);
                qemu::mmap(std::ptr::null_mut(), len, PROT_READ, MAP_SHARED, file.as_raw_fd(), offset)
            };
            let at = NonNull::new(at.cast::<u8>()).filter(|at| at.addr().get() != usize::MAX);
            let at = at.ok_or_else(|| of(memory, &std::io::Error::last_os_error()))?;
            ram.push(Ram { start, len, at });
        }
        ram.sort_unstable_by_key(|ram| ram.start);
        if ram.is_empty() {
            return Err(of(layout, &"no memory"));
        }
        Ok(Self { ram, roms, rom: HashMap::new(), read })
    }

    /// The ranges as first byte and length.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ram.iter().map(|ram| (ram.start, ram.len)).chain(self.roms.iter().copied())
    }

    /// Reads a frame of flash or ROM, if it is one.
    pub fn read_rom(&mut self, pa: u64, len: u64) -> bool {
        if self.rom.contains_key(&pa) {
            return true;
        }
        let is_rom = |&(start, of): &(u64, u64)| start <= pa && pa - start < of && len <= of - (pa - start);
        if !self.roms.iter().any(is_rom) {
            return false;
        }
        let Some(bytes) = (self.read)(pa, len).filter(|bytes| bytes.len() as u64 == len) else {
            return false;
        };
        let words = bytes
            .chunks_exact(8)
            .map(|word| word.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)));
        self.rom.extend((pa..).step_by(8).zip(words));
        true
    }

    /// Whether all of a range is RAM.
    pub fn holds(&self, pa: u64, len: u64) -> bool {
        self.ram
            .iter()
            .any(|ram| ram.start <= pa && pa - ram.start < ram.len && len <= ram.len - (pa - ram.start))
    }

    /// The word at `pa`, a multiple of 8; `None` outside RAM and what was read of ROM.
    pub fn word(&self, pa: u64) -> Option<u64> {
        let Some(ram) = self.ram.iter().find(|ram| ram.start <= pa && pa - ram.start < ram.len) else {
            return self.rom.get(&pa).copied();
        };
        // SAFETY: `pa` is inside the range, whose mapping is as long and lives as long as the
        // process; both begin at a page, so that a multiple of 8 has a whole aligned word. The
        // guest writes there at any time, hence the volatile read.
        Some(u64::from_le(unsafe { ram.at.add((pa - ram.start) as usize).cast::<u64>().read_volatile() }))
    }
}

// SAFETY: The mapping is for reading, from any thread.
unsafe impl Send for Memory {}
