//! The search for places of image, device tree and initrd: which places are tried, and why these
//! are enough.

use core::iter;

use linmap_vmsa::{Granule, Pa, PaRange};

use crate::payload::{BASE_ALIGN, Image, PlacementFlag};

use super::part::Part;
use super::placement::{DTB_BLOCK, Initrd, PayloadPlacement};
use super::placement_error::PlacementError;
use super::window::{GIB, WINDOW_LEN, floor_gib, initrd_window};

/// The distance above its base within which an old kernel looks for its device tree.
const OLD_DTB_REACH: u64 = 0x2000_0000;
/// Payloads are placed below 2^48, whatever the machine's physical address size is.
const REACH: PaRange = PaRange::new(Pa(0), Pa(1 << 48));
/// Where a device tree or an initrd may be. For Linux, one at address 0 does not exist.
const NOT_NULL: PaRange = PaRange::new(Pa(PAGE), REACH.end);
/// Image and initrd share no page of any granule with other data, since the payload frees whole
/// pages.
const PAGE: u64 = Granule::K64.bytes();

/// The parts that may lie below the image, in their order.
const BELOW: [&[Part]; 4] =
    [&[Part::Dtb], &[Part::Initrd], &[Part::Dtb, Part::Initrd], &[Part::Initrd, Part::Dtb]];

/// The search for one payload's places.
///
/// Few bases must be tried for the image. Take places that obey the rules, and move the parts down:
/// the lowest first, each to the lowest place that the parts before it leave free. No part ends up
/// higher than before, so each finds room. So it is enough to try the image at the lowest base
/// above the parts that may lie below it, unless this breaks a rule between two parts. There are
/// two such rules. The initrd's window moves with the GiB of the image, so each GiB has its own
/// bases. And an old kernel that moves down may lose reach of its device tree. Nothing of an old
/// kernel lies below its base, but parts may lie between its base and the image.
pub(super) struct Search<'i, I> {
    /// The free memory, without an initrd that stays.
    space: Space<I>,
    image: &'i Image,
    initrd: Initrd,
    /// The range of an initrd that stays; empty, at 0, if there is none.
    stays: PaRange,
}

