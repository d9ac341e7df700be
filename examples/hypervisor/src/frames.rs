//! Frames for the tables of stage 2, which come and go.

use linmap_table::{BumpFrames, FrameSource, OutOfFrames};
use linmap_vmsa::Pa;

/// A pool: frames that came back, then those that were never used.
pub struct Pool {
    fresh: BumpFrames,
    /// The frame that came back last, or 0. Its first word is the one before it.
    free: u64,
    /// How many frames are tables.
    in_use: usize,
}

impl Pool {
    /// Returns a pool of these frames.
    ///
    /// # Safety
    /// They are mapped where they are.
    pub const unsafe fn new(fresh: BumpFrames) -> Self {
        Self { fresh, free: 0, in_use: 0 }
    }

    /// How many frames were handed out and have not come back.
    pub fn in_use(&self) -> usize {
        self.in_use
    }
}

// SAFETY: a frame is in one of the two places until it is handed out.
unsafe impl FrameSource for Pool {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let frame = match self.free {
            0 => self.fresh.alloc()?,
            free => {
                // SAFETY: it came back and was not handed out since; `free` wrote the word.
                self.free = unsafe { (free as *const u64).read() };
                Pa(free)
            }
        };
        self.in_use += 1;
        Ok(frame)
    }

    fn alloc_consecutive(&mut self, bytes: u64) -> Result<Pa, OutOfFrames> {
        let first = self.fresh.alloc_consecutive(bytes)?;
        self.in_use += (bytes / crate::pages::PAGE) as usize;
        Ok(first)
    }

    unsafe fn free(&mut self, frame: Pa) {
        // SAFETY: by the caller's promise nothing else uses it.
        unsafe { (frame.0 as *mut u64).write(self.free) };
        self.free = frame.0;
        self.in_use -= 1;
    }
}
