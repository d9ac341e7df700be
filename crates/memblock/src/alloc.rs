//! Allocating memory: the highest place in a range that fits.

use crate::cursor::{Cursor, Request};
use crate::memblock::{List, Memblock};
use crate::range_set::Full;
use crate::region_error::RegionError;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

/// The first address that is allocated. The page at 0 would be a null pointer through a map with
/// VA = PA.
const FIRST: Pa = Pa(0x1000);

/// Why memory cannot be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AllocError {
    /// No free range is large enough.
    #[error(
        "no {len:#x} free bytes aligned to {align:#x} inside {limit}: the largest free range there \
         has {largest:#x}"
    )]
    NoSpace {
        /// The requested length in bytes.
        len: u64,
        /// The requested alignment in bytes.
        align: u64,
        /// The requested range.
        limit: PaRange,
        /// Length in bytes of the largest free range inside the limit, with any alignment.
        largest: u64,
    },
    /// The length is 0, or the alignment is not a power of two.
    #[error(
        "cannot allocate {len:#x} bytes aligned to {align:#x}: the length must not be 0, the \
         alignment a power of two"
    )]
    Invalid {
        /// The requested length in bytes.
        len: u64,
        /// The requested alignment in bytes.
        align: u64,
    },
    /// The list of reserved ranges is full and can't grow.
    #[error(transparent)]
    Regions(#[from] RegionError),
}

impl<const N: usize> Memblock<N> {
    /// Allocates `len` bytes, aligned to `align` (a power of two, in bytes), at the highest address
    /// inside `limit` where they fit. The page at address 0 is never allocated. The bytes are
    /// reserved until [`Memblock::free`].
    ///
    /// Equal requests in a row are cheap: each but the first takes a few instructions until the
    /// free range is used up.
    ///
    /// # Errors
    /// [`AllocError::NoSpace`], [`AllocError::Invalid`], and [`AllocError::Regions`] with
    /// [`RegionError::Full`] or [`RegionError::NoStorage`]. Nothing is allocated.
    #[inline]
    pub fn alloc(&mut self, len: u64, align: u64, limit: PaRange) -> Result<Pa, AllocError> {
        let request = Request { len, align, limit };
        // Strictly less: using up the free range may merge two reserved ranges, which the fast path
        // cannot do.
        if len < self.cursor.room
            && request == self.cursor.request
            && let Some(range) = self.reserved.get_mut(self.cursor.index)
            && let Some(start) = range.start.0.checked_sub(len)
            && start & align.wrapping_sub(1) == 0
        {
            range.start = Pa(start);
            self.cursor.room -= len;
            return Ok(Pa(start));
        }
        self.alloc_searching(request)
    }

    #[cold]
    #[inline(never)]
    fn alloc_searching(&mut self, request: Request) -> Result<Pa, AllocError> {
        let Request { len, align, limit } = request;
        if len == 0 || !align.is_power_of_two() {
            return Err(AllocError::Invalid { len, align });
        }
        let mut largest = 0;
        let mut found = None;
        for free in self.free_ranges(limit).rev() {
            let free = PaRange::new(free.start.max(FIRST), free.end);
            largest = largest.max(free.len());
            if let Some(highest) = free.end.0.checked_sub(len)
                && highest & !(align - 1) >= free.start.0
            {
                found = Some((Pa(highest & !(align - 1)), free.start));
                break;
            }
        }
        let Some((start, floor)) = found else {
            return Err(AllocError::NoSpace { len, align, limit, largest });
        };
        // `len` bytes from `start` end inside a free range, so the end does not wrap.
        let range = PaRange::new(start, Pa(start.0 + len));
        let index = match self.reserved.insert(range) {
            Ok(index) => index,
            Err(Full) => {
                self.grow(List::Reserved, range)?;
                // The longer list may lie in the same free range, right below.
                return self.alloc_searching(request);
            }
        };
        // If the range was merged with the one below, the free range began at its start: room is 0.
        let room = start.0 - floor.0;
        self.cursor = Cursor { request, index, room };
        Ok(start)
    }
}
