//! Frames that are followed because a walk may reach them, and what was recorded of each.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::shape::Shape;

/// Bits of physical address that the filter covers: 64 GiB from 0, in pages of 4 KiB. What lies
/// above is looked up.
const FILTER_PAGES: usize = 1 << 24;

/// Which pages are followed, one bit each: read at every store, by any thread.
pub static FILTER: Filter = Filter([const { AtomicU64::new(0) }; FILTER_PAGES / 64]);

/// A set of pages.
pub struct Filter([AtomicU64; FILTER_PAGES / 64]);

impl Filter {
    /// Whether the page of `pa` may be followed.
    pub fn may_hold(&self, pa: u64) -> bool {
        let page = (pa >> 12) as usize;
        match self.0.get(page / 64) {
            Some(bits) => bits.load(Ordering::Relaxed) >> (page % 64) & 1 == 1,
            None => true,
        }
    }

    fn set(&self, pa: u64, len: u64, is_in: bool) {
        for page in (pa >> 12)..(pa + len).div_ceil(1 << 12) {
            if let Some(bits) = self.0.get(page as usize / 64) {
                let bit = 1 << (page % 64);
                if is_in {
                    bits.fetch_or(bit, Ordering::Relaxed);
                } else {
                    bits.fetch_and(!bit, Ordering::Relaxed);
                }
            }
        }
    }
}

/// How a frame stands to the trees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A root or a descriptor leads to it.
    Linked,
    /// Nothing leads to it any more, but walk caches may: it is followed until an invalidation is
    /// complete.
    Unlinked,
    /// An invalidation is complete. As many stores are recorded still, which are the owner's
    /// mistake if the invalidation was of something else.
    Grace(u8),
    /// Not followed.
    Gone,
}

/// A table in a frame. A root may be smaller than a page, and at any multiple of its size.
pub struct Table {
    /// Its first word in the frame.
    pub first: usize,
    /// How many words are its entries.
    pub entries: usize,
    /// How its descriptors are read.
    pub shape: Shape,
    /// The levels at which it is a table, one bit each.
    pub levels: u8,
    /// How many roots and descriptors lead to it.
    references: u32,
}

impl Table {
    /// Its words in the frame.
    pub fn words(&self) -> Range<usize> {
        self.first..self.first + self.entries
    }
}

/// A frame that is or was followed.
pub struct Frame {
    /// What was recorded of each word; `None` if nothing was.
    pub recorded: Vec<Option<u64>>,
    /// While it is not followed: its words that were not recorded as 0, by number, instead.
    kept: Box<[(u16, Option<u64>)]>,
    /// The tables in it: one, but for small roots.
    pub tables: Vec<Table>,
    pub standing: Standing,
    /// When nothing led to it last, by the number of events.
    unlinked: u64,
    /// Entries whose tables have no reference from here: they were stored to while nothing led
    /// here, or walk caches don't lead here any more.
    pub skipped: BTreeSet<usize>,
}

impl Frame {
    /// Keeps what was recorded in less memory: most tables are empty in the end.
    fn compact(&mut self) {
        let recorded = (0..).zip(std::mem::take(&mut self.recorded));
        self.kept = recorded.filter(|(_, word)| *word != Some(0)).collect();
        self.tables = Vec::new();
    }

    /// The bytes that a frame which is not followed takes.
    fn kept_bytes(&self) -> usize {
        if self.recorded.is_empty() { size_of::<(u64, Self)>() + size_of_val(&*self.kept) } else { 0 }
    }

    /// Undoes [`compact`](Self::compact).
    fn expand(&mut self, words: usize) {
        if self.recorded.is_empty() {
            self.recorded = vec![Some(0); words];
            for (at, word) in std::mem::take(&mut self.kept) {
                self.recorded[usize::from(at)] = word;
            }
        }
    }
}

/// All frames that are or were followed. A frame is as large as the granule.
#[derive(Default)]
pub struct Frames {
    frames: HashMap<u64, Frame>,
    /// Frames to which nothing leads, each with when that began, in order.
    unlinked: Vec<(u64, u64)>,
    /// How many events the trace has.
    pub now: u64,
    granule: u32,
    /// The bytes that frames take which are not followed.
    kept_bytes: usize,
    /// The most frames that were followed at a time.
    pub followed: usize,
    pub most: usize,
}

