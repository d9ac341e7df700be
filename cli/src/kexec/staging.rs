//! A load as linmap's kernel does it, in the memory of a machine that need not be there.
//!
//! Each part is staged at its destination if that memory is free, so that nothing is left to move
//! at the hand-over. A payload that does not fit into free memory, or that has to arrive in pieces,
//! is staged page by page elsewhere.

use std::collections::BTreeMap;
use std::iter;
use std::num::NonZeroUsize;
use std::slice;

use linmap_kexec::{
    Extent, ExtentSource, IndEntry, Initrd, LIST_FRAME_LEN, LIST_FRAME_WORDS, ListFrame, MAX_SHARES,
    MovePlan, Moves, PayloadPlacement, Pending, RECORDS_PER_FRAME, SEGMENT_ALIGN, Segments, fill_with_usable,
};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};

use crate::failure::Failure;
use crate::kexec::payload::Kernel;
use crate::kexec::tree::Tree;
use crate::plan::machine::{Machine, REGIONS};

/// The content of a frame of a list.
type Words = [u64; LIST_FRAME_WORDS];

/// What is loaded.
#[derive(Debug)]
pub struct Payload<'p> {
    /// The kernel.
    pub kernel: &'p Kernel,
    /// Its initrd.
    pub initrd: Option<&'p [u8]>,
    /// Its device tree.
    pub tree: &'p Tree<'p>,
}

/// How it is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Where its parts are until the hand-over.
    pub staging: Staging,
    /// CPUs that share the move.
    pub cpus: NonZeroUsize,
}

/// Where the parts of a payload are until the hand-over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Staging {
    /// At their destinations, if those are free.
    InPlace,
    /// Page by page in unrelated frames.
    Scattered,
}

/// Where one segment is until the hand-over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Staged {
    /// At its destination.
    InPlace,
    /// Here, as a whole.
    At(Pa),
    /// In frames all over free memory.
    Pages,
}

/// A part of the payload.
#[derive(Debug)]
pub struct Segment {
    /// What it is.
    pub name: &'static str,
    /// The pages that it fills.
    pub destination: PaRange,
    /// Where it is until then.
    pub staged: Staged,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes of its pages that are cleared instead of moved, since they are zeros.
    pub cleared: u64,
}

impl Segment {
    /// Bytes of its pages that stay where they are.
    pub fn in_place(&self) -> u64 {
        if self.staged == Staged::InPlace { self.destination.len() } else { 0 }
    }

    /// Bytes of its pages that are moved.
    pub fn moved(&self) -> u64 {
        self.destination.len() - self.in_place() - self.cleared
    }
}

/// A loaded payload.
#[derive(Debug)]
pub struct KexecPlan {
    /// The place of each part.
    pub placed: PayloadPlacement,
    /// Its parts.
    pub segments: Vec<Segment>,
    /// What is moved.
    pub moves: Moves,
    /// The frames of the move lists.
    frames: BTreeMap<Pa, Words>,
}

/// The moves as Linux's list of pages.
#[derive(Debug)]
pub struct LinuxList {
    /// The page of zeros.
    pub zeros: Pa,
    /// Its entries, the head first.
    pub entries: Vec<IndEntry>,
}

impl KexecPlan {
    /// Loads `payload` into the memory of `machine`.
    pub fn new(machine: &mut Machine, payload: &Payload<'_>, load: Load) -> Result<Self, Failure> {
        let (placed, is_free) = place(machine, payload, load.staging)?;
        let tree = payload.tree.write(placed.initrd)?;
        let memory = &mut *machine.memory;
        let mut destinations = Vec::new();
        for part in [Some(placed.image), placed.initrd, Some(placed.dtb)].into_iter().flatten() {
            let whole = whole_pages(part)?;
            memory.reserve(whole)?;
            destinations.push(whole);
        }
        let bytes = payload.kernel.bytes.len() + payload.initrd.map_or(0, <[u8]>::len) + tree.len();
        let lists = load.cpus.get().min(MAX_SHARES);
        let records = bytes / SEGMENT_ALIGN as usize;
        let mut rooms = vec![[0; LIST_FRAME_WORDS]; records / (RECORDS_PER_FRAME - 1) + 2 * lists + 8];
        let mut frames = Frames { memory, rooms: rooms.iter_mut(), taken: Vec::new() };
        let staging = if is_free { load.staging } else { Staging::Scattered };
        let (segments, moves) =
            stage(payload, &tree, &placed, &destinations, staging, load.cpus, &mut frames)?;
        let taken = frames.taken;
        Ok(Self { placed, segments, moves, frames: taken.into_iter().zip(rooms).collect() })
    }

