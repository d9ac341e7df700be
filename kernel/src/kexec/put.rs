//! Putting the parts of a payload where they belong, or where they wait to be moved there.

use core::iter;

use arrayvec::ArrayVec;
use linmap_kexec::{
    Extent, ExtentSource as From, LIST_FRAME_LEN, LIST_FRAME_WORDS, ListFrame, MovePlan, NextTree,
    SEGMENT_ALIGN, Unpacker,
};
use linmap_relocate::Sha256;
use linmap_vmsa::{Pa, PaRange};

use super::command::KexecError;
use super::load::Loader;
use super::loaded::{self, MAX_SEGMENTS, Segment, Source};
use crate::arch::cpu;

/// Bytes that the boot loader put somewhere.
#[derive(Clone, Copy)]
pub struct Lying {
    /// The bytes.
    pub bytes: &'static [u8],
    /// Where they are in memory.
    pub at: PaRange,
}

/// The plan, and the segments so far.
pub struct Put<'s, 'w> {
    /// The moves.
    pub plan: MovePlan<'s, 'static, 'w>,
    /// The parts that are there.
    pub segments: ArrayVec<Segment, MAX_SEGMENTS>,
    /// Whether everything goes to its place at once.
    pub here: bool,
}

/// What fills a segment.
pub enum Content<'c, 'a> {
    /// Bytes as they are.
    Bytes(&'c [u8]),
    /// What an unpacker makes.
    Packed(&'c mut Unpacker<'a>),
}

impl Content<'_, '_> {
    /// Fills `page` as far as there are bytes, and says how many.
    fn fill(&mut self, page: &mut [u8]) -> Result<usize, KexecError> {
        match self {
            Self::Bytes(bytes) => {
                let (now, later) = bytes.split_at(bytes.len().min(page.len()));
                page[..now.len()].copy_from_slice(now);
                *bytes = later;
                Ok(now.len())
            }
            Self::Packed(unpacker) => {
                let mut filled = 0;
                while filled < page.len() {
                    match unpacker.read(&mut page[filled..])? {
                        0 => break,
                        more => filled += more,
                    }
                }
                Ok(filled)
            }
        }
    }

    /// Checks that there is nothing left.
    fn end(&mut self) -> Result<(), KexecError> {
        let mut one = [0];
        match self.fill(&mut one)? {
            0 => Ok(()),
            _ => Err(KexecError::NoPayload("a part of it is longer than its place")),
        }
    }
}

impl Loader<'_, '_> {
    /// A frame for the move list.
    pub fn list_frame(&mut self) -> Option<ListFrame<'static>> {
        const { assert!(LIST_FRAME_LEN == SEGMENT_ALIGN, "a list frame is a page") };
        let pa = self.pool.alloc(self.machine, LIST_FRAME_LEN, LIST_FRAME_LEN).ok()?;
        let start = self.machine.layout.linear(pa).0 as *mut [u64; LIST_FRAME_WORDS];
        // SAFETY: the frame was just taken, is mapped there and aligned; any bytes are valid words.
        Some(ListFrame { pa, words: unsafe { &mut *start } })
    }

