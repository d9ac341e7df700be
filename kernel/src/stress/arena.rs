//! The memory whose protection a stress run changes, and the state of each of its pages.

use core::slice;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use linmap::Layout;
use linmap_memblock::{AllocError, Memblock};
use linmap_vmsa::{Pa, PaRange, Va};

use crate::arch::cpu;
use crate::arch::layout::GRANULE;
use crate::memory::long_lists::REGIONS;
use crate::stress::random::{Random, mix};

/// The bytes of a page.
pub const PAGE: u64 = GRANULE.bytes();
/// The words of a page.
pub const WORDS: u64 = PAGE / 8;
/// How many workers write. Each owns the word of its number in every page. More workers may read.
pub const WRITERS: usize = 8;
/// A word of a page whose value never changes, although it is stored to.
pub const CONSTANT_WORD: u64 = WRITERS as u64;
/// The word of a page that holds two RET instructions.
pub const TEXT_WORD: u64 = WORDS - 1;
const RET_RET: u64 = 0xd65f_03c0_d65f_03c0;

/// The state of a page: how it may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageState(u32);

impl PageState {
    const VALID: u32 = 1;
    const WRITABLE: u32 = 2;
    const EXECUTABLE: u32 = 4;
    /// A call is changing the page: it may be in the old or the new state.
    const CHANGING: u32 = 8;
    /// Every change adds this, so that a state that returned differs from one that stayed.
    const VERSION: u32 = 16;

    const fn new(valid: bool, writable: bool, executable: bool) -> Self {
        Self(valid as u32 + writable as u32 * Self::WRITABLE + executable as u32 * Self::EXECUTABLE)
    }

    /// Loads and stores work, fetches fault. All memory starts like this.
    pub const DATA: Self = Self::new(true, true, false);

    /// Whether the page can be read.
    pub const fn valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Whether the page can be written.
    pub const fn writable(self) -> bool {
        self.0 & Self::WRITABLE != 0
    }

    /// Whether the page can be executed.
    pub const fn executable(self) -> bool {
        self.0 & Self::EXECUTABLE != 0
    }

    /// The state as a number, for reports.
    pub const fn bits(self) -> u64 {
        self.0 as u64
    }

    /// Whether a call is changing the page.
    pub const fn is_changing(self) -> bool {
        self.0 & Self::CHANGING != 0
    }

    /// This state with another validity.
    pub const fn with_valid(self, valid: bool) -> Self {
        Self::new(valid, self.writable(), self.executable())
    }

    /// This state, writable or not.
    pub const fn with_writable(self, writable: bool) -> Self {
        Self::new(self.valid(), writable, self.executable())
    }

    /// This state, executable or not.
    pub const fn with_executable(self, executable: bool) -> Self {
        Self::new(self.valid(), self.writable(), executable)
    }

    const MEANING: u32 = Self::VALID | Self::WRITABLE | Self::EXECUTABLE;
}

/// The memory and the state of its pages. It is allocated from memblock, and [`Arena::release`]
/// frees it.
pub struct Arena {
    /// The memory.
    pub range: PaRange,
    linear: Va,
    notes: PaRange,
    states: &'static [AtomicU32],
    /// The first page that changes next, and the number of pages.
    focus: AtomicU64,
    writes: [&'static [AtomicU32]; WRITERS],
}

impl Arena {
    /// Allocates the largest power of two of memory that leaves as much free, at most 1 GiB, and
    /// fills it with a pattern.
    pub fn allocate(memblock: &mut Memblock<REGIONS>, layout: Layout) -> Result<Self, AllocError> {
        let everywhere = PaRange::new(Pa(0), memblock.memory_end());
        let free: u64 = memblock.free_ranges(everywhere).map(PaRange::len).sum();
        let mut len = 1u64 << 30;
        let start = loop {
            match memblock.alloc(len, len, everywhere) {
                Ok(start) if 2 * len <= free => break start,
                Ok(start) => {
                    // Too little is left free.
                    let _ = memblock.free(PaRange::new(start, Pa(start.0 + len)));
                }
                Err(error) if len <= 1 << 21 => return Err(error),
                Err(_) => {}
            }
            len /= 2;
        };
        let range = PaRange::new(start, Pa(start.0 + len));
        let pages = (len / PAGE) as usize;
        let bytes = (pages as u64 * 4 * (1 + WRITERS as u64)).next_multiple_of(PAGE);
        let notes = match memblock.alloc(bytes, PAGE, everywhere) {
            Ok(notes) => PaRange::new(notes, Pa(notes.0 + bytes)),
            Err(error) => {
                let _ = memblock.free(range);
                return Err(error);
            }
        };
        let list = |nth: usize| {
            let start = layout.linear(notes.start).0 as *mut u32;
            // SAFETY: these words were just allocated, are mapped, and lie in the notes. Each list
            // is cleared before anything refers to it, from then on as atomics.
            unsafe {
                let start = start.add(nth * pages);
                start.write_bytes(0, pages);
                slice::from_raw_parts(start.cast::<AtomicU32>(), pages)
            }
        };
        let arena = Self {
            range,
            linear: layout.linear(range.start),
            notes,
            states: list(0),
            focus: AtomicU64::new(0),
            writes: core::array::from_fn(|writer| list(1 + writer)),
        };
        for state in arena.states {
            state.store(PageState::DATA.0, Ordering::Relaxed);
        }
        for page in 0..arena.pages() {
            for word in 0..WORDS {
                let place = arena.word(page, word).0 as *mut u64;
                // SAFETY: memory of the arena, mapped writable, and not in use yet.
                unsafe { place.write(arena.expected(page, word)) };
            }
        }
        // The words of text were written as data.
        cpu::clean_and_invalidate(arena.linear, range.len());
        cpu::invalidate_instructions_everywhere();
        Ok(arena)
    }