    /// Writes the moves as Linux's list, to pages of `memory` that are free.
    pub fn linux_list(&self, memory: &mut Memblock<REGIONS>) -> Result<LinuxList, Failure> {
        let frame_at = |pa: Pa| self.frames.get(&pa);
        let count = self.moves.ind_pages(frame_at)?;
        let everywhere = PaRange::new(Pa(0), memory.memory_end());
        let zeros = memory.alloc((1 + count) * LIST_FRAME_LEN, LIST_FRAME_LEN, everywhere)?;
        let mut rooms = vec![[0; LIST_FRAME_WORDS]; count as usize];
        let pages = (1..)
            .zip(&mut rooms)
            .map(|(nth, words)| ListFrame { pa: Pa(zeros.0 + nth * LIST_FRAME_LEN), words });
        let entries = self.moves.ind_list(zeros, pages, frame_at).collect::<Result<_, _>>()?;
        Ok(LinuxList { zeros, entries })
    }
}

/// Stages all parts, and orders the moves.
fn stage<'f>(
    payload: &Payload<'_>,
    tree: &[u8],
    placed: &PayloadPlacement,
    destinations: &[PaRange],
    staging: Staging,
    cpus: NonZeroUsize,
    frames: &mut Frames<'_, 'f>,
) -> Result<(Vec<Segment>, Moves), Failure> {
    let mut workspace = [Pending::UNUSED; 64];
    let plan = MovePlan::new(Segments::new(destinations)?, &mut workspace, None, cpus)?;
    let mut stage = Stage { plan, frames, staging, segments: Vec::new() };
    stage.stage("image", &payload.kernel.bytes, placed.image)?;
    if let (Some(initrd), Some(destination)) = (payload.initrd, placed.initrd) {
        stage.stage("initrd", initrd, destination)?;
    }
    stage.stage_whole("dtb", tree, placed.dtb)?;
    let Stage { plan, segments, frames, .. } = stage;
    let moves = plan.finish(&mut iter::from_fn(|| frames.next()))?;
    Ok((segments, moves))
}

/// Chooses the destinations: in free memory, else in all memory that the running kernel uses until
/// the hand-over. Returns whether they are free.
fn place(
    machine: &Machine,
    payload: &Payload<'_>,
    staging: Staging,
) -> Result<(PayloadPlacement, bool), Failure> {
    let memory = &machine.memory;
    let everywhere = PaRange::new(Pa(0), memory.memory_end());
    let len = payload.initrd.map(|initrd| initrd.len() as u64);
    let initrd = len.map_or(Initrd::Absent, Initrd::Len);
    let (image, dtb_len) = (&payload.kernel.image, payload.tree.measure(len)?);
    let free = PayloadPlacement::lowest(memory.free_ranges(everywhere), image, initrd, dtb_len);
    let error = match free {
        Ok(placed) => return Ok((placed, true)),
        Err(error) if staging == Staging::Scattered => return Err(error.into()),
        Err(error) => error,
    };
    let mut usable = Box::new(Memblock::<REGIONS>::new());
    let image_range = machine.image.map_or(PaRange::default(), |image| image.parts.range());
    let given_up = [image_range, payload.tree.vacated().unwrap_or_default()];
    let kept = memory.reserved().iter().flat_map(|&reserved| without(reserved, &given_up));
    fill_with_usable(&mut usable, memory, kept)?;
    match PayloadPlacement::lowest(usable.free_ranges(everywhere), image, initrd, dtb_len) {
        Ok(placed) => Ok((placed, false)),
        Err(_) => Err(error.into()),
    }
}

