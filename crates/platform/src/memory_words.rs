//! The words of a command line that change how much memory a kernel has.

use core::str::FromStr;

use linmap_memblock::{Memblock, PA_LIMIT, RegionError};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::number::parse_number;

/// Memory is used in pages of at least this size. A limit is rounded down to it.
const PAGE: u64 = 0x1000;

/// Why a word cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum MemoryWordError {
    /// The value of `mem` is not a size.
    #[error("not a SIZE, which can end in K, M, G or T")]
    LimitSyntax,
    /// The value of `mem` is less than a page.
    #[error("{bytes:#x} bytes are less than a page")]
    LimitTooSmall {
        /// The size in bytes.
        bytes: u64,
    },
    /// The value of `memmap` is not a list of sizes and addresses.
    #[error("not SIZE@ADDRESS or SIZE$ADDRESS, where a number can end in K, M, G or T")]
    MapSyntax,
    /// A range is empty, or an end of it is not at a page.
    #[error("size {size:#x} and address {start:#x} must be multiples of {PAGE:#x}, and the size not 0")]
    Unaligned {
        /// The size in bytes.
        size: u64,
        /// The address.
        start: u64,
    },
    /// A range ends above the highest physical address.
    #[error("{size:#x} bytes at {start:#x} end above {PA_LIMIT}")]
    AbovePaLimit {
        /// The size in bytes.
        size: u64,
        /// The address.
        start: u64,
    },
}

/// How much memory a kernel may use: the value of `mem`, as in `mem=512M`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryLimit {
    /// The size in bytes, whole pages.
    bytes: u64,
}

impl FromStr for MemoryLimit {
    type Err = MemoryWordError;

    fn from_str(text: &str) -> Result<Self, MemoryWordError> {
        let bytes = parse_number(text).ok_or(MemoryWordError::LimitSyntax)?;
        match bytes & !(PAGE - 1) {
            0 => Err(MemoryWordError::LimitTooSmall { bytes }),
            bytes => Ok(Self { bytes }),
        }
    }
}

impl MemoryLimit {
    /// Removes the memory of `memblock` above its first bytes, as many as the limit says. As in
    /// Linux on arm64, the limit is an amount of memory and not an address, no-map memory counts,
    /// and what lies in `rescued` stays: the image and the initrd. Returns the address from which
    /// on memory was removed, if any was.
    ///
    /// # Errors
    /// [`RegionError::Full`]: what is rescued needs more ranges than there is room for. A part of
    /// the memory is removed then.
    pub fn apply<const N: usize>(
        self,
        memblock: &mut Memblock<N>,
        rescued: &[PaRange],
    ) -> Result<Option<Pa>, RegionError> {
        let Some(end) = self.end(memblock) else { return Ok(None) };
        let mut next = end;
        let last = memblock.memory_end();
        while next < last {
            // Rescued bytes are in use by whole pages.
            let pages = || rescued.iter().filter_map(|range| range.align_outward(PAGE));
            if let Some(range) = pages().find(|range| range.contains(next)) {
                next = range.end;
                continue;
            }
            let stop = pages().map(|range| range.start).filter(|start| *start > next).min();
            let stop = stop.unwrap_or(last).min(last);
            memblock.remove(PaRange::new(next, stop))?;
            next = stop;
        }
        Ok(Some(end))
    }

    /// Returns where the limit is reached; `None` if there is no memory above it.
    fn end<const N: usize>(self, memblock: &Memblock<N>) -> Option<Pa> {
        let mut left = self.bytes;
        for region in memblock.regions() {
            match left.checked_sub(region.range.len()) {
                Some(rest) => left = rest,
                None => return Some(Pa(region.range.start.0 + left)),
            }
        }
        None
    }
}

/// One range of a `memmap` word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryMapEntry {
    /// `SIZE@ADDRESS`: the range is memory.
    Memory(PaRange),
    /// `SIZE$ADDRESS`: the range stays unmapped.
    NoMap(PaRange),
}

/// The ranges of a `memmap` word, as in `memmap=64M@0x40000000,1M$0x42000000`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryMap<'a> {
    text: &'a str,
}

impl<'a> MemoryMap<'a> {
    /// Reads the value of the word.
    ///
    /// # Errors
    /// [`MemoryWordError`], for the first entry that breaks a rule.
    pub fn parse(text: &'a str) -> Result<Self, MemoryWordError> {
        text.split(',').try_for_each(|entry| entry.parse::<MemoryMapEntry>().map(|_| ()))?;
        Ok(Self { text })
    }

    /// Returns the entries in their order.
    pub fn entries(self) -> impl Iterator<Item = MemoryMapEntry> + 'a {
        // `parse` read every entry: none is left out.
        self.text.split(',').filter_map(|entry| entry.parse().ok())
    }

    /// Makes the entries part of `memblock`, in their order.
    ///
    /// # Errors
    /// [`RegionError`]. The entries before stay.
    pub fn apply<const N: usize>(self, memblock: &mut Memblock<N>) -> Result<(), RegionError> {
        self.entries().try_for_each(|entry| match entry {
            MemoryMapEntry::Memory(range) => memblock.add(range),
            MemoryMapEntry::NoMap(range) => memblock.mark_no_map(range),
        })
    }
}

impl FromStr for MemoryMapEntry {
    type Err = MemoryWordError;