impl Frames {
    /// Fixes the size of frames.
    pub fn set_granule(&mut self, granule: u32) {
        self.granule = granule;
    }

    pub fn len(&self) -> u64 {
        1 << self.granule
    }

    pub fn of(&self, pa: u64) -> u64 {
        pa >> self.granule << self.granule
    }

    pub fn get_mut(&mut self, frame: u64) -> Option<&mut Frame> {
        self.frames.get_mut(&frame).filter(|at| at.standing != Standing::Gone)
    }

    /// All frames that are followed.
    pub fn followed(&self) -> Vec<u64> {
        let followed = self.frames.iter().filter(|(_, frame)| frame.standing != Standing::Gone);
        followed.map(|(at, _)| *at).collect()
    }

    /// Adds a reference to the table at `pa`, which is one at `level`. Says whether it was not
    /// followed as such.
    pub fn refer(&mut self, pa: u64, level: i8, entries: usize, shape: Shape) -> bool {
        let words = 1 << (self.granule - 3);
        let frame = self.of(pa);
        let at = self.frames.entry(frame).or_insert_with(|| Frame {
            recorded: vec![None; words],
            kept: Box::default(),
            tables: Vec::new(),
            standing: Standing::Gone,
            unlinked: 0,
            skipped: BTreeSet::new(),
        });
        if at.standing == Standing::Gone {
            self.kept_bytes -= at.kept_bytes();
            at.tables.clear();
            at.expand(words);
            self.followed += 1;
            self.most = self.most.max(self.followed);
            FILTER.set(frame, 1 << self.granule, true);
        }
        if at.standing != Standing::Linked {
            // A new life, perhaps at other levels.
            at.tables.clear();
        }
        at.standing = Standing::Linked;
        let first = ((pa - frame) / 8) as usize;
        let entries = entries.min(words - first);
        let bit = 1 << (level + 1);
        at.skipped.clear();
        match at.tables.iter_mut().find(|table| table.first == first) {
            Some(table) => {
                table.references += 1;
                let is_new = table.levels & bit == 0 || table.entries < entries;
                table.levels |= bit;
                table.entries = table.entries.max(entries);
                is_new
            }
            None => {
                at.tables.push(Table { first, entries, shape, levels: bit, references: 1 });
                true
            }
        }
    }

    /// Takes a reference to the table at `pa` away.
    pub fn unrefer(&mut self, pa: u64) {
        let (frame, now) = (self.of(pa), self.now);
        let first = ((pa - frame) / 8) as usize;
        let Some(at) = self.get_mut(frame) else { return };
        if let Some(table) = at.tables.iter_mut().find(|table| table.first == first) {
            table.references = table.references.saturating_sub(1);
            if at.tables.iter().all(|table| table.references == 0) && at.standing == Standing::Linked {
                at.standing = Standing::Unlinked;
                at.unlinked = now;
                self.unlinked.push((frame, now));
                self.forget_relinked();
            }
        }
    }

    /// Forgets when frames were unlinked to which something leads again, if those are most.
    fn forget_relinked(&mut self) {
        if self.unlinked.len() > 2 * self.followed + 64 {
            let frames = &self.frames;
            self.unlinked.retain(|(frame, since)| {
                let is_same = |at: &Frame| at.standing == Standing::Unlinked && at.unlinked == *since;
                frames.get(frame).is_some_and(is_same)
            });
        }
    }

    /// Takes the table at `pa` away.
    pub fn remove(&mut self, pa: u64) -> Option<Table> {
        let frame = self.of(pa);
        let first = ((pa - frame) / 8) as usize;
        let at = self.get_mut(frame)?;
        let nth = at.tables.iter().position(|table| table.first == first)?;
        Some(at.tables.remove(nth))
    }

    /// An invalidation is complete of what was unlinked when the trace had fewer events than `by`.
    /// Returns the frames to which walk caches don't lead any more.
    #[must_use]
    pub fn invalidated(&mut self, by: u64) -> Vec<u64> {
        /// Stores that are recorded still.
        const GRACE: u8 = 8;
        let mut invalidated = Vec::new();
        let reached = self.unlinked.partition_point(|(_, since)| *since < by);
        for (frame, since) in self.unlinked.drain(..reached) {
            // Something may have led to it again since.
            let is_same = |at: &&mut Frame| at.standing == Standing::Unlinked && at.unlinked == since;
            if let Some(at) = self.frames.get_mut(&frame).filter(is_same) {
                at.standing = Standing::Grace(GRACE);
                invalidated.push(frame);
            }
        }
        invalidated
    }