/// The parts of `range` outside of `holes`.
fn without(range: PaRange, holes: &[PaRange]) -> Vec<PaRange> {
    holes.iter().fold(vec![range], |parts, hole| {
        let around = |part: PaRange| {
            let below = PaRange::new(part.start, part.end.min(hole.start));
            let above = PaRange::new(part.start.max(hole.end), part.end);
            if part.overlaps(*hole) { [below, above] } else { [part, PaRange::default()] }
        };
        parts.into_iter().flat_map(around).filter(|part| !part.is_empty()).collect()
    })
}

fn whole_pages(range: PaRange) -> Result<PaRange, Failure> {
    let whole = range.align_outward(SEGMENT_ALIGN);
    whole.ok_or_else(|| Failure::new(format_args!("{range} is not memory of whole pages")))
}

/// Where frames come from: free memory, and room for the content of those that a list is in.
struct Frames<'m, 'f> {
    memory: &'m mut Memblock<REGIONS>,
    rooms: slice::IterMut<'f, Words>,
    taken: Vec<Pa>,
}

impl<'f> Frames<'_, 'f> {
    fn alloc(&mut self, len: u64) -> Result<Pa, Failure> {
        let everywhere = PaRange::new(Pa(0), self.memory.memory_end());
        Ok(self.memory.alloc(len, SEGMENT_ALIGN, everywhere)?)
    }

    /// The next frame for a list.
    fn next(&mut self) -> Option<ListFrame<'f>> {
        let pa = self.alloc(LIST_FRAME_LEN).ok()?;
        let words = self.rooms.next()?;
        self.taken.push(pa);
        Some(ListFrame { pa, words })
    }
}

struct Stage<'s, 'f, 'w, 'a, 'm> {
    plan: MovePlan<'s, 'f, 'w>,
    frames: &'a mut Frames<'m, 'f>,
    staging: Staging,
    segments: Vec<Segment>,
}

impl Stage<'_, '_, '_, '_, '_> {
    fn push(&mut self, source: ExtentSource, destination: Pa, len: u64) -> Result<(), Failure> {
        let Self { plan, frames, .. } = self;
        Ok(plan.push(Extent { source, destination, len }, &mut iter::from_fn(|| frames.next()))?)
    }

    /// Stages `bytes` for `place`: there, or page by page elsewhere.
    fn stage(&mut self, name: &'static str, bytes: &[u8], place: PaRange) -> Result<(), Failure> {
        if self.staging == Staging::InPlace {
            return self.stage_at(name, bytes, place, place.start);
        }
        let (mut cleared, mut next) = (0, place.start);
        for page in bytes.chunks(SEGMENT_ALIGN as usize) {
            let source = if page.iter().all(|byte| *byte == 0) {
                cleared += SEGMENT_ALIGN;
                ExtentSource::Zeros
            } else {
                ExtentSource::At(self.frames.alloc(SEGMENT_ALIGN)?)
            };
            self.push(source, next, SEGMENT_ALIGN)?;
            next = Pa(next.0 + SEGMENT_ALIGN);
        }
        let destination = PaRange::new(place.start, next);
        let bytes = bytes.len() as u64;
        self.segments.push(Segment { name, destination, staged: Staged::Pages, bytes, cleared });
        Ok(())
    }

    /// Stages `bytes` for `place`: there, or in one piece elsewhere.
    fn stage_whole(&mut self, name: &'static str, bytes: &[u8], place: PaRange) -> Result<(), Failure> {
        let at = match self.staging {
            Staging::InPlace => place.start,
            Staging::Scattered => self.frames.alloc(whole_pages(place)?.len())?,
        };
        self.stage_at(name, bytes, place, at)
    }

    fn stage_at(&mut self, name: &'static str, bytes: &[u8], place: PaRange, at: Pa) -> Result<(), Failure> {
        let filled = PaRange::from_len(place.start, bytes.len() as u64).unwrap_or(place);
        let destination = whole_pages(filled)?;
        self.push(ExtentSource::At(at), destination.start, destination.len())?;
        let staged = if at == destination.start { Staged::InPlace } else { Staged::At(at) };
        self.segments.push(Segment { name, destination, staged, bytes: bytes.len() as u64, cleared: 0 });
        Ok(())
    }
}
