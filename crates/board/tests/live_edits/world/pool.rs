//! Frames for tables.

use std::cell::RefCell;
use std::rc::Rc;

use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::Pa;

/// Frames for tables. A test may limit how many can be allocated.
#[derive(Debug, Default)]
pub struct Pool {
    pub free: Vec<u64>,
    pub taken: u64,
    pub granule: u64,
    /// How many more requests succeed.
    pub left: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct PoolHandle(pub Rc<RefCell<Pool>>);

// SAFETY: a frame is in `free` or out; all are multiples of the granule from POOL on.
unsafe impl FrameSource for PoolHandle {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let mut pool = self.0.borrow_mut();
        if pool.left == Some(0) {
            return Err(OutOfFrames { wanted: 0, largest_free: 0 });
        }
        if let Some(left) = &mut pool.left {
            *left -= 1;
        }
        let frame = pool.free.pop().ok_or(OutOfFrames { wanted: 0, largest_free: 0 })?;
        pool.taken += 1;
        Ok(Pa(frame))
    }

    fn alloc_consecutive(&mut self, bytes: u64) -> Result<Pa, OutOfFrames> {
        let mut pool = self.0.borrow_mut();
        let granule = pool.granule;
        let wanted = bytes / granule;
        let frames = |first: u64| (0..wanted).map(move |nth| first + nth * granule);
        let is_free = |frame: u64| pool.free.contains(&frame);
        let all_free = |first: &u64| first.is_multiple_of(bytes) && frames(*first).all(is_free);
        let first = pool.free.iter().copied().find(all_free);
        let first = first.ok_or(OutOfFrames { wanted: bytes, largest_free: 0 })?;
        pool.free.retain(|frame| !frames(first).any(|it| it == *frame));
        pool.taken += wanted;
        Ok(Pa(first))
    }

    unsafe fn free(&mut self, frame: Pa) {
        let mut pool = self.0.borrow_mut();
        assert!(!pool.free.contains(&frame.0), "{frame} was freed twice");
        pool.free.push(frame.0);
        pool.taken -= 1;
    }
}
