//! Loading the payload and handing over to it. Everything that can fail fails while loading; then memblock is as before.

use core::convert::Infallible;
use core::ops::Range;
use core::slice;

use arrayvec::ArrayVec;
use linmap::frames::MemblockFrames;
use linmap::ranges::MappingList;
use linmap_kexec::{
    Archive, COMMAND_LINE_MAX, Chosen, ChosenError, CommandLine, CommandLineError, Extent, Image, ImageError,
    Initrd, LIST_FRAME_LEN, LIST_FRAME_WORDS, ListFrame, MoveError, MovePlan, Placed, PlacementError,
    SEGMENT_ALIGN, SegmentError, Segments, Transition, TransitionError,
};
use linmap_memblock::{AllocError, RegionError};
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Granule, Pa, PaRange, Va};
use thiserror::Error;

use crate::cpus::CpuError;
use crate::machine::{Machine, MachineError, REGIONS};
use crate::relocation::{self, HandOver};
use crate::{cpu, cpus, report};

/// Why the payload was not entered.
#[derive(Debug, Error)]
pub enum KexecError {
    /// There is nothing to load.
    #[error("there is no payload: {0}")]
    NoPayload(&'static str),
    /// `linmap.payload=` names none.
    #[error("linmap.payload= names no payload; there are linux, self and none")]
    UnknownPayload,
    /// A word of the command line should have a number.
    #[error("{key}= is set to what is no number")]
    NotANumber {
        /// The word.
        key: &'static str,
    },
    /// The archive can't be read.
    #[error(transparent)]
    Archive(#[from] MachineError),
    /// A member of the archive is no text.
    #[error("the archive's {name} is no text: byte {at} is not UTF-8")]
    NotText {
        /// The member.
        name: &'static str,
        /// Where the text ends.
        at: usize,
    },
    /// The image is none, or one that can't run here.
    #[error("Image: {0}")]
    Image(#[from] ImageError),
    /// The command line can't be made.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// The device tree can't be rewritten.
    #[error(transparent)]
    DeviceTree(#[from] ChosenError),
    /// There is no place for a part of the payload.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The destinations are no segments.
    #[error(transparent)]
    Segments(#[from] SegmentError),
    /// The plan refuses a move.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// No memory is left for the payload's pages or the move list.
    #[error(transparent)]
    Memory(#[from] AllocError),
    /// Memblock has no room to note a destination.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// Another CPU can't be switched off.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// There are no transitional tables.
    #[error("transitional tables: {0}")]
    Transition(#[from] TransitionError),
}

impl KexecError {
    /// The error's kind in a line for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Archive(error) => error.kind(),
            Self::Image(_) => "image",
            Self::Placement(_) => "placement",
            Self::Cpu(_) => "cpus",
            _ => "kexec",
        }
    }
}

/// What to hand over to.
#[derive(Clone, Copy, Debug)]
pub enum Payload {
    /// The kernel of the archive.
    Linux,
    /// linmap again, with the same archive, as this generation.
    Myself(u64),
}

/// How many kexecs of linmap into itself led here.
pub fn generation(command_line: CommandLine<'_>) -> Result<u64, KexecError> {
    number(command_line, "linmap.generation", 0)
}

/// The number that `key` is set to, or `unset`.
fn number(command_line: CommandLine<'_>, key: &'static str, unset: u64) -> Result<u64, KexecError> {
    match command_line.get(key) {
        None => Ok(unset),
        Some(value) => value.parse().map_err(|_| KexecError::NotANumber { key }),
    }
}

/// The payload that the command line and the archive ask for, or `None` when the boot ends here.
pub fn payload(machine: &Machine<'_>) -> Result<Option<Payload>, KexecError> {
    let command_line = CommandLine(machine.command_line);
    let generation = machine.generation;
    let last = number(command_line, "linmap.generations", 1)?;
    match command_line.get("linmap.payload") {
        Some("none") => Ok(None),
        Some("self") => Ok((generation < last).then(|| Payload::Myself(generation + 1))),
        Some("linux") | None => Ok(machine.archive()?.map(|_| Payload::Linux)),
        Some(_) => Err(KexecError::UnknownPayload),
    }
}

/// Loads the payload and enters it; returns only with an error.
pub fn run(machine: &mut Machine<'_>) -> Result<Infallible, KexecError> {
    let payload = payload(machine)?.ok_or(KexecError::NoPayload("this is the last generation"))?;
    cpus::can_stop_all(machine)?;
    let before = machine.memblock.clone();
    let loaded = load(machine, payload).and_then(|hand_over| {
        cpus::stop_all(machine)?;
        Ok(hand_over)
    });
    match loaded {
        Ok(hand_over) => {
            report!(
                "state=kexec entry={} dtb={} el={}",
                hand_over.entry,
                hand_over.dtb,
                machine.entered.el()
            );
            // SAFETY: `load` made what the contract asks for; TTBR0 has been on the reserved table, with nothing cached,
            // since the linear map was built; interrupts have been masked since the entry, and all other CPUs are off.
            unsafe { hand_over.go() }
        }
        Err(error) => {
            machine.memblock.clone_from(&before);
            Err(error)
        }
    }
}

fn load(machine: &mut Machine<'_>, payload: Payload) -> Result<HandOver, KexecError> {
    let started = cpu::counter();
    let archive = machine.archive()?.ok_or(KexecError::NoPayload("the boot loader passed no archive"))?;
    let file = archive.find("Image").ok_or(KexecError::NoPayload("the archive has no Image"))?.data;
    let image = Image::parse(file, file.len() as u64)?;
    let granules = [Granule::K4, Granule::K16, Granule::K64];
    let supported = granules.map(|granule| machine.features.mmfr0.supports(granule).then_some(granule));
    let supported: ArrayVec<Granule, 3> = supported.into_iter().flatten().collect();
    image.check_page_size(&supported)?;

    let mut text = [0; COMMAND_LINE_MAX - 1];
    let own = CommandLine(machine.command_line);
    let (bootargs, initrd_file, initrd) = match payload {
        Payload::Linux => {
            let theirs = CommandLine(member_text(&archive, "cmdline")?);
            let initrd_file =
                archive.find("initrd").map(|member| member.data).filter(|data| !data.is_empty());
            let initrd = initrd_file.map_or(Initrd::Absent, |data| Initrd::Len(data.len() as u64));
            (own.for_payload(theirs, &mut text)?, initrd_file, initrd)
        }
        // The archive goes on as it lies.
        Payload::Myself(next) => {
            let initrd = machine.initrd.map_or(Initrd::Absent, Initrd::At);
            (own.for_generation(next, &mut text)?, None, initrd)
        }
    };

    // The tree's length does not depend on where the initrd is.
    let anywhere = (initrd != Initrd::Absent).then(PaRange::default);
    let dtb_len = Chosen { bootargs, initrd: anywhere }.measure(machine.dtb)?;
    let everywhere = PaRange::new(Pa(0), machine.memblock.memory_end());
    let free: ArrayVec<PaRange, REGIONS> = machine.memblock.free_ranges(everywhere).take(REGIONS).collect();
    let placed = Placed::lowest(free.iter().copied(), &image, initrd, dtb_len as u64)?;
    let chosen = Chosen { bootargs, initrd: placed.initrd };

    // From here on nothing that is taken from memblock lies in a destination.
    let mut destinations = ArrayVec::<PaRange, 3>::new();
    let moved_initrd = placed.initrd.filter(|_| initrd_file.is_some());
    for range in [Some(placed.image), moved_initrd, Some(placed.dtb)].into_iter().flatten() {
        let whole = range.align_outward(SEGMENT_ALIGN).unwrap_or(range);
        machine.memblock.reserve(whole)?;
        destinations.push(whole);
    }
    let segments = Segments::new(&destinations)?;
    // The move cleans what it writes. What it leaves alone is cleaned now: the image's memory behind its file, and an
    // initrd that stays.
    let file_end = Pa(placed.image.start.0 + (file.len() as u64).next_multiple_of(SEGMENT_ALIGN));
    let stays = placed.initrd.filter(|_| moved_initrd.is_none());
    for range in [Some(PaRange::new(file_end, placed.image.end)), stays].into_iter().flatten() {
        cpu::clean_and_invalidate(machine.layout.linear(range.start), range.len());
    }

    let mut loader = Loader { machine, limit: everywhere };
    let mut plan = MovePlan::new(segments, loader.list_frame()?)?;
    loader.scatter(&mut plan, file, placed.image.start)?;
    if let (Some(data), Some(place)) = (initrd_file, placed.initrd) {
        loader.scatter(&mut plan, data, place.start)?;
    }
    loader.device_tree(&mut plan, &chosen, placed.dtb)?;
    let moves = plan.finish();

    let code = loader.page()?;
    let page = code.range(loader.machine);
    // SAFETY: the page was just taken and is larger than the code.
    let bytes = unsafe { code.bytes(loader.machine) };
    bytes[..relocation::code().len()].copy_from_slice(relocation::code());
    cpu::clean_and_invalidate(Va(page.start), page.end - page.start);
    cpu::invalidate_instructions();

    let mut mappings = MappingList::new();
    let layout = loader.machine.layout;
    let (mut window, memory) = (loader.machine.tables(), loader.machine.memblock.clone());
    let mut frames = MemblockFrames::new(loader.machine.memblock, layout.geometry());
    let transition = Transition::build(&layout, &memory, code.0, &mut mappings, &mut window, &mut frames)?;
    let tables = transition.linear.built().tables + transition.code.built().tables;
    report!(
        "phase=kexec-load ticks={} segments={} bytes={} extents={} list_frames={} tables={tables} image={} dtb={}",
        cpu::ticks_since(started),
        destinations.len(),
        moves.bytes,
        moves.extents,
        moves.frames,
        placed.image.start,
        placed.dtb.start
    );
    Ok(HandOver {
        list: moves,
        entry: placed.entry(),
        dtb: placed.dtb.start,
        code: code.0,
        offset: layout.offset(),
        code_map: transition.code,
        ttbr1: ttbr(layout.geometry(), transition.linear.root(), 0),
        reserved: machine.reserved,
        entered: machine.entered,
    })
}

fn member_text<'a>(archive: &Archive<'a>, name: &'static str) -> Result<&'a str, KexecError> {
    let Some(member) = archive.find(name) else { return Ok("") };
    let text = core::str::from_utf8(member.data)
        .map_err(|error| KexecError::NotText { name, at: error.valid_up_to() })?;
    Ok(text.trim_end_matches('\0').trim())
}

/// A page taken from memblock.
#[derive(Clone, Copy)]
struct Page(Pa);

impl Page {
    /// Where the linear map has the page.
    fn range(self, machine: &Machine<'_>) -> Range<u64> {
        let start = machine.layout.linear(self.0).0;
        start..start + SEGMENT_ALIGN
    }

    /// The page's bytes.
    ///
    /// # Safety
    /// The page must have been taken by `page` and be referred to by nothing else.
    unsafe fn bytes<'p>(self, machine: &Machine<'_>) -> &'p mut [u8] {
        let range = self.range(machine);
        // SAFETY: the linear map has the page there, writable, since memblock hands out only memory that it maps; the
        // caller vouches that this is the only reference.
        unsafe { slice::from_raw_parts_mut(range.start as *mut u8, SEGMENT_ALIGN as usize) }
    }
}

/// Takes the pages that the payload waits in.
struct Loader<'a, 'm> {
    machine: &'a mut Machine<'m>,
    limit: PaRange,
}

impl Loader<'_, '_> {
    fn page(&mut self) -> Result<Page, KexecError> {
        Ok(Page(self.machine.memblock.alloc(SEGMENT_ALIGN, SEGMENT_ALIGN, self.limit)?))
    }

    fn list_frame(&mut self) -> Result<ListFrame<'static>, KexecError> {
        const { assert!(LIST_FRAME_LEN == SEGMENT_ALIGN, "a list frame is a page") };
        let page = self.page()?;
        let start = page.range(self.machine).start as *mut [u64; LIST_FRAME_WORDS];
        // SAFETY: as for `Page::bytes`; the page was just taken, is aligned, and any bytes are valid words.
        Ok(ListFrame { pa: page.0, words: unsafe { &mut *start } })
    }

    /// Adds an extent, and a list frame when the plan asks for one.
    fn push(&mut self, plan: &mut MovePlan<'_, '_>, extent: Extent) -> Result<(), KexecError> {
        match plan.push(extent) {
            Err(MoveError::Full) => {
                plan.add_frame(self.list_frame()?)?;
                Ok(plan.push(extent)?)
            }
            other => Ok(other?),
        }
    }

    /// Copies `data` into pages of its own, as a loader has to that gets it piece by piece, to be moved to `destination`.
    fn scatter(
        &mut self,
        plan: &mut MovePlan<'_, '_>,
        data: &[u8],
        destination: Pa,
    ) -> Result<(), KexecError> {
        let mut destination = destination;
        for part in data.chunks(SEGMENT_ALIGN as usize) {
            let page = self.page()?;
            // SAFETY: the page was just taken.
            let (content, rest) = unsafe { page.bytes(self.machine) }.split_at_mut(part.len());
            content.copy_from_slice(part);
            rest.fill(0);
            self.push(plan, Extent { source: page.0, destination, len: SEGMENT_ALIGN })?;
            destination = Pa(destination.0 + SEGMENT_ALIGN);
        }
        Ok(())
    }

    /// Writes the payload's device tree, to be moved to `place`.
    fn device_tree(
        &mut self,
        plan: &mut MovePlan<'_, '_>,
        chosen: &Chosen<'_>,
        place: PaRange,
    ) -> Result<(), KexecError> {
        let len = place.len().next_multiple_of(SEGMENT_ALIGN);
        let source = self.machine.memblock.alloc(len, SEGMENT_ALIGN, self.limit)?;
        let start = self.machine.layout.linear(source).0 as *mut u8;
        // SAFETY: as for `Page::bytes`; these bytes were just taken.
        let buffer = unsafe { slice::from_raw_parts_mut(start, len as usize) };
        buffer.fill(0);
        chosen.rewrite(self.machine.dtb, buffer)?;
        self.push(plan, Extent { source, destination: place.start, len })
    }
}
