//! Loading a payload. Everything that can fail fails here, and then memblock is as before.
//!
//! A part of the payload is put where it belongs, if that memory is free: then nothing has to move when the payload is
//! entered. Where it is not, because the running kernel or the archive lies there, it waits elsewhere.

use core::iter;
use core::mem::MaybeUninit;
use core::num::NonZeroUsize;

use arrayvec::ArrayVec;
use linmap::{Layout, MappingList, MemblockFrames, TooManyRanges, identity_geometry};
use linmap_kexec::{
    Archive, CrashMemory, Initrd, KernelFile, LIST_FRAME_LEN, MAX_SHARES, MovePlan, Moves, NextTree,
    PayloadPlacement, Pending, SEGMENT_ALIGN, Segments, Transition, TransitionError,
};
use linmap_platform::{COMMAND_LINE_MAX, CommandLine};
use linmap_relocate::Digest;
use linmap_table::Mappings;
use linmap_vmsa::{Granule, Pa, PaRange};

use super::command::{KexecError, Payload};
use super::core_file::CoreFile;
use super::loaded::{self, Loaded, MAX_SEGMENTS, Segment, Source, frame_at};
use super::put::{Content, Lying, Put, whole_pages};
use super::taken::Pool;
use super::{seeds, tables};
use crate::arch::cpu;
use crate::arch::percpu;
use crate::arch::percpu::CpuSet;
use crate::boot::entry::{self, Entered};
use crate::kexec::heap;
use crate::kexec::next_line;
use crate::memory::kept;
use crate::memory::layout::MAX_CPUS;
use crate::memory::machine::{Machine, REGIONS};
use crate::report;
use crate::smp::cpus;
use crate::smp::pen;
use crate::smp::pen::Pen;
use crate::smp::secondary;

/// Extents that may have to be put in order, cut to pieces as that may take.
const WORKSPACE: usize = 512;

/// How a payload is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manner {
    /// Page by page to memory that belongs to no destination, as a loader has to that gets it piece by piece.
    pub scattered: bool,
    /// Without transitional tables: to be moved with the MMU off.
    pub mmu_off: bool,
    /// Whose memory it goes to: as a crash kernel, to that alone.
    pub pool: Pool,
}

/// Loads `payload`.
///
/// # Errors
/// [`KexecError`]; memblock is as before.
pub fn load(machine: &mut Machine<'_>, payload: Payload, manner: Manner) -> Result<Loaded, KexecError> {
    let started = cpu::counter();
    let pool = manner.pool;
    let mut loader = Loader { machine, pool, notes: PaRange::default(), manner };
    match loader.load(payload) {
        Ok(parts) => {
            let notes = loader.notes;
            let loaded = Loaded {
                segments: parts.segments,
                moves: parts.moves,
                bounce: parts.bounce,
                lists: parts.lists,
                waiting: parts.waiting,
                transition: parts.transition,
                tables: parts.tables,
                control: parts.control,
                pen: parts.pen,
                penned: parts.penned,
                is_in_use: false,
                entry: parts.entry,
                notes,
            };
            report_phase(&loaded, cpu::ticks_since(started));
            Ok(loaded)
        }
        Err(error) => {
            let Loader { machine, notes, .. } = loader;
            pool.release(machine);
            loaded::free_notes(machine, notes);
            Err(error)
        }
    }
}

fn report_phase(loaded: &Loaded, ticks: u64) {
    let moves = &loaded.moves;
    report!(
        "phase=kexec-load ticks={ticks} segments={} bytes={} in_place={} extents={} list_frames={} tables={} lists={} image={} dtb={}",
        loaded.segments.len(),
        moves.moved,
        loaded
            .segments
            .iter()
            .filter(|s| s.source == Source::InPlace)
            .map(|s| s.destination.len())
            .sum::<u64>(),
        moves.extents,
        moves.frames,
        loaded.transition.as_ref().map_or(0, |both| both.linear.built().tables + both.code.built().tables),
        moves.lists.len(),
        loaded.entry,
        loaded.dtb()
    );
}

