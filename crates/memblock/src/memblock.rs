//! The memory map: which memory exists, which must not be mapped, which is reserved.

use crate::cursor::Cursor;
use crate::range_set::{Difference, Full, RangeSet};
use crate::region_error::{PA_LIMIT, RegionError};
use linmap_vmsa::{Pa, PaRange};

/// All addresses that a region can have.
const ALL: PaRange = PaRange::new(Pa(0), PA_LIMIT);

/// A part of RAM whose bytes have the same flags. Its neighbours have other flags or do not touch
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// Its range.
    pub range: PaRange,
    /// Whether it must not be mapped: the firmware owns it, and even speculative reads are
    /// forbidden (Devicetree Specification, /reserved-memory, `no-map`).
    pub no_map: bool,
}

/// The physical memory and its use: up to `N` ranges of RAM, `N` ranges that must not be mapped,
/// and `N` reserved ranges.
///
/// A byte has three independent flags: *memory* (RAM), *no-map* and *reserved*. An address without
/// RAM can have the other two, which then hold for RAM that is added later. A byte is *free* if it
/// is memory, not no-map and not reserved.
///
/// An empty range changes nothing and is not an error. A change that fails changes nothing.
///
/// Its size is 48 bytes for each of `N`. A `static` is a good place for it: [`Memblock::new`] is
/// all zero there.
///
/// Two memblocks are equal if all bytes have the same flags.
#[derive(Clone, Debug)]
pub struct Memblock<const N: usize> {
    memory: RangeSet<N>,
    no_map: RangeSet<N>,
    pub(crate) reserved: RangeSet<N>,
    pub(crate) cursor: Cursor,
}

impl<const N: usize> PartialEq for Memblock<N> {
    fn eq(&self, other: &Self) -> bool {
        self.memory == other.memory && self.no_map == other.no_map && self.reserved == other.reserved
    }
}

impl<const N: usize> Eq for Memblock<N> {}

impl<const N: usize> Default for Memblock<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Memblock<N> {
    /// A machine without memory.
    pub const fn new() -> Self {
        Self {
            memory: RangeSet::new(),
            no_map: RangeSet::new(),
            reserved: RangeSet::new(),
            cursor: Cursor::NONE,
        }
    }

    /// Adds RAM. Ranges that are RAM already do not change.
    ///
    /// # Errors
    /// [`RegionError::AbovePaLimit`], [`RegionError::Full`].
    pub fn add(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        insert(&mut self.memory, "memory", range)
    }

    /// Removes RAM, for instance above a `mem=` limit. No-map marks and reservations in the range
    /// stay.
    ///
    /// # Errors
    /// [`RegionError::Full`] if the range cuts a hole, which splits a range in two.
    pub fn remove(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        remove(&mut self.memory, "memory", range)
    }

    /// Marks a range that must never be mapped. It is never allocated either.
    ///
    /// # Errors
    /// [`RegionError::AbovePaLimit`], [`RegionError::Full`].
    pub fn mark_no_map(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        insert(&mut self.no_map, "no-map", range)
    }

    /// Reserves a range. Parts of it may be reserved already.
    ///
    /// # Errors
    /// [`RegionError::AbovePaLimit`], [`RegionError::Full`].
    pub fn reserve(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        insert(&mut self.reserved, "reserved", range)
    }

    /// Frees a range that was reserved or allocated, or any part of one.
    ///
    /// # Errors
    /// [`RegionError::NotReserved`] if a part is not reserved; [`RegionError::Full`] if the range
    /// cuts a hole, which splits a range in two.
    pub fn free(&mut self, range: PaRange) -> Result<(), RegionError> {
        if let Some(first_free) = self.reserved.first_missing(range) {
            return Err(RegionError::NotReserved { range, first_free });
        }
        self.cursor = Cursor::NONE;
        remove(&mut self.reserved, "reserved", range)
    }

