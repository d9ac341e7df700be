//! Taking memory: from the top of a range downwards, the highest place that fits.

use crate::memblock::{Memblock, RegionError};
use crate::range_set::Full;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

/// First address that is ever handed out: the page at 0 would be a null pointer through a map with VA = PA.
const FIRST: Pa = Pa(0x1000);

/// Why memory could not be handed out. Nothing is taken then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AllocError {
    /// No free place is large enough.
    #[error(
        "no {len:#x} free bytes aligned to {align:#x} inside {limit}: the largest free range there has {largest:#x}"
    )]
    NoSpace {
        /// How many bytes were asked for.
        len: u64,
        /// The alignment asked for, in bytes.
        align: u64,
        /// Where they had to lie.
        limit: PaRange,
        /// Length in bytes of the largest free range inside the limit, wherever it begins.
        largest: u64,
    },
    /// The length is zero, or the alignment is not a power of two.
    #[error(
        "cannot hand out {len:#x} bytes aligned to {align:#x}: needs a length above 0 and a power of two"
    )]
    Invalid {
        /// How many bytes were asked for.
        len: u64,
        /// The alignment asked for, in bytes.
        align: u64,
    },
    /// There is a place, but the list of reserved ranges has no room to note it.
    #[error(transparent)]
    Regions(#[from] RegionError),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    len: u64,
    align: u64,
    limit: PaRange,
}

/// Where the last allocation was made. While nothing but equal requests follow, each takes the bytes directly
/// below the one before: everything above was tried for that request and does not fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    request: Request,
    /// Index of the reserved range that starts where the last allocation does.
    index: usize,
    /// Free bytes directly below that range, inside the limit. 0 when the cursor holds nothing.
    room: u64,
}

impl Cursor {
    /// Holds nothing. All zero, so that a memblock in a `static` takes no space in the image.
    pub(crate) const NONE: Self =
        Self { request: Request { len: 0, align: 0, limit: PaRange::new(Pa(0), Pa(0)) }, index: 0, room: 0 };
}

impl<const N: usize> Memblock<N> {
    /// Takes `len` bytes, aligned to `align` (a power of two, in bytes), at the highest address inside `limit`
    /// where they fit. The page at address 0 is never handed out. The bytes are reserved until [`Memblock::free`].
    ///
    /// A row of equal requests is cheap: each but the first takes a fixed handful of instructions until the
    /// free range in use is eaten up.
    ///
    /// # Errors
    /// [`AllocError::NoSpace`], [`AllocError::Invalid`], and [`AllocError::Regions`] with [`RegionError::Full`].
    #[inline]
    pub fn alloc(&mut self, len: u64, align: u64, limit: PaRange) -> Result<Pa, AllocError> {
        let request = Request { len, align, limit };
        // Strictly less: taking the last byte of room may make two reserved ranges one, which is not quick.
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
        let index = self.reserved.insert(range).map_err(|Full| RegionError::Full {
            list: "reserved",
            range,
            capacity: N,
        })?;
        // Had the range merged with one below, that one would end here, where the free range then starts: no room.
        let room = start.0 - floor.0;
        self.cursor = Cursor { request, index, room };
        Ok(start)
    }
}