/// What a load has made, but for what it took.
struct Parts {
    segments: ArrayVec<Segment, MAX_SEGMENTS>,
    moves: Moves,
    bounce: PaRange,
    lists: Digest,
    waiting: Digest,
    transition: Option<Transition>,
    tables: Digest,
    control: PaRange,
    pen: Option<Pen>,
    penned: CpuSet,
    entry: Pa,
}

/// Where destinations may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Domain {
    /// In memory of the pool that nobody uses.
    Free,
    /// In all memory that the payload may have: what the running kernel uses is overwritten when it is left.
    Usable,
}

/// A load on its way.
pub struct Loader<'a, 'm> {
    /// The machine.
    pub machine: &'a mut Machine<'m>,
    /// Whose memory is taken for the payload.
    pub pool: Pool,
    /// What a crash kernel takes of the machine's own: memory for the notes of its core file.
    pub notes: PaRange,
    manner: Manner,
}

impl Loader<'_, '_> {
    fn load(&mut self, payload: Payload) -> Result<Parts, KexecError> {
        let archive =
            self.machine.archive()?.ok_or(KexecError::NoPayload("the boot loader passed no archive"))?;
        let file = archive.find("Image").ok_or(KexecError::NoPayload("the archive has no Image"))?.data;
        let kernel = KernelFile::recognise(file)?;
        // What unpacking takes is lent for that time only.
        let heap_len = kernel.memory_needed()? as u64;
        if heap_len == 0 {
            return self.load_image(payload, &archive, file, kernel);
        }
        let everywhere = PaRange::new(Pa(0), self.machine.memblock.memory_end());
        let heap_at = self.machine.memblock.alloc(heap_len, SEGMENT_ALIGN, everywhere)?;
        let heap_range = PaRange::new(heap_at, Pa(heap_at.0 + heap_len));
        // SAFETY: these bytes were just taken, and are given back after the heap has ended.
        let memory = unsafe { self.machine.bytes_mut(heap_range) };
        // SAFETY: bytes that are written to as such or not at all.
        let memory = unsafe { &mut *(&raw mut *memory as *mut [MaybeUninit<u8>]) };
        let parts = heap::lend(memory, || self.load_image(payload, &archive, file, kernel));
        // Memblock refuses only what would need one more region than it has room for; that stays reserved.
        let _ = self.machine.memblock.free(heap_range);
        parts
    }

