//! The frames of processes and of their tables, each with the number of its holders.

use linmap_cpu::El1And0;
use linmap_table::cpu::{Cpu as _, Dsb};
use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::Pa;

use crate::lock::Lock;
use crate::machine::{OFFSET, linked};

/// As many as the linker script sets aside.
const COUNT: usize = 512;

static HOLDERS: Lock<[u8; COUNT]> = Lock::new([0; COUNT]);

/// All frames.
pub struct Frames;

impl Frames {
    /// Returns a frame of zeros with one holder: the lowest that is free, so that a frame that was
    /// just freed is used again at once.
    pub fn take() -> Result<Pa, OutOfFrames> {
        let free = HOLDERS.with(|holders| {
            let free = holders.iter().position(|holders| *holders == 0)?;
            holders[free] = 1;
            Some(Pa(linked::frames().start.0 + 4096 * free as u64))
        });
        let frame = free.ok_or(OutOfFrames { wanted: 4096, largest_free: 0 })?;
        // SAFETY: nobody else holds the frame.
        unsafe { ((frame.0 + OFFSET) as *mut u8).write_bytes(0, 4096) };
        // A CPU that finds the frame in a leaf finds the zeros, too (DMB ISHST).
        El1And0.dsb(Dsb::Ishst);
        Ok(frame)
    }

    /// Returns a copy of `frame`, which nobody writes.
    pub fn copy(frame: Pa) -> Result<Pa, OutOfFrames> {
        let copy = Self::take()?;
        let (from, to) = ((frame.0 + OFFSET) as *const u8, (copy.0 + OFFSET) as *mut u8);
        // SAFETY: two frames, and nobody else holds the copy.
        unsafe { to.copy_from_nonoverlapping(from, 4096) };
        Ok(copy)
    }

    /// How many hold `frame`.
    pub fn holders(frame: Pa) -> u8 {
        HOLDERS.with(|holders| holders[index(frame)])
    }

    /// One more holds `frame`.
    pub fn share(frame: Pa) {
        HOLDERS.with(|holders| holders[index(frame)] += 1);
    }

    /// One less holds `frame`. The last one frees it.
    pub fn release(frame: Pa) {
        HOLDERS.with(|holders| holders[index(frame)] -= 1);
    }

    /// How many are in use.
    pub fn used() -> usize {
        HOLDERS.with(|holders| holders.iter().filter(|holders| **holders > 0).count())
    }
}

fn index(frame: Pa) -> usize {
    (frame.0 - linked::frames().start.0) as usize / 4096
}

// SAFETY: a frame has one holder when it is handed out.
unsafe impl FrameSource for Frames {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        Self::take()
    }

    unsafe fn free(&mut self, frame: Pa) {
        Self::release(frame);
    }
}
