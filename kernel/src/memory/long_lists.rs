//! Lists of ranges that are longer than the kernel's own room for them. They lie in memory: in a
//! window of the fixmap until the linear map is there, and then in the linear map.

use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;
use linmap::Layout;
use linmap_memblock::{AllocError, Growth, Memblock, RegionError};
use linmap_table::{Fixmap, Leaves, Mapping};
use linmap_vmsa::{Attributes, Pa, PaRange, Va};

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::layout::{GRANULE, slot};

const PAGE: u64 = GRANULE.bytes();

/// How many regions each of memblock's lists has room for in the kernel. More are in memory.
pub const REGIONS: usize = 256;

/// VA − PA of the linear map, once there is one.
static LINEAR: AtomicU64 = AtomicU64::new(0);

/// The window of the fixmap, and how much of it is in use.
#[derive(Debug)]
pub struct EarlyWindow {
    /// The slots from [`slot::LISTS`] to below this one are mapped.
    end: usize,
}

impl Default for EarlyWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl EarlyWindow {
    /// The window, with nothing in it.
    pub const fn new() -> Self {
        Self { end: slot::LISTS }
    }

    /// Maps `memory`, whole pages of RAM. `None` if the window has no room for it.
    fn map(&mut self, fixmap: &mut Fixmap, memory: PaRange) -> Option<NonNull<u64>> {
        let first = self.end;
        let end = first.checked_add(usize::try_from(memory.len() / PAGE).ok()?)?;
        if end > fixmap.slot_count() || !memory.start.0.is_multiple_of(PAGE) {
            return None;
        }
        let start = NonNull::new(ptr::with_exposed_provenance_mut(fixmap.address(first).0 as usize))?;
        for slot in first..end {
            let frame = Pa(memory.start.0 + (slot - first) as u64 * PAGE);
            // SAFETY: the caller has RAM for lists there, which nothing else refers to.
            unsafe { fixmap.map(&mut ThisCpu, slot, frame, Attributes::KERNEL_DATA) };
        }
        self.end = end;
        Some(start)
    }

    /// Maps `storage` for memblock's lists.
    pub fn ranges(&mut self, fixmap: &mut Fixmap, storage: PaRange) -> Option<&'static mut [PaRange]> {
        let start = self.map(fixmap, storage)?;
        // SAFETY: these pages were just mapped. Memblock found them unused, and the window stays
        // until it reaches them elsewhere. Any bytes are ranges.
        Some(unsafe { range_slice(start, storage.len()) })
    }

    /// Allocates room for `count` mappings and maps it.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn mappings(
        &mut self,
        fixmap: &mut Fixmap,
        memblock: &mut Memblock<REGIONS>,
        count: usize,
    ) -> Result<MappingRoom, AllocError> {
        let len = ((count * size_of::<Mapping>()) as u64).next_multiple_of(PAGE);
        let limit = PaRange::new(Pa(0), memblock.memory_end());
        let start = memblock.alloc(len, PAGE, limit)?;
        let memory = PaRange::new(start, Pa(start.0 + len));
        let none = AllocError::NoSpace { len, align: PAGE, limit, largest: 0 };
        let first = self.map(fixmap, memory).ok_or(none)?;
        // SAFETY: the pages were just allocated and mapped.
        Ok(unsafe { MappingRoom::at(first, memory, count) })
    }

    /// Has memblock reach its lists by the linear map, where they can also grow, and unmaps the
    /// window.
    ///
    /// # Errors
    /// [`RegionError`]: the linear map does not have them.
    pub fn close(
        self,
        fixmap: &mut Fixmap,
        memblock: &mut Memblock<REGIONS>,
        layout: Layout,
    ) -> Result<(), RegionError> {
        LINEAR.store(layout.offset(), Ordering::Relaxed);
        let limit = PaRange::new(Pa(0), memblock.memory_end());
        memblock.move_lists(Growth { limit, reach: reach_linear })?;
        if self.end > slot::LISTS {
            fixmap.clear_all(&mut ThisCpu, slot::LISTS..self.end);
        }
        Ok(())
    }
}

/// Room for lists of mappings in memory of its own.
#[derive(Debug)]
pub struct MappingRoom {
    /// The memory.
    pub memory: PaRange,
    /// The room.
    pub room: &'static mut [Mapping],
}