    fn load_image(
        &mut self,
        payload: Payload,
        archive: &Archive<'static>,
        file: &'static [u8],
        kernel: KernelFile<'static>,
    ) -> Result<Parts, KexecError> {
        let mut unpacker = kernel.unpack()?;
        let image = unpacker.image();
        let granules = [Granule::K4, Granule::K16, Granule::K64];
        let supported =
            granules.map(|granule| self.machine.features.mmfr0.supports(granule).then_some(granule));
        let supported: ArrayVec<Granule, 3> = supported.into_iter().flatten().collect();
        image.check_page_size(&supported)?;

        let mut text = [0; COMMAND_LINE_MAX - 1];
        let own = CommandLine(self.machine.command_line);
        let (bootargs, initrd) = match payload {
            Payload::Linux => {
                let theirs = CommandLine(super::command::member_text(archive, "cmdline")?);
                let data = archive.find("initrd").map(|member| member.data).filter(|data| !data.is_empty());
                let line = next_line::for_payload(own, theirs, self.pool, &mut text);
                (line?, data.map(|bytes| self.lying(bytes)))
            }
            Payload::Myself(next) => {
                let whole = self.machine.initrd;
                let initrd = whole.map(|at| {
                    // SAFETY: `archive` has checked that the range is mapped; nothing writes to it.
                    Lying { bytes: unsafe { self.machine.bytes_for_ever(at) }, at }
                });
                let line = next_line::for_generation(own, next, self.pool, &mut text);
                (line?, initrd)
            }
        };

        // The tree's length does not depend on where the initrd is.
        let kept_ranges = self.machine.kept.clone();
        let kept = kept::for_tree(&kept_ranges);
        let seeds = seeds::new(linmap_fdt::parse_dtb(self.machine.dtb)?);
        let at = initrd.map(|lying| lying.at);
        let usable = [self.machine.crash.range];
        // Nobody goes to a pen when a crash kernel is entered.
        let (core, penned) = match self.pool {
            Pool::Machine => (None, cpus::have_left_firmware(self.machine)),
            Pool::CrashKernel => (Some(CoreFile::take(self)?), CpuSet::EMPTY),
        };
        let affinities: ArrayVec<u64, MAX_CPUS> =
            penned.iter().map(|cpu| secondary::affinity_of(cpu).bits()).collect();
        let control = self.control(&penned)?;
        let pen_at = (!penned.is_empty()).then_some(Pa(control.end.0 - pen::LEN));
        let spin_table = pen_at.map(|at| Pen::spin_table(at, &affinities));
        let mut tree =
            NextTree { bootargs, initrd: at, seeds, spin_table, preserved: &kept, ..NextTree::default() };
        if let Some(core) = &core {
            // What is kept lies in memory that a crash kernel does not use.
            tree.preserved = &[];
            // A stand-in, which is checked as the real one is.
            let end = |lying: Lying| usable[0].end.min(Pa(usable[0].start.0.saturating_add(lying.at.len())));
            tree.initrd = initrd.map(|lying| PaRange::new(usable[0].start, end(lying)));
            tree.crash = Some(CrashMemory { usable: &usable, elf_core_header: core.header });
        }
        let dtb_len = tree.measure(self.machine.dtb)? as u64;
        let (placed, domain, initrd_stays) = self.place(&image, initrd, dtb_len, control)?;

        // From here on nothing that is taken from memblock lies in a destination.
        let mut destinations = ArrayVec::<PaRange, MAX_SEGMENTS>::new();
        let moved_initrd = placed.initrd.filter(|_| !initrd_stays);
        let header = core.as_ref().map(|core| core.header);
        for range in [Some(placed.image), moved_initrd, Some(placed.dtb), header].into_iter().flatten() {
            let whole = whole_pages(range);
            self.pool.reserve_free(self.machine, whole)?;
            destinations.push(whole);
        }
        let segments = Segments::new(&destinations)?;
        let here = domain == Domain::Free && !self.manner.scattered;
        let bounce = if domain == Domain::Usable { self.bounce()? } else { None };
        let mut workspace = [Pending::UNUSED; WORKSPACE];
        let plan = MovePlan::new(segments, &mut workspace, bounce, self.shares())?;
        let mut put = Put { plan, segments: ArrayVec::new(), here };

        let raw = self.lying(file);
        let direct = domain == Domain::Usable && kernel.packing() == linmap_kexec::Packing::Raw;
        if direct && raw.at.start.0.is_multiple_of(SEGMENT_ALIGN) {
            self.put_lying(&mut put, "image", raw, placed.image.start)?;
        } else {
            let mut content = Content::Packed(&mut unpacker);
            let room = whole_pages(placed.image);
            self.put(&mut put, "image", &mut content, room)?;
        }
        if let (Some(lying), Some(place)) = (initrd, placed.initrd) {
            if initrd_stays {
                let range = whole_pages(place);
                let digest = loaded::digest(self.machine, range);
                cpu::clean_and_invalidate(self.machine.layout.linear(range.start), range.len());
                put.segments.push(Segment {
                    name: "initrd",
                    destination: range,
                    source: Source::InPlace,
                    len: lying.at.len(),
                    zero: 0,
                    digest,
                });
            } else if domain == Domain::Usable && lying.at.start.0.is_multiple_of(SEGMENT_ALIGN) {
                self.put_lying(&mut put, "initrd", lying, place.start)?;
            } else {
                self.put(&mut put, "initrd", &mut Content::Bytes(lying.bytes), whole_pages(place))?;
            }
        }
        let tree = NextTree { initrd: placed.initrd, ..tree };
        self.put_tree(&mut put, &tree, placed.dtb)?;
        if let Some(core) = &core {
            put.segments.push(core.write(self)?);
        }

        let Put { plan, segments, .. } = put;
        let moves = plan.finish(&mut iter::from_fn(|| self.list_frame()))?;
        moves.check(frame_at(self.machine))?;
        self.clean_lists(&moves)?;
        let bounce = bounce.unwrap_or_default();
        let lists = loaded::lists(self.machine, &moves)?;
        let waiting = loaded::waiting(self.machine, &moves, bounce)?;
        let pen = self.write_code(control, pen_at);
        let transition =
            if moves.lists.is_empty() || self.manner.mmu_off { None } else { self.transition(control)? };
        let tables = tables::digest(self.machine, transition.as_ref());
        let entry = placed.entry();
        Ok(Parts { segments, moves, bounce, lists, waiting, transition, tables, control, pen, penned, entry })
    }

