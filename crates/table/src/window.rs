//! How a table frame is reached: the address at which the CPU reads and writes it.

use core::ptr::{self, NonNull};

use linmap_vmsa::{Level, Pa};

/// A way to reach table frames.
///
/// One table at each level is open at a time, which is what a walk down a tree needs and what one
/// fixmap slot a level can give.
///
/// # Safety
/// The pointer that [`open`](Self::open) returns must be valid for reads and writes of one granule,
/// aligned to it and to nothing else that is live, until the same level is closed or opened again;
/// the same frame must always be reached as the same memory.
pub unsafe trait TableWindow {
    /// Makes the table in frame `table`, used at `level`, reachable.
    fn open(&mut self, level: Level, table: Pa) -> NonNull<u64>;

    /// Ends the use of what was opened at `level`.
    fn close(&mut self, level: Level);
}

/// Table frames that all lie at one offset from their physical address: through an identity map
/// (offset 0), the linear map, or a stretch of host memory that stands for RAM.
#[derive(Clone, Copy, Debug)]
pub struct OffsetWindow {
    offset: u64,
}

impl OffsetWindow {
    /// The window in which the frame at PA p is reached at the address p + `offset` (wrapping).
    ///
    /// # Safety
    /// For as long as the window is used, every frame that is opened through it must be mapped
    /// there, readable and, where it is written to, writable; its provenance must have been
    /// exposed; and nothing else may access it through a Rust reference.
    pub const unsafe fn new(offset: u64) -> Self {
        Self { offset }
    }
}

// SAFETY: by the contract of `new` the frame is mapped at this address and nothing else refers to
// it; the offset is the same for every call, so a frame is always the same memory.
unsafe impl TableWindow for OffsetWindow {
    #[inline]
    fn open(&mut self, _level: Level, table: Pa) -> NonNull<u64> {
        let address = table.0.wrapping_add(self.offset) as usize;
        // SAFETY: a table frame is never at address 0: frame 0 is not handed out (through an
        // identity map it would be the null pointer), and through the linear map or on a host no
        // frame is mapped there.
        unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) }
    }

    #[inline]
    fn close(&mut self, _level: Level) {}
}
