//! Memblock as the record of physical memory that changes consult.

use linmap_memblock::{Memblock, RegionError};
use linmap_table::{PhysicalMemory, RecordError, Unmappable};
use linmap_vmsa::PaRange;

/// Memblock as a [`PhysicalMemory`].
#[derive(Debug)]
pub struct MemblockRecord<'m, const N: usize>(pub &'m mut Memblock<N>);

/// Returns the lowest byte in `range` that must not be mapped: [`PhysicalMemory::first_unmappable`]
/// of memblock that is only read.
pub fn first_unmappable<const N: usize>(memblock: &Memblock<N>, range: PaRange) -> Option<Unmappable> {
    let mut next = range.start;
    // By bytes, not by pages, since the result is the exact address.
    for mappable in memblock.mappable(1) {
        if mappable.start > next {
            break;
        }
        next = next.max(mappable.end);
        if next >= range.end {
            return None;
        }
    }
    Some(if memblock.is_no_map(next) { Unmappable::NoMap(next) } else { Unmappable::NotMemory(next) })
}

fn record_error(error: RegionError) -> RecordError {
    match error {
        RegionError::Full { list, range, capacity } => RecordError::Full { list, range, capacity },
        RegionError::AbovePaLimit { range } => {
            RecordError::Refused { range, reason: "it ends above the 52-bit physical address space" }
        }
        RegionError::NotReserved { range, .. } => {
            RecordError::Refused { range, reason: "not all of it is reserved" }
        }
        _ => RecordError::Refused { range: error.range(), reason: "memblock refuses it" },
    }
}

impl<const N: usize> PhysicalMemory for MemblockRecord<'_, N> {
    fn first_unmappable(&self, range: PaRange) -> Option<Unmappable> {
        first_unmappable(self.0, range)
    }

    fn overlapping_memory(&self, range: PaRange) -> Option<PaRange> {
        self.0.regions().map(|region| region.range).find(|memory| memory.overlaps(range))
    }

    fn overlapping_reserved(&self, range: PaRange) -> Option<PaRange> {
        self.0.reserved().iter().copied().find(|reserved| reserved.overlaps(range))
    }

    fn add(&mut self, range: PaRange) -> Result<(), RecordError> {
        self.0.add(range).map_err(record_error)
    }

    fn remove(&mut self, range: PaRange) -> Result<(), RecordError> {
        self.0.remove(range).map_err(record_error)
    }

    fn reserve(&mut self, range: PaRange) -> Result<(), RecordError> {
        self.0.reserve(range).map_err(record_error)
    }

    fn release(&mut self, range: PaRange) {
        // Removing what `reserve` added needs no room.
        let _ = self.0.free(range);
    }
}

#[cfg(test)]
mod tests {
    use linmap_vmsa::Pa;

    use super::*;

    fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    #[test]
    fn the_first_address_that_must_not_be_mapped_is_found_within_its_page() {
        let mut memblock = Memblock::<8>::new();
        memblock.add(range(0x1000, 0x9400)).unwrap();
        memblock.add(range(0xb000, 0x2_0000)).unwrap();
        memblock.mark_no_map(range(0xf800, 0x1_1000)).unwrap();
        memblock.mark_no_map(range(0x4_0000, 0x4_1000)).unwrap();
        let record = MemblockRecord(&mut memblock);
        let first = |start, end| record.first_unmappable(range(start, end));
        assert_eq!(first(0x1000, 0x9000), None);
        assert_eq!(first(0, 0x2000), Some(Unmappable::NotMemory(Pa(0))));
        assert_eq!(first(0x9000, 0xa000), Some(Unmappable::NotMemory(Pa(0x9400))));
        assert_eq!(first(0xb000, 0xf000), None);
        assert_eq!(first(0xb000, 0x1_0000), Some(Unmappable::NoMap(Pa(0xf800))));
        assert_eq!(first(0x1_0000, 0x1_1000), Some(Unmappable::NoMap(Pa(0x1_0000))));
        assert_eq!(first(0x1_f000, 0x2_1000), Some(Unmappable::NotMemory(Pa(0x2_0000))));
        // No-map without memory behind it.
        assert_eq!(first(0x4_0000, 0x4_1000), Some(Unmappable::NoMap(Pa(0x4_0000))));
    }

    #[test]
    fn a_full_list_is_an_error_and_an_undo_finds_room() {
        let mut memblock = Memblock::<2>::new();
        let mut record = MemblockRecord(&mut memblock);
        record.add(range(0, 0x8000)).unwrap();
        record.add(range(0x1_0000, 0x2_0000)).unwrap();
        let hole = range(0x1000, 0x2000);
        let full = RecordError::Full { list: "memory", range: hole, capacity: 2 };
        assert_eq!(record.remove(hole), Err(full));
        record.reserve(range(0x3000, 0x4000)).unwrap();
        assert_eq!(record.overlapping_reserved(range(0, 0x8000)), Some(range(0x3000, 0x4000)));
        record.release(range(0x3000, 0x4000));
        assert_eq!(record.overlapping_reserved(range(0, 0x8000)), None);
        assert_eq!(record.overlapping_memory(range(0x1_8000, 0x3_0000)), Some(range(0x1_0000, 0x2_0000)));
    }
}
