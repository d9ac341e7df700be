//! The memory map: which memory exists, which must not be mapped, which is reserved.

use crate::cursor::Cursor;
use crate::growth::{Growth, LISTS, place, storage_bytes};
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
/// and `N` reserved ranges; more after [`Memblock::allow_growth`].
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
#[derive(Debug)]
pub struct Memblock<const N: usize> {
    memory: RangeSet<N>,
    no_map: RangeSet<N>,
    pub(crate) reserved: RangeSet<N>,
    pub(crate) cursor: Cursor,
    growth: Option<Growth>,
    /// The reserved memory that the lists are in; empty as long as they have not grown.
    storage: PaRange,
}

/// One of the three lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    Memory,
    NoMap,
    Reserved,
}

impl List {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::NoMap => "no-map",
            Self::Reserved => "reserved",
        }
    }
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
            growth: None,
            storage: PaRange::new(Pa(0), Pa(0)),
        }
    }

    /// Lets the lists grow from now on. When a change finds a list full, all three move to storage
    /// of twice their length: the highest free memory inside the limit of `growth`. The storage is
    /// reserved; the storage that it replaces is free again.
    ///
    /// Reserve everything that is in use before, or leave it out of the limit. A list that can't
    /// grow for want of memory is [`RegionError::NoStorage`].
    pub fn allow_growth(&mut self, growth: Growth) {
        self.growth = Some(growth);
    }

    /// Moves lists that have grown to the place where `growth` reaches their storage, and lets all
    /// lists grow from now on: see [`allow_growth`](Self::allow_growth). The storage stays the
    /// same memory; from then on, its former address is not used.
    ///
    /// # Errors
    /// [`RegionError::NoStorage`]: `growth` does not reach the storage. Nothing is changed.
    pub fn move_lists(&mut self, growth: Growth) -> Result<(), RegionError> {
        if !self.storage.is_empty() {
            let storage = self.storage;
            let none = RegionError::NoStorage {
                list: List::Memory.name(),
                range: storage,
                capacity: self.memory.capacity(),
                bytes: storage.len(),
                limit: growth.limit,
            };
            let room = (growth.reach)(storage).ok_or(none)?;
            if room.len() / LISTS != self.memory.capacity() {
                return Err(none);
            }
            self.split_room(room);
        }
        self.growth = Some(growth);
        Ok(())
    }

    /// Returns a machine without memory, whose three lists share `room`. They can't grow.
    pub fn new_in(room: &'static mut [PaRange]) -> Self {
        let mut memblock = Self::new();
        memblock.split_room(room);
        memblock
    }

    /// Moves empty lists to `room`, which is reached at `storage`, and reserves that.
    pub(crate) fn lie_in(&mut self, storage: PaRange, room: &'static mut [PaRange]) -> bool {
        self.split_room(room);
        self.storage = storage;
        self.replace_reservation(PaRange::default(), storage).is_ok()
    }

    /// Moves all lists to `room`, a third each.
    fn split_room(&mut self, room: &'static mut [PaRange]) {
        let each = room.len() / LISTS;
        let (memory, room) = room.split_at_mut(each);
        let (no_map, reserved) = room.split_at_mut(each);
        self.memory.grow(memory);
        self.no_map.grow(no_map);
        self.reserved.grow(reserved);
        self.cursor = Cursor::NONE;
    }

    /// Returns a copy, which can't grow.
    ///
    /// # Errors
    /// [`RegionError::Full`]: a list has grown and has more than `N` ranges.
    pub fn copy(&self) -> Result<Self, RegionError> {
        let mut copy = Self::new();
        copy.copy_from(self)?;
        Ok(copy)
    }

    /// Undoes all allocations and reservations since `before` was copied from this map. Lists that
    /// have grown since then stay where they are.
    pub fn restore(&mut self, before: &Self) {
        let storage = self.storage;
        // Lists never get shorter, and longer ones have room for their own reservation.
        let restored = self.copy_from(before);
        debug_assert!(restored.is_ok(), "a copy of another map");
        if before.storage != storage {
            let replaced = self.replace_reservation(before.storage, storage);
            debug_assert!(replaced.is_ok(), "longer lists have room");
            self.storage = storage;
        }
    }

    /// Returns the reserved memory that the lists are in, if they have grown.
    pub fn storage(&self) -> Option<PaRange> {
        (!self.storage.is_empty()).then_some(self.storage)
    }

    fn copy_from(&mut self, other: &Self) -> Result<(), RegionError> {
        for list in [List::Memory, List::NoMap, List::Reserved] {
            let capacity = self.list(list).capacity();
            if let Some(&range) = other.list(list).as_slice().get(capacity) {
                return Err(RegionError::Full { list: list.name(), range, capacity });
            }
        }
        let copied = self
            .memory
            .copy_from(&other.memory)
            .and_then(|()| self.no_map.copy_from(&other.no_map))
            .and_then(|()| self.reserved.copy_from(&other.reserved));
        debug_assert!(copied.is_ok(), "the lengths were compared");
        self.storage = other.storage;
        self.cursor = Cursor::NONE;
        Ok(())
    }

    /// Adds RAM. Ranges that are RAM already do not change.
    ///
    /// # Errors
    /// [`RegionError::AbovePaLimit`], [`RegionError::Full`].
    pub fn add(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        self.insert_checked(List::Memory, range)
    }

    /// Removes RAM, for instance above a `mem=` limit. No-map marks and reservations in the range
    /// stay.
    ///
    /// # Errors
    /// [`RegionError::Full`] if the range cuts a hole, which splits a range in two;
    /// [`RegionError::HoldsLists`].
    pub fn remove(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.check_lists_stay(range)?;
        self.cursor = Cursor::NONE;
        self.remove_from(List::Memory, range)
    }

    /// Marks a range that must never be mapped. It is never allocated either.
    ///
    /// # Errors
    /// [`RegionError::AbovePaLimit`], [`RegionError::Full`].
    pub fn mark_no_map(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.check_lists_stay(range)?;
        self.cursor = Cursor::NONE;
        self.insert_checked(List::NoMap, range)
    }

    /// Reserves a range. Parts of it may be reserved already.
    ///
    /// # Errors
    /// [`RegionError::AbovePaLimit`], [`RegionError::Full`].
    pub fn reserve(&mut self, range: PaRange) -> Result<(), RegionError> {
        self.cursor = Cursor::NONE;
        self.insert_checked(List::Reserved, range)
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
        self.check_lists_stay(range)?;
        self.cursor = Cursor::NONE;
        self.remove_from(List::Reserved, range)
    }

    /// Removes everything: the result is a machine without memory. Lists that have grown have
    /// their first capacity again, and grow no more: what is in use has to be reserved first.
    pub fn clear(&mut self) {
        let grown = !self.storage.is_empty();
        for list in [&mut self.memory, &mut self.no_map, &mut self.reserved] {
            if grown { list.shrink() } else { list.clear() }
        }
        self.growth = None;
        self.storage = PaRange::default();
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

    fn list(&self, list: List) -> &RangeSet<N> {
        match list {
            List::Memory => &self.memory,
            List::NoMap => &self.no_map,
            List::Reserved => &self.reserved,
        }
    }

    fn list_mut(&mut self, list: List) -> &mut RangeSet<N> {
        match list {
            List::Memory => &mut self.memory,
            List::NoMap => &mut self.no_map,
            List::Reserved => &mut self.reserved,
        }
    }

    fn insert_checked(&mut self, list: List, range: PaRange) -> Result<(), RegionError> {
        if range.end > PA_LIMIT {
            return Err(RegionError::AbovePaLimit { range });
        }
        if range.end <= range.start {
            return Ok(());
        }
        self.with_room(list, range, |set| set.insert(range).map(|_| ()))
    }

    fn remove_from(&mut self, list: List, range: PaRange) -> Result<(), RegionError> {
        if range.end <= range.start {
            return Ok(());
        }
        self.with_room(list, range, |set| set.remove(range))
    }

    /// Makes `change`, which concerns `range`, with longer lists if the list is full.
    #[inline]
    fn with_room(
        &mut self,
        list: List,
        range: PaRange,
        change: impl Fn(&mut RangeSet<N>) -> Result<(), Full>,
    ) -> Result<(), RegionError> {
        while let Err(Full) = change(self.list_mut(list)) {
            self.grow(list, range)?;
        }
        Ok(())
    }

    fn full(&self, list: List, range: PaRange) -> RegionError {
        RegionError::Full { list: list.name(), range, capacity: self.list(list).capacity() }
    }

    /// Moves the lists to longer storage outside `range`, for which `list` has no room.
    #[cold]
    pub(crate) fn grow(&mut self, list: List, range: PaRange) -> Result<(), RegionError> {
        let full = self.full(list, range);
        let Growth { limit, reach } = self.growth.ok_or(full)?;
        let capacity = self.list(list).capacity();
        let bytes = storage_bytes(capacity);
        let none = RegionError::NoStorage { list: list.name(), range, capacity, bytes, limit };
        let storage = place(self.free_ranges(limit).rev(), bytes, range).ok_or(none)?;
        let room = reach(storage).ok_or(none)?;
        // One range for the new storage, one for a hole where the old one is, one for the change.
        if room.len() / LISTS < capacity + 3 {
            return Err(none);
        }
        self.split_room(room);
        let before = core::mem::replace(&mut self.storage, storage);
        self.replace_reservation(before, storage).map_err(|Full| full)
    }

    fn replace_reservation(&mut self, before: PaRange, now: PaRange) -> Result<(), Full> {
        if !before.is_empty() {
            self.reserved.remove(before)?;
        }
        if !now.is_empty() {
            self.reserved.insert(now)?;
        }
        Ok(())
    }

    /// Refuses to give away the memory that the lists are in.
    fn check_lists_stay(&self, range: PaRange) -> Result<(), RegionError> {
        if self.storage.overlaps(range) {
            return Err(RegionError::HoldsLists { range, storage: self.storage });
        }
        Ok(())
    }
}