    /// A store to `frame` was recorded. Says whether the frame has to be given up.
    pub fn is_over(&mut self, frame: u64) -> bool {
        match self.frames.get_mut(&frame).map(|at| &mut at.standing) {
            Some(Standing::Grace(left)) => {
                *left -= 1;
                *left == 0
            }
            _ => false,
        }
    }

    /// Ends that `frame` is followed. What was recorded of it is kept: if it is a table again, that
    /// is not recorded again.
    pub fn give_up(&mut self, frame: u64) {
        /// The most bytes for it. A guest of any size may use all of its memory for tables in turn.
        const MOST_KEPT: usize = 1 << 25;
        let Some(at) = self.get_mut(frame) else { return };
        at.standing = Standing::Gone;
        at.skipped.clear();
        at.compact();
        self.kept_bytes += at.kept_bytes();
        self.followed -= 1;
        FILTER.set(frame, 1 << self.granule, false);
        if self.kept_bytes > MOST_KEPT {
            self.frames.retain(|_, at| at.standing != Standing::Gone);
            self.kept_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 0x4000_0000;

    fn shape() -> Shape {
        Shape::of(16, false).expect("it is walked")
    }

    fn frames() -> Frames {
        let mut frames = Frames::default();
        frames.set_granule(12);
        frames
    }

    #[test]
    fn an_invalidation_from_before_a_frame_was_unlinked_leaves_it_followed() {
        let mut frames = frames();
        frames.refer(FRAME, 3, 512, shape());
        frames.now = 10;
        frames.unrefer(FRAME);
        let mut standing = |by| {
            let _ = frames.invalidated(by);
            frames.get_mut(FRAME).map(|at| at.standing)
        };
        assert_eq!(standing(10), Some(Standing::Unlinked));
        assert!(matches!(standing(11), Some(Standing::Grace(_))));
    }

    #[test]
    fn a_frame_that_is_gone_keeps_what_was_recorded_in_little_memory() {
        let mut frames = frames();
        frames.refer(FRAME, 3, 512, shape());
        let mut expected = vec![Some(0); 512];
        (expected[3], expected[511]) = (Some(7), None);
        frames.get_mut(FRAME).expect("it is followed").recorded.clone_from(&expected);
        frames.give_up(FRAME);
        let gone = &frames.frames[&FRAME];
        assert_eq!((gone.recorded.capacity(), gone.kept.len()), (0, 2));
        assert_eq!(frames.kept_bytes, gone.kept_bytes());
        frames.refer(FRAME, 3, 512, shape());
        assert_eq!(frames.get_mut(FRAME).expect("it is followed").recorded, expected);
    }
    #[test]
    fn frames_that_are_gone_take_bounded_memory_and_are_forgotten_not_mistaken() {
        let mut frames = frames();
        let at = |nth: u64| FRAME + 0x1000 * nth;
        for nth in 0..4000 {
            frames.refer(at(nth), 3, 512, shape());
            frames.get_mut(at(nth)).expect("it is followed").recorded.fill(Some(7));
            frames.give_up(at(nth));
        }
        let bytes: usize = frames.frames.values().map(Frame::kept_bytes).sum();
        assert_eq!(bytes, frames.kept_bytes);
        assert!((1..1 << 25).contains(&bytes), "{bytes}");
        for (nth, expected) in [(0, None), (3999, Some(7))] {
            frames.refer(at(nth), 3, 512, shape());
            assert_eq!(frames.get_mut(at(nth)).expect("it is followed").recorded[1], expected);
        }
        assert_eq!(frames.followed, 2);
    }

    #[test]
    fn a_frame_that_is_unlinked_and_linked_without_any_invalidation_takes_bounded_memory() {
        let mut frames = frames();
        frames.refer(FRAME, 3, 512, shape());
        for now in 1..1000 {
            frames.now = now;
            frames.unrefer(FRAME);
            frames.refer(FRAME, 3, 512, shape());
        }
        frames.unrefer(FRAME);
        assert!(frames.unlinked.len() < 128, "{}", frames.unlinked.len());
        assert_eq!(frames.invalidated(1000), [FRAME]);
        assert!(matches!(frames.get_mut(FRAME).map(|at| at.standing), Some(Standing::Grace(_))));
    }
}
