//! Reading frames that hold tables.

use std::ops::Range;

use linmap_vmsa::Pa;

use crate::dump::guest::{AddressSpace, GuestMemory};
use crate::dump::tree::Tree;
use crate::failure::Failure;

/// Reads tables from a guest's memory.
pub struct Frames<'m> {
    memory: &'m mut dyn GuestMemory,
    ranges: Vec<Range<u64>>,
    bytes: Vec<u8>,
}

/// Where the addresses of tables are.
#[derive(Clone, Copy)]
pub enum Through<'t> {
    /// They are physical.
    Nothing,
    /// They are IPAs, which this tree translates.
    Stage2(&'t Tree),
}

impl<'t> Through<'t> {
    /// What translates the addresses of tables in `space`, beside the tree of stage 2 if there is
    /// one.
    pub fn of(space: AddressSpace, stage_2: Option<&'t Tree>) -> Self {
        match (space, stage_2) {
            (AddressSpace::Intermediate, Some(tree)) => Self::Stage2(tree),
            _ => Self::Nothing,
        }
    }

    /// The physical address of `at`, if it has one.
    pub fn physical(self, at: u64) -> Option<u64> {
        match self {
            Self::Nothing => Some(at),
            Self::Stage2(tree) => tree.translate(at),
        }
    }
}

impl<'m> Frames<'m> {
    /// Tables in `memory`.
    pub fn new(memory: &'m mut dyn GuestMemory) -> Self {
        let ranges = memory.ranges().to_vec();
        Self { memory, ranges, bytes: Vec::new() }
    }

    /// The ranges that hold memory.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Reads the words from `at` on. Returns whether all of them lie in memory; if not, none is
    /// read.
    ///
    /// # Errors
    /// Those of the memory.
    pub fn read(&mut self, at: Pa, through: Through<'_>, words: &mut [u64]) -> Result<bool, Failure> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(words.len() * 8, 0);
        let result = self.read_bytes(at.0, through, &mut bytes);
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        self.bytes = bytes;
        result
    }

    fn read_bytes(&mut self, at: u64, through: Through<'_>, bytes: &mut [u8]) -> Result<bool, Failure> {
        let Through::Stage2(_) = through else {
            return self.read_physical(at, bytes);
        };
        // Pages of stage 2 may be smaller than a table.
        let mut done = 0;
        while done < bytes.len() {
            let from = at.wrapping_add(done as u64);
            let part = (bytes.len() - done).min((PIECE - from % PIECE) as usize);
            let Some(pa) = through.physical(from) else { return Ok(false) };
            let Some(piece) = bytes.get_mut(done..done + part) else { return Ok(false) };
            if !self.read_physical(pa, piece)? {
                return Ok(false);
            }
            done += part;
        }
        Ok(true)
    }

    /// Ranges may touch.
    fn read_physical(&mut self, pa: u64, mut bytes: &mut [u8]) -> Result<bool, Failure> {
        let mut at = pa;
        while !bytes.is_empty() {
            let nth = self.ranges.partition_point(|range| range.end <= at);
            let Some(range) = self.ranges.get(nth).filter(|range| range.start <= at) else {
                return Ok(false);
            };
            let part = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at_mut(part);
            self.memory.read(at, now)?;
            (at, bytes) = (at.saturating_add(part as u64), rest);
        }
        Ok(true)
    }
}

/// The smallest page.
const PIECE: u64 = 4096;

/// How many of the `len` bytes at `pa` lie in `ranges`, which ascend and are disjoint.
pub fn bytes_inside(ranges: &[Range<u64>], pa: u64, len: u64) -> u64 {
    let end = pa.saturating_add(len);
    let first = ranges.partition_point(|range| range.end <= pa);
    let touched = ranges.iter().skip(first).take_while(|range| range.start < end);
    touched.map(|range| range.end.min(end).saturating_sub(range.start.max(pa))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_counted_by_the_byte() {
        let ranges = [0x1000..0x3000, 0x4000..0x5000];
        assert_eq!(bytes_inside(&ranges, 0, 0x10_0000), 0x3000);
        assert_eq!(bytes_inside(&ranges, 0x2800, 0x2000), 0x800 + 0x800);
        assert_eq!(bytes_inside(&ranges, 0x3000, 0x1000), 0);
    }
}
