//! Staging the parts of a payload: at their destinations, or in other memory from which they are
//! moved at the hand-over.

use core::iter;

use arrayvec::ArrayVec;
use linmap_kexec::{
    Extent, ExtentSource, LIST_FRAME_LEN, LIST_FRAME_WORDS, ListFrame, MovePlan, Moves, NextTree,
    SEGMENT_ALIGN, Unpacker,
};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::bulk::{self, BulkCopy};
use crate::arch::cpu;
use crate::kexec::allocations::PayloadMemory;
use crate::kexec::error::KexecError;
use crate::kexec::payload::InMemory;
use crate::kexec::segment::{MAX_SEGMENTS, Segment, Staged, whole_pages};
use crate::memory::physical::Memory;

/// What fills a segment.
pub enum Content<'c, 'a> {
    /// These bytes.
    Bytes(&'c [u8]),
    /// What an unpacker produces.
    Packed(&'c mut Unpacker<'a>),
}

impl Content<'_, '_> {
    /// Fills `room` as far as there are bytes. Returns how many there were.
    fn fill(&mut self, copy: BulkCopy, room: &mut [u8]) -> Result<usize, KexecError> {
        match self {
            Self::Bytes(bytes) => {
                let len = copy.copy(bytes, room);
                *bytes = &bytes[len..];
                Ok(len)
            }
            Self::Packed(unpacker) => {
                let mut filled = 0;
                while filled < room.len() {
                    match unpacker.read(&mut room[filled..])? {
                        0 => break,
                        more => filled += more,
                    }
                }
                Ok(filled)
            }
        }
    }

    /// Checks that no bytes are left.
    fn check_end(&mut self, copy: BulkCopy) -> Result<(), KexecError> {
        let mut one = [0];
        match self.fill(copy, &mut one)? {
            0 => Ok(()),
            _ => Err(KexecError::NoPayload("a part of it is longer than its place")),
        }
    }
}

/// The segments that are staged so far, and the plan to move them.
pub struct Stage<'s, 'w, 'p, 'm> {
    /// The moves.
    plan: MovePlan<'s, 'static, 'w>,
    /// The segments.
    segments: ArrayVec<Segment, MAX_SEGMENTS>,
    /// Whether segments are staged at their destinations.
    in_place: bool,
    /// Copies what is not packed.
    copy: BulkCopy,
    /// Where other frames come from.
    memory: &'p mut PayloadMemory<'m>,
}

/// What one segment amounts to.
struct Filled {
    end: Pa,
    len: u64,
    zero: u64,
}

impl<'s, 'w, 'p, 'm> Stage<'s, 'w, 'p, 'm> {
    /// Nothing staged, with an empty `plan`.
    pub fn new(plan: MovePlan<'s, 'static, 'w>, in_place: bool, memory: &'p mut PayloadMemory<'m>) -> Self {
        Self { plan, segments: ArrayVec::new(), in_place, copy: BulkCopy::new(), memory }
    }

    /// The memory of the machine.
    pub fn memory(&self) -> &Memory {
        self.memory.memory
    }

    /// Adds a segment that needs no move.
    pub fn add(&mut self, segment: Segment) {
        self.segments.push(segment);
    }

    /// Finishes the plan.
    ///
    /// # Errors
    /// [`KexecError::Move`].
    pub fn finish(self) -> Result<(ArrayVec<Segment, MAX_SEGMENTS>, Moves), KexecError> {
        let Self { plan, segments, memory, .. } = self;
        let moves = plan.finish(&mut iter::from_fn(|| list_frame(memory)))?;
        Ok((segments, moves))
    }

    fn push(&mut self, extent: Extent) -> Result<(), KexecError> {
        let Self { plan, memory, .. } = self;
        Ok(plan.push(extent, &mut iter::from_fn(|| list_frame(memory)))?)
    }

    /// Stages `content` for the segment `room`: at its destination, or page by page elsewhere.
    ///
    /// # Errors
    /// [`KexecError`].
    pub fn stage(
        &mut self,
        name: &'static str,
        content: &mut Content<'_, '_>,
        room: PaRange,
    ) -> Result<(), KexecError> {
        let filled = if self.in_place {
            let filled = self.fill_in_place(content, room)?;
            // Cleans the image's memory after its file too: the move cleans what it writes, but
            // not memory that stays as it is.
            cpu::clean_and_invalidate(self.memory.memory.layout.linear(room.start), room.len());
            filled
        } else {
            self.fill_pages(content, room)?
        };
        self.segments.push(Segment {
            name,
            destination: PaRange::new(room.start, filled.end),
            staged: if self.in_place { Staged::InPlace } else { Staged::Pages },
            len: filled.len,
            zero: filled.zero,
        });
        Ok(())
    }

    /// Fills `room` with `content` and zeros in the rest of the last page.
    fn fill_in_place(&self, content: &mut Content<'_, '_>, room: PaRange) -> Result<Filled, KexecError> {
        // SAFETY: the range was allocated for this, and nothing else refers to it.
        let mut place = unsafe { self.memory.memory.owned_bytes(room) };
        let bytes = place.as_mut();
        let len = content.fill(self.copy, bytes)?;
        if len == bytes.len() {
            content.check_end(self.copy)?;
        }
        let end = len.next_multiple_of(SEGMENT_ALIGN as usize);
        bytes[len..end].fill(0);
        Ok(Filled { end: Pa(room.start.0 + end as u64), len: len as u64, zero: 0 })
    }

