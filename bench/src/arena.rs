//! Host memory that stands for the frames that tables are made of.
//!
//! It is taken once, backed by huge pages where the host has them, and touched before anything is
//! measured: what is measured is the writing of tables, not the host's page faults. All contestants
//! write to the same memory.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use anyhow::{Context, Result};
use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::{Pa, PaRange};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// Bytes of a frame.
const FRAME: u64 = 4096;
/// What the arena is aligned to: a huge page of the host.
const ALIGN: usize = 2 << 20;

/// A stretch of touched memory, in use until the process ends.
#[derive(Debug)]
pub struct Arena {
    start: usize,
    len: u64,
}

impl Arena {
    /// Takes `len` bytes, a multiple of 4096, from the host and touches them.
    ///
    /// # Errors
    /// The host's error when it has no room for them.
    pub fn new(len: u64) -> Result<Self> {
        let bytes = usize::try_from(len)?.checked_next_multiple_of(ALIGN).context("arena size")?;
        let whole = bytes.checked_add(ALIGN).context("arena size")?;
        // SAFETY: a new private mapping at an address of the host's choice touches no memory in
        // use.
        let mapping = unsafe {
            mmap_anonymous(ptr::null_mut(), whole, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }
        .with_context(|| format!("taking {whole:#x} bytes of memory for the tables"))?;
        let skip = mapping.cast::<u8>().align_offset(ALIGN);
        // SAFETY: `skip` is below ALIGN and `whole` is ALIGN larger than `bytes`, so start and end
        // lie in the mapping.
        let start = unsafe { mapping.cast::<u8>().add(skip) };
        // SAFETY: the range lies in the mapping above, and the advice changes only what pages back
        // it. A host without huge pages refuses it, which costs speed alone.
        let _ = unsafe { madvise(start.cast(), bytes, Advice::LinuxHugepage) };
        // SAFETY: the range lies in the mapping above, which is writable, and nothing else refers
        // to it.
        unsafe { start.write_bytes(0xff, bytes) };
        Ok(Self { start: start.expose_provenance(), len: bytes as u64 })
    }

    /// The first `tables` frames of the arena, as the last frames of the RAM that ends at
    /// `ram_end`.
    ///
    /// # Errors
    /// When the arena has fewer frames.
    pub fn tables(&mut self, tables: u64, ram_end: Pa) -> Result<TableMemory<'_>> {
        let bytes = tables.checked_mul(FRAME).filter(|bytes| *bytes <= self.len);
        let bytes = bytes.with_context(|| format!("{tables} tables in an arena of {:#x} bytes", self.len))?;
        let first = ram_end.0.checked_sub(bytes).context("more tables than RAM")?;
        let offset = (self.start as u64).wrapping_sub(first);
        Ok(TableMemory { _arena: self, frames: PaRange::new(Pa(first), ram_end), offset })
    }
}

/// The frames for the tables of one map: as many as it takes.
#[derive(Debug)]
pub struct TableMemory<'a> {
    _arena: &'a mut Arena,
    frames: PaRange,
    offset: u64,
}

impl TableMemory<'_> {
    /// Where the frames lie, as physical addresses.
    pub fn frames(&self) -> PaRange {
        self.frames
    }

    /// Host address minus physical address of every frame, wrapping. The memory's provenance is
    /// exposed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The host address of the byte at `pa`, to be accessed only while it lies inside
    /// [`frames`](Self::frames).
    #[inline]
    pub fn pointer(&self, pa: Pa) -> *mut u64 {
        ptr::with_exposed_provenance_mut(pa.0.wrapping_add(self.offset) as usize)
    }

    /// Sets every entry of every frame to `value`.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "the exclusive borrow is what keeps others from the frames"
    )]
    pub fn set(&mut self, value: u64) {
        let start = self.pointer(self.frames.start);
        for index in 0..(self.frames.len() / 8) as usize {
            // SAFETY: the index is that of a word inside the frames, which lie in the arena; `self`
            // is borrowed exclusively, so nothing else accesses them.
            unsafe { start.add(index).write(value) };
        }
    }
}

/// Frames handed out one after the other, from the lowest up.
#[derive(Debug)]
pub struct BumpFrames<'m> {
    next: Pa,
    end: Pa,
    offset: u64,
    /// The exclusive borrow of the memory: no other value hands out its frames during it.
    _memory: PhantomData<&'m mut u64>,
}

impl<'m> BumpFrames<'m> {
    /// All frames of `memory`.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "the exclusive borrow is what keeps others from the frames"
    )]
    pub fn new(memory: &'m mut TableMemory<'_>) -> Self {
        let PaRange { start, end } = memory.frames;
        Self { next: start, end, offset: memory.offset, _memory: PhantomData }
    }

    /// The next frame, with its host address. What it holds is undefined.
    #[inline]
    pub fn take(&mut self) -> Option<(Pa, NonNull<u64>)> {
        if self.next == self.end {
            return None;
        }
        let frame = self.next;
        self.next = Pa(frame.0 + FRAME);
        let address = frame.0.wrapping_add(self.offset) as usize;
        Some((frame, NonNull::new(ptr::with_exposed_provenance_mut(address))?))
    }
}

// SAFETY: every frame of the memory, which was borrowed exclusively, is handed out once; they are
// multiples of 4096 and lie at the end of RAM that does not begin at 0.
unsafe impl FrameSource for BumpFrames<'_> {
    #[inline]
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        match self.take() {
            Some((frame, _)) => Ok(frame),
            None => Err(OutOfFrames { wanted: FRAME, largest_free: 0 }),
        }
    }

    /// Takes back the last frame handed out; any other stays in use.
    unsafe fn free(&mut self, frame: Pa) {
        if frame.0 + FRAME == self.next.0 {
            self.next = frame;
        }
    }
}