impl MappingRoom {
    /// Allocates room for `count` mappings once there is a linear map.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn in_linear_map(memblock: &mut Memblock<REGIONS>, count: usize) -> Result<Self, AllocError> {
        let len = (count * size_of::<Mapping>()).div_ceil(size_of::<PaRange>());
        let (memory, room) = alloc_linear(memblock, len)?;
        let first = NonNull::from(room).cast();
        // SAFETY: the memory was just allocated, and there is no other reference to it.
        Ok(unsafe { Self::at(first, memory, count) })
    }

    /// Room for `count` mappings in `memory`, which is mapped from `start` on.
    ///
    /// # Safety
    /// So it is, for as long as the room is used, and nothing else refers to it.
    unsafe fn at(start: NonNull<u64>, memory: PaRange, count: usize) -> Self {
        const { assert!(align_of::<Mapping>() <= align_of::<u64>()) };
        let first = start.cast::<Mapping>();
        let (attributes, leaves) = (Attributes::KERNEL_DATA, Leaves::Pages);
        let unused = Mapping { va: Va(0), pa: Pa(0), len: 0, attributes, leaves };
        for nth in 0..count {
            // SAFETY: there is room for `count` mappings.
            unsafe { first.add(nth).write(unused) };
        }
        // SAFETY: these mappings were just written; the rest is the caller's promise.
        Self { memory, room: unsafe { slice::from_raw_parts_mut(first.as_ptr(), count) } }
    }
}

/// Reaches free memory by the linear map.
pub fn reach_linear(storage: PaRange) -> Option<&'static mut [PaRange]> {
    let linear = |pa: u64| Va(pa.wrapping_add(LINEAR.load(Ordering::Relaxed)));
    let mut pages = (storage.start.0..storage.end.0).step_by(PAGE.min(0x1000) as usize);
    if pages.any(|page| cpu::translate_write(linear(page)).is_err()) {
        return None;
    }
    let start = NonNull::new(ptr::with_exposed_provenance_mut(linear(storage.start.0).0 as usize))?;
    // SAFETY: the MMU lets the kernel write there. Memblock has this memory for its lists, so that
    // nothing else refers to it. Any bytes are ranges.
    Some(unsafe { range_slice(start, storage.len()) })
}

/// # Safety
/// `bytes` bytes from `start` on are mapped for as long as the slice is used, and nothing else
/// refers to them.
unsafe fn range_slice(start: NonNull<u64>, bytes: u64) -> &'static mut [PaRange] {
    let count = bytes as usize / size_of::<PaRange>();
    // SAFETY: the caller's promise. A page is aligned to more than a range.
    unsafe { slice::from_raw_parts_mut(start.cast().as_ptr(), count) }
}

/// As many ranges as there are: a few in the list itself, more in memory.
#[derive(Debug, Default)]
pub struct RangeList {
    own: ArrayVec<PaRange, REGIONS>,
    /// Used if it has room for any.
    lent: &'static mut [PaRange],
}

impl RangeList {
    /// A list with room for `count` ranges, in memory of `memblock` if they are many.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn with_room(count: usize, memblock: &mut Memblock<REGIONS>) -> Result<Self, AllocError> {
        let lent = if count <= REGIONS { &mut [] } else { alloc_linear(memblock, count)?.1 };
        Ok(Self { own: ArrayVec::new(), lent })
    }

    /// Sets the list to `ranges`, as many as it was made for.
    pub fn fill(&mut self, ranges: impl Iterator<Item = PaRange>) {
        if self.lent.is_empty() {
            self.own.clear();
            self.own.extend(ranges.take(REGIONS));
        } else {
            self.lent.iter_mut().zip(ranges).for_each(|(to, range)| *to = range);
        }
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[PaRange] {
        if self.lent.is_empty() { &self.own } else { self.lent }
    }
}

/// Runs `job` with a memblock without memory that has room for as many ranges as `like`, and with
/// `like` itself.
///
/// # Errors
/// That of the job; [`AllocError`] if there is no memory for the lists.
pub fn with_scratch<T, E: From<AllocError>>(
    like: &mut Memblock<REGIONS>,
    job: impl FnOnce(&mut Memblock<REGIONS>, &mut Memblock<REGIONS>) -> Result<T, E>,
) -> Result<T, E> {
    let Some(storage) = like.storage() else {
        return job(&mut Memblock::new(), like);
    };
    let (memory, room) = alloc_linear(like, storage.len() as usize / size_of::<PaRange>())?;
    let done = job(&mut Memblock::new_in(room), like);
    // Memblock only refuses when it needs one more range than it has room for; that stays
    // reserved.
    let _ = like.free(memory);
    done
}

/// Allocates room for `count` ranges, in whole pages, and reaches it by the linear map.
fn alloc_linear(
    memblock: &mut Memblock<REGIONS>,
    count: usize,
) -> Result<(PaRange, &'static mut [PaRange]), AllocError> {
    let len = ((count * size_of::<PaRange>()) as u64).next_multiple_of(PAGE);
    let limit = PaRange::new(Pa(0), memblock.memory_end());
    let start = memblock.alloc(len, PAGE, limit)?;
    let memory = PaRange::new(start, Pa(start.0 + len));
    let none = AllocError::NoSpace { len, align: PAGE, limit, largest: 0 };
    let room = reach_linear(memory).and_then(|room| room.get_mut(..count)).ok_or(none)?;
    Ok((memory, room))
}