    /// Puts `content` into the segment `room`: to its place, or page by page elsewhere.
    pub fn put(
        &mut self,
        put: &mut Put<'_, '_>,
        name: &'static str,
        content: &mut Content<'_, '_>,
        room: PaRange,
    ) -> Result<(), KexecError> {
        let (mut len, mut zero) = (0u64, 0u64);
        let mut digest = Sha256::new();
        let mut at = room.start;
        // A page that was zeros serves again.
        let mut spare = None;
        loop {
            if at >= room.end {
                // The room is full: nothing may be left.
                content.end()?;
                break;
            }
            let page = match (put.here, spare.take()) {
                (true, _) => at,
                (false, Some(page)) => page,
                (false, None) => self.pool.alloc(self.machine, SEGMENT_ALIGN, SEGMENT_ALIGN)?,
            };
            let range = PaRange::new(page, Pa(page.0 + SEGMENT_ALIGN));
            // SAFETY: the page was taken for this, and nothing else refers to it.
            let bytes = unsafe { self.machine.bytes_mut(range) };
            let filled = content.fill(bytes)?;
            if filled == 0 {
                if !put.here {
                    spare = Some(page);
                }
                break;
            }
            bytes[filled..].fill(0);
            digest.update(bytes);
            len += filled as u64;
            if !put.here {
                let source = if bytes.iter().all(|byte| *byte == 0) {
                    zero += SEGMENT_ALIGN;
                    spare = Some(page);
                    From::Zeros
                } else {
                    From::At(page)
                };
                let extent = Extent { source, destination: at, len: SEGMENT_ALIGN };
                put.plan.push(extent, &mut iter::from_fn(|| self.list_frame()))?;
            }
            at = Pa(at.0 + SEGMENT_ALIGN);
        }
        if let Some(page) = spare {
            self.pool.give_back(self.machine, PaRange::new(page, Pa(page.0 + SEGMENT_ALIGN)))?;
        }
        if put.here {
            // The image's memory behind its file too. Where a move writes, it cleans; what it leaves may be in use until then.
            cpu::clean_and_invalidate(self.machine.layout.linear(room.start), room.len());
        }
        put.segments.push(Segment {
            name,
            destination: PaRange::new(room.start, at),
            source: if put.here { Source::InPlace } else { Source::Pages },
            len,
            zero,
            digest: digest.finish(),
        });
        Ok(())
    }

    /// Has `lying` moved from where it is to `destination`.
    pub fn put_lying(
        &mut self,
        put: &mut Put<'_, '_>,
        name: &'static str,
        lying: Lying,
        destination: Pa,
    ) -> Result<(), KexecError> {
        let pages = whole_pages(lying.at);
        let place = PaRange::new(destination, Pa(destination.0 + pages.len()));
        let extent = Extent { source: From::At(pages.start), destination, len: pages.len() };
        put.plan.push(extent, &mut iter::from_fn(|| self.list_frame()))?;
        let digest = loaded::digest(self.machine, pages);
        put.segments.push(Segment {
            name,
            destination: place,
            source: if pages == place { Source::InPlace } else { Source::At(pages.start) },
            len: lying.at.len(),
            zero: 0,
            digest,
        });
        Ok(())
    }

    /// Writes the payload's device tree.
    pub fn put_tree(
        &mut self,
        put: &mut Put<'_, '_>,
        tree: &NextTree<'_>,
        place: PaRange,
    ) -> Result<(), KexecError> {
        let destination = whole_pages(place);
        let start = if put.here {
            destination.start
        } else {
            self.pool.alloc(self.machine, destination.len(), SEGMENT_ALIGN)?
        };
        let range = PaRange::new(start, Pa(start.0 + destination.len()));
        // SAFETY: these bytes were taken for this, and nothing else refers to them.
        let buffer = unsafe { self.machine.bytes_mut(range) };
        buffer.fill(0);
        tree.rewrite(self.machine.dtb, buffer)?;
        let mut digest = Sha256::new();
        digest.update(buffer);
        if put.here {
            cpu::clean_and_invalidate(self.machine.layout.linear(start), range.len());
        } else {
            let extent = Extent { source: From::At(start), destination: destination.start, len: range.len() };
            put.plan.push(extent, &mut iter::from_fn(|| self.list_frame()))?;
        }
        put.segments.push(Segment {
            name: "dtb",
            destination,
            source: if put.here { Source::InPlace } else { Source::At(start) },
            len: place.len(),
            zero: 0,
            digest: digest.finish(),
        });
        Ok(())
    }
}

/// The pages that `range` touches.
pub fn whole_pages(range: PaRange) -> PaRange {
    range.align_outward(SEGMENT_ALIGN).unwrap_or(range)
}
