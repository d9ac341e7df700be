//! Table frames from memblock.

use linmap_memblock::{AllocError, Memblock};
use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::{Geometry, Pa, PaRange};

/// Memblock as a source of table frames: one granule each, from the top of memory down.
///
/// ```
/// use linmap::{MemblockFrames, MemblockRecord};
/// use linmap_memblock::Memblock;
/// use linmap_table::{FrameSource, PhysicalMemory};
/// use linmap_vmsa::{Geometry, Pa, PaRange};
///
/// let ram = PaRange::new(Pa(0x4000_0000), Pa(0x8000_0000));
/// let mut memblock = Memblock::<16>::new();
/// memblock.add(ram)?;
/// // SAFETY: nothing uses the memory, which this example has by name alone.
/// let mut frames = unsafe { MemblockFrames::new(&mut memblock, Geometry::K4_48) };
/// assert_eq!(frames.alloc()?, Pa(0x7fff_f000), "from the top");
/// assert_eq!(MemblockRecord(&mut memblock).first_unmappable(ram), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MemblockFrames<'m, const N: usize> {
    memblock: &'m mut Memblock<N>,
    bytes: u64,
    /// All of memory.
    limit: PaRange,
}

impl<'m, const N: usize> MemblockFrames<'m, N> {
    /// Returns a source of frames for tables of `geometry`, anywhere in `memblock`.
    ///
    /// # Safety
    /// Nothing uses memory that `memblock` has free, and the linear map or whoever uses the frames
    /// may access it.
    #[inline]
    pub unsafe fn new(memblock: &'m mut Memblock<N>, geometry: Geometry) -> Self {
        let limit = PaRange::new(Pa(0), memblock.memory_end());
        Self { memblock, bytes: geometry.page_bytes(), limit }
    }
}

// SAFETY: memblock reserves what it hands out, aligned as asked, and never hands out frame 0.
unsafe impl<const N: usize> FrameSource for MemblockFrames<'_, N> {
    // The builders call it once a table: a call would cost as much as what it does.
    #[inline(always)]
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        self.memblock
            .alloc(self.bytes, self.bytes, self.limit)
            .map_err(|error| out_of_frames(self.bytes, error))
    }

    fn alloc_many(&mut self, frames: &mut [Pa]) -> usize {
        if let Ok(first) = self.memblock.alloc(self.bytes * frames.len() as u64, self.bytes, self.limit) {
            // The lowest address is in the last element: frames are handed out from the top down.
            for (nth, frame) in frames.iter_mut().rev().enumerate() {
                *frame = Pa(first.0 + self.bytes * nth as u64);
            }
            return frames.len();
        }
        for (count, frame) in frames.iter_mut().enumerate() {
            let Ok(free) = self.alloc() else { return count };
            *frame = free;
        }
        frames.len()
    }

    fn alloc_consecutive(&mut self, bytes: u64) -> Result<Pa, OutOfFrames> {
        self.memblock.alloc(bytes, bytes, self.limit).map_err(|error| out_of_frames(bytes, error))
    }

    unsafe fn free(&mut self, frame: Pa) {
        let range = PaRange::new(frame, Pa(frame.0 + self.bytes));
        // Memblock refuses a frame that it did not hand out, and one whose return needs one more
        // range than it has room for. Such a frame stays reserved: lost, and harmless.
        let _ = self.memblock.free(range);
    }
}

fn out_of_frames(wanted: u64, error: AllocError) -> OutOfFrames {
    let largest_free = match error {
        AllocError::NoSpace { largest, .. } => largest,
        _ => 0,
    };
    OutOfFrames { wanted, largest_free }
}
