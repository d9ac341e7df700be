//! Host memory that holds the tables, and a CPU that stores and does nothing else.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;

use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{FrameSource, OffsetWindow, OutOfFrames};
use linmap_vmsa::{Descriptor, Geometry, Level, Pa, Va};

/// The physical address of the first frame. What a map covers does not matter to the tables.
const FIRST: u64 = 1 << 33;
/// Room for frames of 64K, and for more of the smaller ones.
const BYTES: u64 = 32 << 20;

/// Frames for tables. Their content is what the map before left in them.
pub struct Host {
    memory: NonNull<u8>,
    granule: u64,
    free: Vec<Pa>,
    next: u64,
}

impl Host {
    pub fn new() -> Self {
        let layout = Layout::from_size_align(BYTES as usize, 1 << 16).expect("some megabytes");
        // SAFETY: the layout has a size.
        let memory = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        memory.as_ptr().expose_provenance();
        // SAFETY: the memory has this length.
        unsafe { memory.write_bytes(0xa5, BYTES as usize) };
        Self { memory, granule: 0, free: Vec::new(), next: FIRST }
    }

    /// Takes all frames back. They have this size from now on.
    pub fn reset(&mut self, granule: u64) {
        self.granule = granule;
        self.free.clear();
        self.next = FIRST;
    }

    /// A frame whose entries are all invalid.
    pub fn cleared(&mut self) -> Pa {
        let frame = self.alloc().expect("room for a frame");
        // SAFETY: the frame lies in the memory, and nothing refers to it.
        unsafe { self.pointer(frame).cast::<u8>().write_bytes(0, self.granule as usize) };
        frame
    }

    /// How many frames are handed out.
    pub fn out(&self) -> u64 {
        (self.next - FIRST) / self.granule - self.free.len() as u64
    }

    pub fn pointer(&self, frame: Pa) -> NonNull<u64> {
        assert!(frame.0 >= FIRST && frame.0 < self.next, "{frame} is not a frame");
        // SAFETY: the frame lies in the memory.
        unsafe { self.memory.add((frame.0 - FIRST) as usize).cast() }
    }

    /// The entries of a table.
    ///
    /// # Safety
    /// Nothing changes them as long as they are used.
    pub unsafe fn entries(&self, frame: Pa, count: usize) -> &[u64] {
        assert!(count as u64 * 8 <= self.granule);
        // SAFETY: a frame has a granule; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.pointer(frame).as_ptr(), count) }
    }

    fn window(&self) -> OffsetWindow {
        // SAFETY: every frame is in the memory at this offset, and nothing refers to it while a map
        // is built.
        unsafe { OffsetWindow::new((self.memory.addr().get() as u64).wrapping_sub(FIRST)) }
    }

    /// A CPU whose fixmap is the table `fixmap`, mapped at `base`.
    pub fn cpu(&self, geometry: Geometry, fixmap: Pa, base: Va) -> HostCpu {
        HostCpu { geometry, fixmap: self.pointer(fixmap), base, window: self.window(), memory: self.memory }
    }
}

// SAFETY: a frame is new, or returns from the list when it is handed out again.
unsafe impl FrameSource for Host {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        if let Some(frame) = self.free.pop() {
            return Ok(frame);
        }
        let frame = Pa(self.next);
        if frame.0 + self.granule > FIRST + BYTES {
            return Err(OutOfFrames { wanted: self.granule, largest_free: 0 });
        }
        self.next += self.granule;
        Ok(frame)
    }

    unsafe fn free(&mut self, frame: Pa) {
        assert!(!self.free.contains(&frame), "{frame} is freed twice");
        self.free.push(frame);
    }
}

/// A CPU without walkers: it stores, and reaches the slots of its fixmap.
pub struct HostCpu {
    geometry: Geometry,
    fixmap: NonNull<u64>,
    base: Va,
    window: OffsetWindow,
    memory: NonNull<u8>,
}

// SAFETY: a store is one, a slot leads to the frame that its entry names, and nothing walks.
unsafe impl Cpu for HostCpu {
    type Frames = OffsetWindow;

    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        // SAFETY: the caller's.
        unsafe { entry.write(descriptor.0) };
    }

    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        let slot = (va.0 - self.base.0) >> self.geometry.shift(Level::L3);
        // SAFETY: the address is that of a slot.
        let pte = Descriptor(unsafe { self.fixmap.add(slot as usize).read() });
        match pte.decode(self.geometry, Level::L3) {
            linmap_vmsa::Decoded::Leaf(frame) => {
                // SAFETY: the builders map frames alone.
                unsafe { self.memory.add((frame.0 - FIRST) as usize).cast() }
            }
            other => panic!("slot {slot} has {other:?}"),
        }
    }

    unsafe fn frames_at(&mut self, _offset: u64) -> OffsetWindow {
        self.window
    }

    fn dsb(&mut self, _dsb: Dsb) {}
    fn isb(&mut self) {}
    fn tlbi(&mut self, _tlbi: Tlbi) {}
    unsafe fn write_ttbr0(&mut self, _value: u64) {}
    unsafe fn write_ttbr1(&mut self, _value: u64) {}
    unsafe fn write_tcr(&mut self, _value: u64) {}
}
