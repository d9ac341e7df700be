//! What the allocator knows of one CPU.

use crate::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::space_id::Tag;

/// The identifiers of one CPU.
#[derive(Debug)]
pub(crate) struct Claim {
    /// What the CPU runs with, [`Tag::NONE`] since the last rollover. Only the CPU itself stores
    /// anything else here.
    active: AtomicU64,
    /// What it ran with at the last rollover. Changed under the lock alone.
    reserved: AtomicU64,
    /// Its TLB may hold entries of the last generation. Changed under the lock alone.
    stale: AtomicBool,
    /// Somebody is this CPU.
    taken: AtomicBool,
}

impl Claim {
    pub const fn new() -> Self {
        Self {
            active: AtomicU64::new(Tag::NONE.0),
            reserved: AtomicU64::new(Tag::NONE.0),
            stale: AtomicBool::new(false),
            taken: AtomicBool::new(false),
        }
    }

    /// Returns whether nobody was this CPU.
    pub fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::Acquire)
    }

    pub fn give_back(&self) {
        self.taken.store(false, Ordering::Release);
    }

    pub fn active(&self) -> Tag {
        Tag(self.active.load(Ordering::Relaxed))
    }

    /// Replaces `old`, unless a rollover has taken it away.
    pub fn replace(&self, old: Tag, new: Tag) -> bool {
        self.active.compare_exchange(old.0, new.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The CPU runs with `tag` from now on. Returns whether its TLB is stale, for the last time.
    pub fn run(&self, tag: Tag) -> bool {
        let stale = self.stale.load(Ordering::Relaxed);
        self.stale.store(false, Ordering::Relaxed);
        self.active.store(tag.0, Ordering::Relaxed);
        stale
    }

    /// The CPU runs with nothing.
    pub fn idle(&self) {
        self.active.store(Tag::NONE.0, Ordering::Relaxed);
        self.reserved.store(Tag::NONE.0, Ordering::Relaxed);
    }

    /// Begins a generation. Returns what the CPU runs with.
    pub fn roll_over(&self) -> Tag {
        // One operation: whatever the CPU's fast path stores is either seen here, or not stored.
        let active = Tag(self.active.swap(Tag::NONE.0, Ordering::Relaxed));
        // Without one it runs with what it ran with at the rollover before.
        if active != Tag::NONE {
            self.reserved.store(active.0, Ordering::Relaxed);
        }
        self.stale.store(true, Ordering::Relaxed);
        Tag(self.reserved.load(Ordering::Relaxed))
    }

    /// Renews the reserved identifier, if it is `old`.
    pub fn renew(&self, old: Tag, new: Tag) -> bool {
        let is_it = self.reserved.load(Ordering::Relaxed) == old.0;
        if is_it {
            self.reserved.store(new.0, Ordering::Relaxed);
        }
        is_it
    }
}