impl<'i, I> Search<'i, I>
where
    I: Iterator<Item = PaRange> + Clone,
{
    /// `stays` is the range of an initrd that stays; empty, at 0, if there is none.
    pub fn new(free: I, image: &'i Image, initrd: Initrd, stays: PaRange) -> Self {
        let space = Space { free, within: REACH, between: between(PaRange::default(), stays) };
        Self { space, image, initrd, stays }
    }

    /// Returns all bases to try, the best first.
    pub fn bases(&self) -> impl Iterator<Item = Pa> + use<'_, 'i, I> {
        let others = self.bases_behind_others().chain(self.bases_near_device_trees());
        self.lowest_bases().chain(others).chain(self.bases_behind_parts_between())
    }

    /// Returns the error for a search without any base.
    pub fn no_base(&self) -> PlacementError {
        let reach = PaRange::new(Pa(self.image.text_offset).min(REACH.end), REACH.end);
        let space = self.space.with(reach, PaRange::default(), self.stays);
        space.no_room(Part::Image, whole_pages(self.image.image_size), BASE_ALIGN)
    }

    /// Returns the rooms for the image, ascending: its base lies in free memory, and so does all of
    /// the image, but not what is between.
    fn rooms(&self) -> impl Iterator<Item = Room> + use<'_, 'i, I> {
        let offset = self.image.text_offset;
        let above = move |pa: Pa| Pa(pa.0.saturating_add(offset));
        let mut bases =
            self.space.free.clone().map(move |free| PaRange::new(above(free.start), above(free.end)));
        let mut gaps = self.space.gaps().filter(|gap| !gap.is_empty());
        let (mut starts, mut gap) = (bases.next(), gaps.next());
        iter::from_fn(move || {
            loop {
                let (from_bases, within) = (starts?, gap?);
                if from_bases.end < within.end {
                    starts = bases.next();
                } else {
                    gap = gaps.next();
                }
                let both = from_bases.intersection(within);
                if !both.is_empty() {
                    return Some(Room { starts: both, end: within.end });
                }
            }
        })
    }

    /// Returns the lowest base from `lowest` on with which the image lies in `room`.
    fn base_in(&self, room: Room, lowest: Pa) -> Option<Pa> {
        let offset = self.image.text_offset;
        let lowest = room.starts.start.0.saturating_sub(offset).max(lowest.0);
        let base = lowest.checked_next_multiple_of(BASE_ALIGN)?;
        let image = PaRange::from_len(Pa(base.checked_add(offset)?), whole_pages(self.image.image_size))?;
        (image.start < room.starts.end && image.end <= room.end).then_some(Pa(base))
    }

    /// Returns the lowest base with which the image lies in `room`, and in each GiB of it.
    fn bases_in(&self, room: Room) -> impl Iterator<Item = Pa> + use<'_, 'i, I> {
        let offset = self.image.text_offset;
        iter::successors(self.base_in(room, Pa(0)), move |base| {
            let start = Pa(base.0.saturating_add(offset));
            let next = floor_gib(start).saturating_add(GIB).saturating_sub(offset);
            self.base_in(room, Pa(next))
        })
    }

    /// Returns the lowest base in each room, and in each GiB of it. If an image moves down within a
    /// GiB, the upper end of its window stays, and the lower end does not rise.
    fn lowest_bases(&self) -> impl Iterator<Item = Pa> + use<'_, 'i, I> {
        self.rooms().flat_map(move |room| self.bases_in(room))
    }

    /// Returns for each of [`lowest_bases`](Self::lowest_bases) the lowest bases above the parts
    /// that may lie below the image; none for a kernel that cannot use memory below its base.
    fn bases_behind_others(&self) -> impl Iterator<Item = Pa> + use<'_, 'i, I> {
        let bases = self.lowest_bases().filter(|_| self.image.placement == PlacementFlag::Anywhere);
        bases.flat_map(move |base| {
            let at = self.image_at(base);
            let end = floor_gib(at.start).saturating_add(WINDOW_LEN);
            // The start of the window depends on the GiB in which the image ends, which may be the
            // next one.
            let last_gib = at.end.0.checked_next_multiple_of(GIB).unwrap_or(u64::MAX);
            let windows = [last_gib, last_gib.saturating_add(GIB)]
                .map(|last| PaRange::new(Pa(last.saturating_sub(WINDOW_LEN)), Pa(end)));
            let pairs = windows.into_iter().flat_map(|window| BELOW.map(|below| (window, below)));
            pairs.filter_map(move |(window, below)| self.base_behind(base, window, below))
        })
    }

    /// Returns the lowest base from `lowest` on if the parts `below` are placed first, an initrd in
    /// `window`.
    fn base_behind(&self, lowest: Pa, window: PaRange, below: &[Part]) -> Option<Pa> {
        let (mut block, mut initrd) = (PaRange::default(), self.stays);
        for part in below {
            match (part, self.initrd) {
                (Part::Dtb, _) => block = self.dtb_block(REACH, initrd, PaRange::default()).ok()?,
                (Part::Initrd, Initrd::Len(len)) => {
                    initrd = self.initrd_room(len, window, block, PaRange::default()).ok()?;
                }
                _ => {}
            }
        }
        self.base_from(lowest, block, initrd)
    }

    /// Returns the lowest bases from which an old kernel reaches a device tree that cannot move
    /// down with it: the lowest in a free range, or the lowest there above the initrd. (A device
    /// tree above the image can move down with it.) Returns none for other kernels.
    fn bases_near_device_trees(&self) -> impl Iterator<Item = Pa> + use<'_, 'i, I> {
        let gaps = self.space.gaps().filter(|_| self.image.placement == PlacementFlag::NearDramBase);
        gaps.flat_map(move |gap| {
            let gap = gap.intersection(NOT_NULL);
            let behind = match self.initrd {
                Initrd::Len(len) => fit(gap, whole_pages(len), PAGE)
                    .map(|start| PaRange::new(Pa(start.0.saturating_add(whole_pages(len))), gap.end)),
                Initrd::Absent | Initrd::At(_) => None,
            };
            [Some(gap), behind].into_iter().flatten().filter_map(move |gap| {
                let end = fit(gap, DTB_BLOCK, DTB_BLOCK)?.0.saturating_add(DTB_BLOCK);
                let lowest = Pa(end.saturating_sub(OLD_DTB_REACH));
                self.base_from(lowest, PaRange::default(), PaRange::default())
            })
        })
    }

    /// Returns for an old kernel the lowest bases in each room, and in each GiB of it, with the
    /// image after parts at the start of the room's free range: parts between a base and an image
    /// move down together with both until they are there. Returns none for other kernels.
    fn bases_behind_parts_between(&self) -> impl Iterator<Item = Pa> + use<'_, 'i, I> {
        let gaps = self.space.gaps().filter(|_| self.image.placement == PlacementFlag::NearDramBase);
        let pairs = gaps.flat_map(|gap| BELOW.map(|below| (gap, below)));
        pairs
            .flat_map(move |(gap, below)| {
                let behind = self.behind(gap.intersection(NOT_NULL), below);
                let behind = behind.map(|behind| PaRange::new(behind, gap.end));
                behind.into_iter().flat_map(move |behind| {
                    self.rooms()
                        .filter_map(move |room| (room.end == behind.end).then(|| room.within(behind))?)
                })
            })
            .flat_map(move |room| self.bases_in(room))
    }

    /// Returns where the parts `below` end that are placed one after the other at the start of
    /// `gap`.
    fn behind(&self, gap: PaRange, below: &[Part]) -> Option<Pa> {
        below.iter().try_fold(gap.start, |start, part| {
            let (len, align) = match (part, self.initrd) {
                (Part::Dtb, _) => (DTB_BLOCK, DTB_BLOCK),
                (Part::Initrd, Initrd::Len(len)) => (whole_pages(len), PAGE),
                _ => return Some(start),
            };
            let start = fit(PaRange::new(start, gap.end), len, align)?;
            Some(Pa(start.0.saturating_add(len)))
        })
    }

    /// Returns the lowest base from `lowest` on with room for the image beside `one` and `other`.
    /// These may lie between the base and the image.
    fn base_from(&self, lowest: Pa, one: PaRange, other: PaRange) -> Option<Pa> {
        let between = between(one, other);
        self.rooms().find_map(|room| {
            let beside = between.map(|free| room.within(free));
            beside.into_iter().flatten().find_map(|room| self.base_in(room, lowest))
        })
    }

    /// Returns the range of the image at this base.
    fn image_at(&self, base: Pa) -> PaRange {
        from(Pa(base.0.saturating_add(self.image.text_offset)), self.image.image_size)
    }

    /// Tries a base at which the image fits. Device tree and initrd are placed one after the other,
    /// in both orders: if they fit at all, they fit if the lower one is placed first.
    pub fn at(&self, base: Pa, dtb_len: u64) -> Result<PayloadPlacement, PlacementError> {
        let at = self.image_at(base);
        let claimed = from(at.start, whole_pages(self.image.image_size));
        let [for_dtb, for_initrd] = match self.image.placement {
            PlacementFlag::Anywhere => [REACH, REACH],
            PlacementFlag::NearDramBase => [from(base, OLD_DTB_REACH), PaRange::new(base, REACH.end)],
        };
        let window = initrd_window(at).intersection(for_initrd);
        if !window.covers(self.stays) {
            return Err(PlacementError::InitrdOutsideWindow { initrd: self.stays, image: at, window });
        }
        let dtb = |initrd| self.dtb_block(for_dtb, initrd, claimed);
        let (block, initrd) = match self.initrd {
            Initrd::Absent => (dtb(PaRange::default())?, None),
            Initrd::At(stays) => (dtb(stays)?, Some(stays)),
            Initrd::Len(len) => {
                let initrd = |block| self.initrd_room(len, window, block, claimed);
                let dtb_first =
                    dtb(PaRange::default()).and_then(|block| initrd(block).map(|room| (block, room)));
                let initrd_first =
                    || initrd(PaRange::default()).and_then(|room| dtb(room).map(|block| (block, room)));
                let (block, room) = dtb_first.or_else(|error| initrd_first().map_err(|_| error))?;
                (block, Some(from(room.start, len)))
            }
        };
        Ok(PayloadPlacement { image: at, initrd, dtb: from(block.start, dtb_len) })
    }

    fn dtb_block(&self, within: PaRange, one: PaRange, other: PaRange) -> Result<PaRange, PlacementError> {
        self.space.with(within.intersection(NOT_NULL), one, other).lowest(Part::Dtb, DTB_BLOCK, DTB_BLOCK)
    }

    fn initrd_room(
        &self,
        len: u64,
        within: PaRange,
        one: PaRange,
        other: PaRange,
    ) -> Result<PaRange, PlacementError> {
        self.space.with(within.intersection(NOT_NULL), one, other).lowest(
            Part::Initrd,
            whole_pages(len),
            PAGE,
        )
    }
}

