//! Windows: the addresses at which the CPU reads and writes table frames.

use core::ptr::{self, NonNull};

use linmap_vmsa::{Level, Pa};

/// A way to reach table frames.
///
/// One table at each level is open at a time: enough for a walk down a tree, and what one fixmap
/// slot for each level can provide.
///
/// # Safety
/// For a frame that it reaches, the pointer that [`open`](Self::open) returns is valid for reads and
/// writes of one granule and aligned to it, until the same level is closed or opened again. No Rust
/// reference aliases it. The same frame is always the same memory.
pub unsafe trait TableWindow {
    /// Makes the table in frame `table`, used at `level`, reachable.
    ///
    /// # Safety
    /// The window reaches the frame, by the promise of whoever made the window.
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64>;

    /// Ends the use of the table opened at `level`.
    fn close(&mut self, level: Level);
}

/// Table frames at one offset from their physical address: in an identity map (offset 0), in the
/// linear map, or in host memory that stands for RAM.
#[derive(Clone, Copy, Debug)]
pub struct OffsetWindow {
    offset: u64,
}

impl OffsetWindow {
    /// The window in which the frame at PA p is reached at the address p + `offset` (wrapping).
    ///
    /// # Safety
    /// While the window is used, every frame that is opened through it is mapped there, readable,
    /// and writable if it is written to. Its provenance was exposed. Nothing else accesses it
    /// through a Rust reference.
    pub const unsafe fn new(offset: u64) -> Self {
        Self { offset }
    }
}

// SAFETY: by the contract of `new` the frame is mapped at this address and nothing else refers to
// it; the offset is the same for every call, so a frame is always the same memory.
unsafe impl TableWindow for OffsetWindow {
    #[inline]
    unsafe fn open(&mut self, _level: Level, table: Pa) -> NonNull<u64> {
        let address = table.0.wrapping_add(self.offset) as usize;
        // SAFETY: a table frame is never at address 0: frame 0 is not handed out (through an
        // identity map it would be the null pointer), and through the linear map or on a host no
        // frame is mapped there.
        unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) }
    }

    #[inline]
    fn close(&mut self, _level: Level) {}
}