    /// Fills the page at `page`. Returns how many bytes of `content` are in it.
    fn fill_page(&self, content: &mut Content<'_, '_>, page: Pa) -> Result<PageContent, KexecError> {
        let range = PaRange::new(page, Pa(page.0 + SEGMENT_ALIGN));
        // SAFETY: the page was allocated for this, and nothing else refers to it.
        let mut page = unsafe { self.memory.memory.owned_bytes(range) };
        let bytes = page.as_mut();
        let len = content.fill(self.copy, bytes)?;
        bytes[len..].fill(0);
        Ok(match len {
            0 => PageContent::End,
            _ if bulk::is_zero(bytes) => PageContent::Zeros(len as u64),
            _ => PageContent::Bytes(len as u64),
        })
    }

    fn fill_pages(&mut self, content: &mut Content<'_, '_>, room: PaRange) -> Result<Filled, KexecError> {
        let mut filled = Filled { end: room.start, len: 0, zero: 0 };
        // A page of zeros is not moved, so the next page is filled there.
        let mut spare = None;
        loop {
            if filled.end >= room.end {
                content.check_end(self.copy)?;
                break;
            }
            let page = match spare.take() {
                Some(page) => page,
                None => self.memory.alloc(SEGMENT_ALIGN, SEGMENT_ALIGN)?,
            };
            let (source, len) = match self.fill_page(content, page)? {
                PageContent::End => {
                    spare = Some(page);
                    break;
                }
                PageContent::Zeros(len) => {
                    filled.zero += SEGMENT_ALIGN;
                    spare = Some(page);
                    (ExtentSource::Zeros, len)
                }
                PageContent::Bytes(len) => (ExtentSource::At(page), len),
            };
            filled.len += len;
            self.push(Extent { source, destination: filled.end, len: SEGMENT_ALIGN })?;
            filled.end = Pa(filled.end.0 + SEGMENT_ALIGN);
        }
        if let Some(page) = spare {
            self.memory.free(PaRange::new(page, Pa(page.0 + SEGMENT_ALIGN)))?;
        }
        Ok(filled)
    }

    /// Leaves `lying` where it is, to be moved from there to `destination`.
    ///
    /// # Errors
    /// [`KexecError::Move`].
    pub fn move_from_memory(
        &mut self,
        name: &'static str,
        lying: InMemory,
        destination: Pa,
    ) -> Result<(), KexecError> {
        let pages = whole_pages(lying.at);
        let place = PaRange::new(destination, Pa(destination.0 + pages.len()));
        self.push(Extent { source: ExtentSource::At(pages.start), destination, len: pages.len() })?;
        self.segments.push(Segment {
            name,
            destination: place,
            staged: if pages == place { Staged::InPlace } else { Staged::At(pages.start) },
            len: lying.at.len(),
            zero: 0,
        });
        Ok(())
    }

    /// Leaves the `len` bytes of `pages`, which are at their destination already.
    pub fn leave_in_place(&mut self, name: &'static str, pages: PaRange, len: u64) {
        let memory = &*self.memory.memory;
        cpu::clean_and_invalidate(memory.layout.linear(pages.start), pages.len());
        let staged = Staged::InPlace;
        self.segments.push(Segment { name, destination: pages, staged, len, zero: 0 });
    }

    /// Writes the payload's device tree: the tree `dtb`, with the changes of `tree`.
    ///
    /// # Errors
    /// [`KexecError`].
    pub fn stage_tree(&mut self, dtb: &[u8], tree: &NextTree<'_>, place: PaRange) -> Result<(), KexecError> {
        let destination = whole_pages(place);
        let start = if self.in_place {
            destination.start
        } else {
            self.memory.alloc(destination.len(), SEGMENT_ALIGN)?
        };
        let range = PaRange::new(start, Pa(start.0 + destination.len()));
        // SAFETY: these bytes were allocated for this, and nothing else refers to them.
        let mut buffer = unsafe { self.memory.memory.owned_bytes(range) };
        let buffer = buffer.as_mut();
        buffer.fill(0);
        tree.rewrite(dtb, buffer)?;
        if self.in_place {
            cpu::clean_and_invalidate(self.memory.memory.layout.linear(start), range.len());
        } else {
            self.push(Extent {
                source: ExtentSource::At(start),
                destination: destination.start,
                len: range.len(),
            })?;
        }
        self.segments.push(Segment {
            name: "dtb",
            destination,
            staged: if self.in_place { Staged::InPlace } else { Staged::At(start) },
            len: place.len(),
            zero: 0,
        });
        Ok(())
    }
}

/// What a page was filled with.
enum PageContent {
    /// Nothing: the content has ended.
    End,
    /// This number of bytes, all zero: they are cleared instead of moved.
    Zeros(u64),
    /// This number of bytes.
    Bytes(u64),
}

/// Allocates a frame for the move list.
fn list_frame(memory: &mut PayloadMemory<'_>) -> Option<ListFrame<'static>> {
    const { assert!(LIST_FRAME_LEN == SEGMENT_ALIGN, "a list frame is a page") };
    let pa = memory.alloc(LIST_FRAME_LEN, LIST_FRAME_LEN).ok()?;
    let start = memory.memory.layout.linear(pa).0 as *mut [u64; LIST_FRAME_WORDS];
    // SAFETY: the frame was just allocated, is mapped there and aligned; any bytes are valid words.
    Some(ListFrame { pa, words: unsafe { &mut *start } })
}