    /// Removes everything: the result is a machine without memory.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.no_map.clear();
        self.reserved.clear();
        self.cursor = Cursor::NONE;
    }

    /// Returns the RAM in ascending order, each part with its flags.
    pub fn regions(&self) -> impl Iterator<Item = MemoryRegion> {
        let mut from = Pa(0);
        core::iter::from_fn(move || {
            let ram = self.memory.first_ending_above(from)?;
            let start = ram.start.max(from);
            let (end, no_map) = match self.no_map.first_ending_above(start) {
                Some(hole) if hole.start <= start => (hole.end, true),
                Some(hole) => (hole.start, false),
                None => (ram.end, false),
            };
            from = end.min(ram.end);
            Some(MemoryRegion { range: PaRange::new(start, from), no_map })
        })
    }

    /// Returns the reserved ranges in ascending order, with or without RAM.
    pub fn reserved(&self) -> &[PaRange] {
        self.reserved.as_slice()
    }

    /// Returns the free memory inside `limit`, from either end. It includes page 0 if that is free,
    /// although [`Memblock::alloc`] never allocates it.
    pub fn free_ranges(&self, limit: PaRange) -> impl DoubleEndedIterator<Item = PaRange> + Clone {
        Difference::new(&self.memory, [&self.no_map, &self.reserved], limit)
    }

    /// Returns the memory that a linear map may map, from either end: RAM without no-map ranges, in
    /// whole pages of `page` bytes (a power of two).
    pub fn mappable(&self, page: u64) -> impl DoubleEndedIterator<Item = PaRange> + Clone {
        Difference::new(&self.memory, [&self.no_map], ALL)
            .map(move |range| range.align_inward(page))
            .filter(|range| !range.is_empty())
    }

    /// Returns the number of bytes of RAM, no-map ranges included.
    pub fn memory_len(&self) -> u64 {
        // Disjoint ranges below 2^52: their sum is below 2^52 too.
        self.memory.as_slice().iter().map(|range| range.len()).sum()
    }

    /// Returns the first address above all RAM; 0 if there is none.
    pub fn memory_end(&self) -> Pa {
        self.memory.as_slice().last().map_or(Pa(0), |range| range.end)
    }

    /// Returns whether `pa` is RAM.
    pub fn is_memory(&self, pa: Pa) -> bool {
        self.memory.containing(pa).is_some()
    }

    /// Returns whether `pa` must not be mapped, with or without RAM.
    pub fn is_no_map(&self, pa: Pa) -> bool {
        self.no_map.containing(pa).is_some()
    }

    /// Returns whether `pa` is reserved, with or without RAM.
    pub fn is_reserved(&self, pa: Pa) -> bool {
        self.reserved.containing(pa).is_some()
    }

    /// Returns the first range of RAM that overlaps `range`.
    pub(crate) fn overlapping_memory(&self, range: PaRange) -> Option<PaRange> {
        self.memory.first_ending_above(range.start).filter(|ram| ram.overlaps(range))
    }

    /// Shrinks RAM to whole pages of `page` bytes.
    pub(crate) fn align_memory_inward(&mut self, page: u64) {
        self.cursor = Cursor::NONE;
        self.memory.align_inward(page);
    }
}

fn insert<const N: usize>(
    set: &mut RangeSet<N>,
    list: &'static str,
    range: PaRange,
) -> Result<(), RegionError> {
    if range.end > PA_LIMIT {
        return Err(RegionError::AbovePaLimit { range });
    }
    if range.end <= range.start {
        return Ok(());
    }
    match set.insert(range) {
        Ok(_) => Ok(()),
        Err(Full) => Err(RegionError::Full { list, range, capacity: N }),
    }
}

fn remove<const N: usize>(
    set: &mut RangeSet<N>,
    list: &'static str,
    range: PaRange,
) -> Result<(), RegionError> {
    if range.end <= range.start {
        return Ok(());
    }
    set.remove(range).map_err(|Full| RegionError::Full { list, range, capacity: N })
}