/// A free range, as the image sees it.
#[derive(Clone, Copy)]
struct Room {
    /// Where the image may start.
    starts: PaRange,
    /// Where it has to end.
    end: Pa,
}

impl Room {
    /// Returns the part of the room in `range`.
    fn within(self, range: PaRange) -> Option<Self> {
        let starts = self.starts.intersection(range);
        (!starts.is_empty()).then_some(Self { starts, end: self.end.min(range.end) })
    }
}

/// The free memory within a range.
struct Space<I> {
    free: I,
    within: PaRange,
    /// The ranges between those that placed parts occupy.
    between: [PaRange; 3],
}

impl<I> Space<I>
where
    I: Iterator<Item = PaRange> + Clone,
{
    /// Returns the same memory with other bounds, without the ranges `one` and `other`.
    fn with(&self, within: PaRange, one: PaRange, other: PaRange) -> Self {
        Self { free: self.free.clone(), within, between: between(one, other) }
    }

    /// Returns the free ranges, ascending.
    fn gaps(&self) -> impl Iterator<Item = PaRange> + use<I> {
        let (within, between) = (self.within, self.between);
        let pieces = move |range| between.map(|gap| gap.intersection(range).intersection(within));
        self.free.clone().flat_map(pieces)
    }

    fn lowest(&self, part: Part, len: u64, align: u64) -> Result<PaRange, PlacementError> {
        self.gaps()
            .find_map(|gap| fit(gap, len, align).and_then(|start| PaRange::from_len(start, len)))
            .ok_or_else(|| self.no_room(part, len, align))
    }

    fn no_room(&self, part: Part, len: u64, align: u64) -> PlacementError {
        let largest = self.gaps().map(PaRange::len).max().unwrap_or(0);
        PlacementError::NoRoom { part, len, align, within: self.within, largest }
    }
}

/// Returns the ranges below, between and above two ranges that are apart. An empty range is at 0.
fn between(one: PaRange, other: PaRange) -> [PaRange; 3] {
    // Ordered by their ends: an empty range at 0 must come before one that starts at 0.
    let [first, second] = if one.end < other.end { [one, other] } else { [other, one] };
    [
        PaRange::new(Pa(0), first.start),
        PaRange::new(first.end, second.start),
        PaRange::new(second.end, Pa(u64::MAX)),
    ]
}

/// Returns the lowest aligned start from which `len` bytes lie in `range`.
fn fit(range: PaRange, len: u64, align: u64) -> Option<Pa> {
    let start = Pa(range.start.0.checked_next_multiple_of(align)?);
    let wanted = PaRange::from_len(start, len)?;
    (wanted.end <= range.end).then_some(start)
}

/// Rounds `len` up to whole pages of any granule. A length that would overflow counts as infinite.
fn whole_pages(len: u64) -> u64 {
    len.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

/// Returns `len` bytes from `start`. A sum that saturates lies above all free memory.
fn from(start: Pa, len: u64) -> PaRange {
    PaRange::new(start, Pa(start.0.saturating_add(len)))
}
