//! The host memory in which table frames lie.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;

use linmap_table::OffsetWindow;
use linmap_vmsa::Pa;

/// Room for frames of 64K, and for more of the smaller ones.
pub const BYTES: u64 = 32 << 20;

/// The memory, which stays as long as the test runs.
#[derive(Clone, Copy)]
pub struct Frames {
    memory: NonNull<u8>,
    /// The physical address of the first frame.
    pub first: u64,
}

impl Frames {
    pub fn new() -> Self {
        let layout = Layout::from_size_align(BYTES as usize, 1 << 16).expect("some megabytes");
        // SAFETY: the layout has a size.
        let memory = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        memory.as_ptr().expose_provenance();
        // SAFETY: the memory has this length.
        unsafe { memory.write_bytes(0xa5, BYTES as usize) };
        Self { memory, first: 0 }
    }

    pub fn pointer(self, frame: Pa) -> NonNull<u64> {
        let offset = frame.0.wrapping_sub(self.first);
        assert!(offset < BYTES, "{frame} is not a frame");
        // SAFETY: the frame lies in the memory.
        unsafe { self.memory.add(offset as usize).cast() }
    }

    /// The entries of a table.
    ///
    /// # Safety
    /// Nothing changes them as long as they are used. They lie in a frame.
    pub unsafe fn entries<'t>(self, frame: Pa, count: usize) -> &'t [u64] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.pointer(frame).as_ptr(), count) }
    }

    pub fn window(self) -> OffsetWindow {
        // SAFETY: every frame is in the memory at this offset, and nothing refers to it while a map
        // is built.
        unsafe { OffsetWindow::new((self.memory.addr().get() as u64).wrapping_sub(self.first)) }
    }
}
