//! The memory map itself: what is RAM, what must not be mapped, what is taken.

use crate::alloc::Cursor;
use crate::range_set::{Difference, Full, RangeSet};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

/// Where every region must end at the latest: physical addresses have at most 52 bits in VMSAv8-64 (FEAT_LPA,
/// FEAT_LPA2).
pub const PA_LIMIT: Pa = Pa(1 << 52);

/// Every address that a region can hold.
const ALL: PaRange = PaRange::new(Pa(0), PA_LIMIT);

/// Why the memory map did not take a change. The map is as it was before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RegionError {
    /// The change needs one range more than the list has room for.
    #[error("no room for {range}: all {capacity} ranges of the {list} list are in use")]
    Full {
        /// The list that is full: `memory`, `no-map` or `reserved`.
        list: &'static str,
        /// The range that was to be added, removed or freed.
        range: PaRange,
        /// How many ranges the list can hold.
        capacity: usize,
    },
    /// The range ends above [`PA_LIMIT`].
    #[error("{range} ends above {PA_LIMIT}, the end of the 52-bit physical address space")]
    AbovePaLimit {
        /// The refused range.
        range: PaRange,
    },
    /// A range was freed that is not wholly reserved: it was freed before, or never taken.
    #[error("cannot free {range}: {first_free} is not reserved")]
    NotReserved {
        /// The range that was to be freed.
        range: PaRange,
        /// The lowest address in it that is free already.
        first_free: Pa,
    },
}

/// A part of RAM whose bytes all have the same flags; its neighbours differ from it or do not touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// Where it lies.
    pub range: PaRange,
    /// Whether it must not be mapped: the firmware owns it, and even a speculative read is forbidden
    /// (DT spec, /reserved-memory, `no-map`).
    pub no_map: bool,
}

/// What physical memory there is and which of it is taken: up to `N` ranges of RAM, `N` that must not be mapped,
/// and `N` that are reserved.
///
/// A byte is *memory* (RAM) or not, *no-map* or not, *reserved* or not, each on its own: a mark set on addresses
/// without RAM is kept, and holds for RAM that is added there later. A byte is *free* when it is memory, not
/// no-map and not reserved.
///
/// Empty ranges are no error and change nothing. A change that fails changes nothing.
///
/// It is large (48 bytes for each of `N`), so keep it in a `static`; [`Memblock::new`] is all zero bits there.
///
/// Two memblocks are equal when they say the same of every byte.
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

    /// Adds RAM; RAM that is known already stays as it is.
    ///
    /// # Errors
    /// [`RegionError::AbovePaLimit`], [`RegionError::Full`].
    pub fn add(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        insert(&mut self.memory, "memory", range)
    }

    /// Takes RAM away, for instance what lies above a `mem=` limit. Marks and reservations in the range stay.
    ///
    /// # Errors
    /// [`RegionError::Full`] when the range cuts a hole and both remains need room.
    pub fn remove(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        remove(&mut self.memory, "memory", range)
    }

    /// Marks a range that must never be mapped. It is not handed out either.
    ///
    /// # Errors
    /// [`RegionError::AbovePaLimit`], [`RegionError::Full`].
    pub fn mark_no_map(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        insert(&mut self.no_map, "no-map", range)
    }

    /// Takes a range, whether or not some of it is taken already.
    ///
    /// # Errors
    /// [`RegionError::AbovePaLimit`], [`RegionError::Full`].
    pub fn reserve(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        insert(&mut self.reserved, "reserved", range)
    }

    /// Gives back a range that was reserved or allocated; any part of what was taken may be given back.
    ///
    /// # Errors
    /// [`RegionError::NotReserved`] when some of it is not reserved, [`RegionError::Full`] when the range leaves a
    /// hole between two reserved ranges and there is room for one only.
    pub fn free(&mut self, range: PaRange) -> Result<(), RegionError> {
        if let Some(first_free) = self.reserved.first_missing(range) {
            return Err(RegionError::NotReserved { range, first_free });
        }
        self.cursor = Cursor::NONE;
        remove(&mut self.reserved, "reserved", range)
    }

    /// Forgets everything: a machine without memory again.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.no_map.clear();
        self.reserved.clear();
        self.cursor = Cursor::NONE;
    }

    /// RAM in ascending order, each part with its flags.
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

    /// Reserved ranges in ascending order, with or without RAM behind them.
    pub fn reserved(&self) -> &[PaRange] {
        self.reserved.as_slice()
    }

    /// Free memory inside `limit`, from either end. Page 0 is among it if it is free, although
    /// [`Memblock::alloc`] never hands it out.
    pub fn free_ranges(&self, limit: PaRange) -> impl DoubleEndedIterator<Item = PaRange> + Clone {
        Difference::new(&self.memory, [&self.no_map, &self.reserved], limit)
    }

    /// What a linear map maps: RAM without no-map ranges, in whole pages of `page` bytes (a power of two), from
    /// either end.
    pub fn mapped(&self, page: u64) -> impl DoubleEndedIterator<Item = PaRange> + Clone {
        Difference::new(&self.memory, [&self.no_map], ALL)
            .map(move |range| range.align_inward(page))
            .filter(|range| !range.is_empty())
    }

    /// How many bytes of RAM there are, no-map ranges included.
    pub fn memory_len(&self) -> u64 {
        // Disjoint ranges below 2^52: their sum is below 2^52 too.
        self.memory.as_slice().iter().map(|range| range.len()).sum()
    }

    /// First address above all RAM; 0 when there is none.
    pub fn memory_end(&self) -> Pa {
        self.memory.as_slice().last().map_or(Pa(0), |range| range.end)
    }

    /// Whether there is RAM at `pa`.
    pub fn is_memory(&self, pa: Pa) -> bool {
        self.memory.containing(pa).is_some()
    }

    /// Whether `pa` must not be mapped, with or without RAM behind it.
    pub fn is_no_map(&self, pa: Pa) -> bool {
        self.no_map.containing(pa).is_some()
    }

    /// Whether `pa` is reserved, with or without RAM behind it.
    pub fn is_reserved(&self, pa: Pa) -> bool {
        self.reserved.containing(pa).is_some()
    }

    /// RAM known so far that `range` overlaps, if any.
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
