//! The identifier of one space, with the generation that it is of.

use crate::atomic::{AtomicU64, Ordering};

/// An identifier and its generation in one word, so that both change together. Generations count
/// from 1 in the upper 48 bits: at a rollover a microsecond they last for nine years.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag(pub u64);

impl Tag {
    /// No identifier.
    pub const NONE: Self = Self(0);

    pub const fn new(generation: u64, id: u16) -> Self {
        Self(generation << 16 | id as u64)
    }

    pub const fn id(self) -> u16 {
        self.0 as u16
    }

    pub const fn generation(self) -> u64 {
        self.0 >> 16
    }
}

/// The identifier of one space: of a process's tables (ASID), or of a guest's (VMID). Store it
/// beside the root of the tables, and use it with one [`IdAllocator`](crate::IdAllocator) only.
#[derive(Debug, Default)]
pub struct SpaceId {
    tag: AtomicU64,
}

impl SpaceId {
    /// Returns the `SpaceId` of a space that no CPU has run yet.
    pub const fn new() -> Self {
        Self { tag: AtomicU64::new(Tag::NONE.0) }
    }

    /// Returns the identifier to invalidate by after an edit of the space's tables, or `None` if no
    /// CPU has run the space, so no TLB holds entries of it.
    ///
    /// The identifier may change when a CPU switches to the space. Either
    /// - edit the space on a CPU that runs it: the identifier can't change there, or
    /// - read the identifier again after the DSB that completes the invalidation, before new
    ///   descriptors replace broken ones and before frames or tables are reused, and if it differs,
    ///   invalidate by the new one too. An edit that does all of that in one call needs the first
    ///   way.
    pub fn id(&self) -> Option<u16> {
        match self.tag() {
            Tag::NONE => None,
            tag => Some(tag.id()),
        }
    }

    pub(crate) fn tag(&self) -> Tag {
        Tag(self.tag.load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, tag: Tag) {
        self.tag.store(tag.0, Ordering::Release);
    }
}