    /// Bytes of the archive, and where they are in memory.
    fn lying(&self, bytes: &'static [u8]) -> Lying {
        let start = Pa(bytes.as_ptr().expose_provenance() as u64 - self.machine.layout.offset());
        Lying { bytes, at: PaRange::new(start, Pa(start.0 + bytes.len() as u64)) }
    }

    /// Frames for the relocation code, its orders, the EL2 stub where there is one, and at last a pen for `penned`.
    fn control(&mut self, penned: &CpuSet) -> Result<PaRange, KexecError> {
        const { assert!(pen::LEN == SEGMENT_ALIGN, "a pen is a page") };
        let stub = u64::from(self.machine.entered == Entered::El2Stub);
        let len = (2 + stub + u64::from(!penned.is_empty())) * SEGMENT_ALIGN;
        let start = self.pool.alloc(self.machine, len, SEGMENT_ALIGN)?;
        Ok(PaRange::new(start, Pa(start.0 + len)))
    }

    /// Chooses destinations so that as little as possible has to be moved: in free memory, with the initrd where it is;
    /// with the initrd copied there; at last anywhere.
    fn place(
        &self,
        image: &linmap_kexec::Image,
        initrd: Option<Lying>,
        dtb_len: u64,
        control: PaRange,
    ) -> Result<(PayloadPlacement, Domain, bool), KexecError> {
        let copied = initrd.map_or(Initrd::Absent, |lying| Initrd::Len(lying.at.len()));
        let may_stay = self.pool == Pool::Machine && !self.manner.scattered;
        let stays = initrd.filter(|lying| may_stay && lying.at.start.0.is_multiple_of(SEGMENT_ALIGN));
        let stays = stays.map(|lying| Initrd::At(lying.at));
        let mut first_error = None;
        for domain in [Domain::Free, Domain::Usable] {
            if domain == Domain::Usable && (self.manner.scattered || self.pool == Pool::CrashKernel) {
                break;
            }
            let ranges = self.ranges(domain, control)?;
            for initrd in [stays, Some(copied)].into_iter().flatten() {
                match PayloadPlacement::lowest(ranges.iter().copied(), image, initrd, dtb_len) {
                    Ok(placed) => return Ok((placed, domain, matches!(initrd, Initrd::At(_)))),
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
        }
        // There was at least one attempt.
        Err(first_error.map_or(KexecError::NoPayload("it was not placed"), KexecError::Placement))
    }

    fn ranges(&self, domain: Domain, control: PaRange) -> Result<ArrayVec<PaRange, REGIONS>, KexecError> {
        let everywhere = PaRange::new(Pa(0), self.machine.memblock.memory_end());
        if domain == Domain::Free {
            let memblock = self.pool.memblock(self.machine);
            return Ok(memblock.free_ranges(everywhere).take(REGIONS).collect());
        }
        let kept = self.machine.kept.iter().map(|kept| kept.range);
        let not =
            self.machine.firmware.iter().copied().chain(kept).chain([control, self.machine.crash.range]);
        let usable = linmap_kexec::usable(self.machine.memblock, not)?;
        Ok(usable.free_ranges(everywhere).take(REGIONS).collect())
    }

    /// Memory to break circles with: at most a quarter of what is free, down to a page.
    fn bounce(&mut self) -> Result<Option<PaRange>, KexecError> {
        let everywhere = PaRange::new(Pa(0), self.machine.memblock.memory_end());
        let free: u64 = self.machine.memblock.free_ranges(everywhere).map(PaRange::len).sum();
        let mut len = linmap_kexec::BOUNCE_MAX;
        while len * 4 > free && len > SEGMENT_ALIGN {
            len /= 2;
        }
        while len >= SEGMENT_ALIGN {
            if let Ok(start) = self.pool.alloc(self.machine, len, SEGMENT_ALIGN) {
                return Ok(Some(PaRange::new(start, Pa(start.0 + len))));
            }
            len /= 2;
        }
        Ok(None)
    }

    /// How many CPUs take part in the move.
    fn shares(&self) -> NonZeroUsize {
        let cpus = if self.manner.mmu_off { 1 } else { percpu::online().len().min(MAX_SHARES) };
        NonZeroUsize::new(cpus).unwrap_or(NonZeroUsize::MIN)
    }

    /// Cleans the lists, which are read with the MMU off when tables can't be had.
    fn clean_lists(&self, moves: &Moves) -> Result<(), KexecError> {
        let layout = self.machine.layout;
        let mut at = frame_at(self.machine);
        // Each frame is asked for once.
        let clean = |frame| {
            cpu::clean_and_invalidate(layout.linear(frame), LIST_FRAME_LEN);
            at(frame)
        };
        Ok(moves.records(clean).try_for_each(|record| record.map(|_| ()))?)
    }

    /// Copies the relocation code, EL2's stub, and the pen's code, to their frames.
    fn write_code(&self, control: PaRange, pen: Option<Pa>) -> Option<Pen> {
        // SAFETY: the frames were taken for this.
        let bytes = unsafe { self.machine.bytes_mut(control) };
        bytes.fill(0);
        let code = linmap_relocate::code();
        bytes[..code.len()].copy_from_slice(code);
        if self.machine.entered == Entered::El2Stub {
            let vectors = entry::el2_stub();
            bytes[2 * SEGMENT_ALIGN as usize..][..vectors.len()].copy_from_slice(vectors);
        }
        let pen = pen.map(|at| Pen::write(at, &mut bytes[(at.0 - control.start.0) as usize..]));
        cpu::clean_and_invalidate(self.machine.layout.linear(control.start), control.len());
        cpu::invalidate_instructions_everywhere();
        pen
    }

    /// The tables to move by; `None` when there is no memory for them.
    fn transition(&mut self, control: PaRange) -> Result<Option<Transition>, KexecError> {
        let started = cpu::counter();
        let layout = self.machine.layout;
        let geometry = layout.geometry();
        let page = geometry.granule().bytes();
        let mut list: MappingList = MappingList::new();
        for range in self.machine.memblock.mappable(page) {
            let mapping = Transition::mapping(range, layout.linear(range.start));
            let capacity = list.capacity();
            list.try_push(mapping).map_err(|_| TooManyRanges { range, capacity })?;
        }
        let linear = Mappings::new(geometry, &list).map_err(TransitionError::Mapping)?;
        let code = control.start;
        let code_geometry = identity_geometry(geometry, code.0.saturating_add(page))?;
        let mut window = self.machine.tables();
        let mut frames = MemblockFrames::new(self.machine.memblock, geometry);
        let base = Layout::base(geometry);
        match Transition::build(&linear, base, code, code_geometry, &mut window, &mut frames) {
            Ok(both) => {
                report!(
                    "phase=kexec-tables ticks={} tables={}",
                    cpu::ticks_since(started),
                    both.linear.built().tables + both.code.built().tables
                );
                Ok(Some(both))
            }
            Err(TransitionError::OutOfFrames(error)) => {
                crate::say!(
                    "no memory for transitional tables ({error}): the payload is moved with the MMU off, slowly"
                );
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