    fn from_str(text: &str) -> Result<Self, MemoryWordError> {
        let (at, kind): (_, fn(PaRange) -> Self) = match text.find(['@', '$']) {
            Some(at) if text[at..].starts_with('@') => (at, Self::Memory),
            Some(at) => (at, Self::NoMap),
            None => return Err(MemoryWordError::MapSyntax),
        };
        let number = |text| parse_number(text).ok_or(MemoryWordError::MapSyntax);
        let (size, start) = (number(&text[..at])?, number(&text[at + 1..])?);
        if size == 0 || !(size | start).is_multiple_of(PAGE) {
            return Err(MemoryWordError::Unaligned { size, start });
        }
        let range = PaRange::from_len(Pa(start), size).filter(|range| range.end <= PA_LIMIT);
        Ok(kind(range.ok_or(MemoryWordError::AbovePaLimit { size, start })?))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    const fn range(start: u64, len: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(start + len))
    }

    /// Two regions of a gigabyte with a no-map hole in the first.
    fn machine() -> Memblock<16> {
        let mut memblock = Memblock::new();
        memblock.add(range(GIB, GIB)).unwrap();
        memblock.add(range(4 * GIB, GIB)).unwrap();
        memblock.mark_no_map(range(GIB + 16 * MIB, MIB)).unwrap();
        memblock
    }

    fn memory(memblock: &Memblock<16>) -> Vec<PaRange> {
        let mut memory: Vec<PaRange> = Vec::new();
        for region in memblock.regions() {
            match memory.last_mut() {
                Some(last) if last.end == region.range.start => last.end = region.range.end,
                _ => memory.push(region.range),
            }
        }
        memory
    }

    #[test]
    fn a_limit_is_an_amount_of_memory_from_the_lowest_address_on() {
        for (text, wanted, end) in [
            ("512M", [range(GIB, 512 * MIB)].as_slice(), Some(GIB + 512 * MIB)),
            ("0x20000fff", &[range(GIB, 512 * MIB)], Some(GIB + 512 * MIB)),
            ("1g", &[range(GIB, GIB)], Some(4 * GIB)),
            ("1025M", &[range(GIB, GIB), range(4 * GIB, MIB)], Some(4 * GIB + MIB)),
            ("2G", &[range(GIB, GIB), range(4 * GIB, GIB)], None),
            ("1T", &[range(GIB, GIB), range(4 * GIB, GIB)], None),
        ] {
            let mut memblock = machine();
            let limit: MemoryLimit = text.parse().unwrap();
            assert_eq!(limit.apply(&mut memblock, &[]), Ok(end.map(Pa)), "{text}");
            assert_eq!(memory(&memblock), wanted, "{text}");
        }
    }

    #[test]
    fn the_image_and_the_initrd_stay_although_they_lie_above_the_limit() {
        let mut memblock = machine();
        let limit: MemoryLimit = "64M".parse().unwrap();
        let image = range(4 * GIB + 2 * MIB, 2 * MIB);
        let initrd = range(GIB + 128 * MIB, 0x1234);
        // What is no memory does not become memory.
        let elsewhere = range(3 * GIB, MIB);
        limit.apply(&mut memblock, &[image, initrd, elsewhere]).unwrap();
        assert_eq!(memory(&memblock), [range(GIB, 64 * MIB), range(initrd.start.0, 0x2000), image]);
        assert!(memblock.is_no_map(Pa(GIB + 16 * MIB)));
    }

    #[test]
    fn a_map_adds_memory_and_leaves_ranges_unmapped() {
        let mut memblock = Memblock::<16>::new();
        let map = MemoryMap::parse("64M@0x40000000,0x1000$0x42000000,2G@8G").unwrap();
        map.apply(&mut memblock).unwrap();
        let mappable: Vec<_> = memblock.mappable(PAGE).collect();
        assert_eq!(
            mappable,
            [range(0x4000_0000, 32 * MIB), range(0x4200_1000, 32 * MIB - 0x1000), range(8 * GIB, 2 * GIB)]
        );
    }

    #[test]
    fn a_word_that_makes_no_sense_is_refused() {
        for text in ["", "x", "1M@", "-1", "+1", "1MM", "1M@1G", "0x", "16777216T", "1E"] {
            assert_eq!(text.parse::<MemoryLimit>(), Err(MemoryWordError::LimitSyntax), "{text}");
        }
        assert_eq!("4095".parse::<MemoryLimit>(), Err(MemoryWordError::LimitTooSmall { bytes: 4095 }));
        for text in ["", "1M", "1M@", "@1G", "1M#1G", "1M@1G,", ",1M@1G", "1M@1G$2G", "1M!1G", "é@é"] {
            assert_eq!(MemoryMap::parse(text), Err(MemoryWordError::MapSyntax), "{text}");
        }
        for (text, size, start) in [("0@1G", 0, GIB), ("1M@4095", MIB, 4095), ("2049$1M", 2049, MIB)] {
            assert_eq!(MemoryMap::parse(text), Err(MemoryWordError::Unaligned { size, start }), "{text}");
        }
        for (text, size, start) in [("0xfffffffffffff000@0x2000", !0xfff, 0x2000), ("1M@4096T", MIB, 1 << 52)]
        {
            assert_eq!(MemoryMap::parse(text), Err(MemoryWordError::AbovePaLimit { size, start }), "{text}");
        }
    }
}
