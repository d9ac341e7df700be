//! The board's memory: frames on the host that code under test writes through pointers.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::slice;

use rustc_hash::FxHashMap;

/// Words of the pages that memory is compared in.
const PAGE_WORDS: usize = 512;

/// The content of a word before the first store: a valid descriptor without meaning, a different
/// one for each word.
pub(crate) fn garbage(pa: u64) -> u64 {
    pa.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// A frame that code under test can write.
#[derive(Debug)]
struct Frame {
    words: NonNull<u64>,
    layout: Layout,
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nothing outlives the board that owns it.
        unsafe { dealloc(self.words.as_ptr().cast(), self.layout) };
    }
}

/// All frames that were ever reached.
#[derive(Debug)]
pub(crate) struct Memory {
    granule: u64,
    frames: FxHashMap<u64, Frame>,
    /// Physical addresses of frames by their addresses on the host.
    places: FxHashMap<usize, u64>,
}

impl Memory {
    /// Memory in frames of `granule` bytes.
    pub fn new(granule: u64) -> Self {
        Self { granule, frames: FxHashMap::default(), places: FxHashMap::default() }
    }

    /// The memory of the word at `pa`, which is garbage when its frame is reached first.
    pub fn word(&mut self, pa: u64) -> NonNull<u64> {
        let bytes = self.granule;
        let base = pa & !(bytes - 1);
        let places = &mut self.places;
        let frame = self.frames.entry(base).or_insert_with(|| {
            let layout = Layout::from_size_align(bytes as usize, bytes as usize)
                .unwrap_or_else(|_| unreachable!("a granule is a power of two"));
            // SAFETY: the layout is not empty.
            let pointer = unsafe { alloc(layout) };
            let Some(words) = NonNull::new(pointer.cast::<u64>()) else { handle_alloc_error(layout) };
            for index in 0..bytes as usize / 8 {
                // SAFETY: within the allocation.
                unsafe { words.add(index).write(garbage(base + 8 * index as u64)) };
            }
            places.insert(pointer.expose_provenance(), base);
            Frame { words, layout }
        });
        let offset = (pa - base) as usize / 8;
        // SAFETY: within the frame.
        unsafe { frame.words.add(offset) }
    }

    /// Fills the frame at `base` with garbage.
    pub fn spoil(&mut self, base: u64) {
        let words = self.word(base);
        for index in 0..self.granule / 8 {
            // SAFETY: within the frame, which code under test does not use now.
            unsafe { words.add(index as usize).write(garbage(base + 8 * index)) };
        }
    }

    /// Reads the word at `pa`, a multiple of 8.
    pub fn read(&mut self, pa: u64) -> u64 {
        // SAFETY: a word of one of the board's frames; code under test does not run now.
        unsafe { self.word(pa).read() }
    }

    /// Writes `value` to the word at `pa`, a multiple of 8.
    pub fn write(&mut self, pa: u64, value: u64) {
        // SAFETY: a word of one of the board's frames; code under test does not run now.
        unsafe { self.word(pa).write(value) };
    }

    /// The physical address of an entry.
    ///
    /// # Panics
    /// When it does not lie in the board's memory.
    pub fn address(&self, entry: NonNull<u64>) -> u64 {
        let bytes = self.granule as usize;
        let address = entry.as_ptr().expose_provenance();
        let base = self.places.get(&(address & !(bytes - 1)));
        let base = base.unwrap_or_else(|| panic!("{entry:p} is not an entry of a table on this board"));
        base + (address & (bytes - 1)) as u64
    }

    /// The pages of the frame at `base` with their addresses; none before the frame is reached.
    pub fn pages(&self, base: u64) -> impl Iterator<Item = (u64, &[u64])> {
        self.frames.get(&base).into_iter().flat_map(move |frame| {
            // SAFETY: a frame is one granule, which was written when it was allocated; code under
            // test does not run while the slice is used.
            let words = unsafe { slice::from_raw_parts(frame.words.as_ptr(), frame.layout.size() / 8) };
            words.chunks(PAGE_WORDS).enumerate().map(move |(nth, page)| (base + 0x1000 * nth as u64, page))
        })
    }

    /// The addresses of all frames, in no particular order.
    pub fn frames(&self) -> impl Iterator<Item = u64> {
        self.frames.keys().copied()
    }
}
