//! Which physical memory exists: what a change of a running map asks, and what it reports.

use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

/// The first byte of a range that a map of memory must not map.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unmappable {
    /// There is no memory at this address.
    NotMemory(Pa),
    /// The firmware owns this address and forbids mapping it, with or without memory behind it (DT
    /// spec, /reserved-memory, `no-map`).
    NoMap(Pa),
}

/// Why the record of memory refused a change. The record is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The change needs one range more than a list has room for.
    #[error("no room for {range}: all {capacity} ranges of the {list} list are in use")]
    Full {
        /// The name of the list.
        list: &'static str,
        /// The range of the change.
        range: PaRange,
        /// How many ranges the list can hold.
        capacity: usize,
    },
    /// The record can't express the change.
    #[error("{range} is refused: {reason}")]
    Refused {
        /// The range of the change.
        range: PaRange,
        /// The rule that the range breaks.
        reason: &'static str,
    },
}

/// The record of physical memory: what is memory, what must stay unmapped, what is in use.
///
/// A byte is *memory* or not, *no-map* or not, and *reserved* or not, each independently of the
/// others. A byte is *mappable* when it is memory and not no-map. The kernel's allocator must not
/// hand out a reserved byte.
///
/// Every range passed in consists of whole pages of the map and is not empty. A change that fails
/// changes nothing.
///
/// A kernel whose memory never changes implements only
/// [`first_unmappable`](Self::first_unmappable). The other functions add and remove memory.
/// Implement all of them or none: the provided bodies refuse.
///
/// ```
/// use linmap_table::{PhysicalMemory, RecordError, Unmappable};
/// use linmap_vmsa::{Pa, PaRange};
///
/// /// A kernel with one range of memory.
/// struct Memory(PaRange);
///
/// impl PhysicalMemory for Memory {
///     fn first_unmappable(&self, range: PaRange) -> Option<Unmappable> {
///         if !self.0.contains(range.start) {
///             return Some(Unmappable::NotMemory(range.start));
///         }
///         (range.end > self.0.end).then_some(Unmappable::NotMemory(self.0.end))
///     }
/// }
///
/// let ram = PaRange::new(Pa(0x4000_0000), Pa(0x8000_0000));
/// let more = PaRange::new(Pa(0x8000_0000), Pa(0x8000_1000));
/// let mut memory = Memory(ram);
/// assert_eq!(memory.first_unmappable(more), Some(Unmappable::NotMemory(Pa(0x8000_0000))));
/// assert!(matches!(memory.add(more), Err(RecordError::Refused { .. })));
/// ```
pub trait PhysicalMemory {
    /// Returns the lowest byte in `range` that is not mappable, or `None` when all of it is.
    fn first_unmappable(&self, range: PaRange) -> Option<Unmappable>;

    /// Returns the lowest range of memory that overlaps `range`, whole, or `None`.
    fn overlapping_memory(&self, range: PaRange) -> Option<PaRange> {
        let _ = range;
        None
    }

    /// Returns the lowest reserved range that overlaps `range`, whole, or `None`.
    fn overlapping_reserved(&self, range: PaRange) -> Option<PaRange> {
        let _ = range;
        None
    }

    /// Records that there is memory at `range`. It may be allocated from now on, unless it is
    /// reserved.
    ///
    /// A call that undoes a [`remove`](Self::remove) of the same range must succeed.
    ///
    /// # Errors
    /// [`RecordError`].
    fn add(&mut self, range: PaRange) -> Result<(), RecordError> {
        Err(never_changes(range))
    }

    /// Records that there is no memory at `range`. It must not be allocated from now on.
    ///
    /// A call that undoes an [`add`](Self::add) of the same range must succeed.
    ///
    /// # Errors
    /// [`RecordError`].
    fn remove(&mut self, range: PaRange) -> Result<(), RecordError> {
        Err(never_changes(range))
    }

    /// Reserves `range`, which is entirely unreserved. There may be no memory at it yet.
    ///
    /// # Errors
    /// [`RecordError`].
    fn reserve(&mut self, range: PaRange) -> Result<(), RecordError> {
        Err(never_changes(range))
    }

    /// Ends the reservation that [`reserve`](Self::reserve) made of the same range.
    fn release(&mut self, range: PaRange) {
        let _ = range;
    }
}

/// The error of a record without hotplug.
fn never_changes(range: PaRange) -> RecordError {
    RecordError::Refused { range, reason: "the kernel's memory never changes" }
}

impl<M: PhysicalMemory + ?Sized> PhysicalMemory for &mut M {
    fn first_unmappable(&self, range: PaRange) -> Option<Unmappable> {
        (**self).first_unmappable(range)
    }

    fn overlapping_memory(&self, range: PaRange) -> Option<PaRange> {
        (**self).overlapping_memory(range)
    }

    fn overlapping_reserved(&self, range: PaRange) -> Option<PaRange> {
        (**self).overlapping_reserved(range)
    }

    fn add(&mut self, range: PaRange) -> Result<(), RecordError> {
        (**self).add(range)
    }

    fn remove(&mut self, range: PaRange) -> Result<(), RecordError> {
        (**self).remove(range)
    }

    fn reserve(&mut self, range: PaRange) -> Result<(), RecordError> {
        (**self).reserve(range)
    }

    fn release(&mut self, range: PaRange) {
        (**self).release(range);
    }
}