    /// The first word with a wrong value, the expected and the found value. All pages have to be
    /// readable, and no CPU at work.
    pub fn first_wrong(&self) -> Option<(Va, u64, u64)> {
        for page in 0..self.pages() {
            for word in 0..WORDS {
                let place = self.word(page, word);
                // SAFETY: memory of the arena, mapped, initialised by `allocate`.
                let found = unsafe { (place.0 as *const u64).read() };
                let expected = self.expected(page, word);
                if found != expected {
                    return Some((place, expected, found));
                }
            }
        }
        None
    }

    /// Frees the memory.
    pub fn release(&self, memblock: &mut Memblock<REGIONS>) {
        for range in [self.range, self.notes] {
            // Memblock only refuses when it needs one more region than it has room for; that stays
            // reserved.
            let _ = memblock.free(range);
        }
    }

    /// The number of pages.
    pub fn pages(&self) -> u64 {
        self.range.len() / PAGE
    }

    /// The bytes that are reserved for the run.
    pub fn reserved(&self) -> u64 {
        self.range.len() + self.notes.len()
    }

    /// The pages `first..first + count`.
    pub fn range_of(&self, first: u64, count: u64) -> PaRange {
        let start = self.range.start.0 + first * PAGE;
        PaRange::new(Pa(start), Pa(start + count * PAGE))
    }

    /// The address of word `word` of page `page`.
    pub fn word(&self, page: u64, word: u64) -> Va {
        Va(self.linear.0 + page * PAGE + word * 8)
    }

    /// The value of word `word` of page `page`.
    pub fn expected(&self, page: u64, word: u64) -> u64 {
        if word == TEXT_WORD {
            return RET_RET;
        }
        let writes = self.writes.get(word as usize).map_or(0, |list| self.count(list, page));
        mix(self.range.start.0 + page * PAGE + word * 8).wrapping_add(u64::from(writes))
    }

    fn count(&self, list: &[AtomicU32], page: u64) -> u32 {
        list.get(page as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts that `writer` has added one to its word of `page`.
    pub fn written(&self, page: u64, writer: usize) {
        if let Some(count) = self.writes.get(writer).and_then(|list| list.get(page as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The state of `page` now.
    pub fn state(&self, page: u64) -> PageState {
        PageState(self.states.get(page as usize).map_or(0, |state| state.load(Ordering::Acquire)))
    }

    /// Sets the pages that change next.
    pub fn set_focus(&self, first: u64, count: u64) {
        self.focus.store(first << 32 | count, Ordering::Release);
    }

    /// A random page. Three times out of four it is one of the first 32 pages that change next, so
    /// that they are in use.
    pub fn some_page(&self, random: &mut Random) -> u64 {
        let focus = self.focus.load(Ordering::Acquire);
        let (first, count) = (focus >> 32, focus & 0xffff_ffff);
        if count == 0 || random.below(4) == 0 {
            random.below(self.pages())
        } else {
            first + random.below(count.min(32))
        }
    }

    /// Marks pages as changing.
    pub fn begin(&self, first: u64, count: u64) {
        for page in first..first + count {
            if let Some(state) = self.states.get(page as usize) {
                state.fetch_or(PageState::CHANGING, Ordering::Relaxed);
            }
        }
        cpu::barrier();
    }

    /// Ends the change of pages. `new` maps the old state of each to its new one.
    pub fn end(&self, first: u64, count: u64, new: impl Fn(PageState) -> PageState) {
        for page in first..first + count {
            let Some(state) = self.states.get(page as usize) else { continue };
            let old = state.load(Ordering::Relaxed);
            let meaning = new(PageState(old & PageState::MEANING)).0;
            let version = (old & !(PageState::VERSION - 1)).wrapping_add(PageState::VERSION);
            state.store(version | meaning, Ordering::Release);
        }
    }

    /// Whether `is` holds for one of the pages.
    pub fn any(&self, first: u64, count: u64, is: impl Fn(PageState) -> bool) -> bool {
        (first..first + count).any(|page| is(self.state(page)))
    }
}
