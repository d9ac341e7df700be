//! Loading a payload. Everything that can fail fails here, and then memblock is as before.
//!
//! Each part of the payload is staged at its destination if that memory is free: then nothing is
//! moved at the hand-over. Where the running kernel or the archive lies at the destination, the
//! part is staged elsewhere.

use core::mem;
use core::num::NonZeroUsize;

use arrayvec::ArrayVec;
use linmap_kexec::{
    Archive, Image, KernelFile, MAX_SHARES, MovePlan, Moves, Packing, Pending, SEGMENT_ALIGN, Seeds,
    Segments, UnpackError, Unpacker,
};
use linmap_platform::COMMAND_LINE_MAX;
use linmap_vmsa::{Granule, Pa, PaRange};

use crate::arch::cpu;
use crate::arch::cpu_set::CpuSet;
use crate::arch::per_cpu;
use crate::arch::platform::Platform;
use crate::kexec::allocations::{PayloadMemory, Pool};
use crate::kexec::archive;
use crate::kexec::control;
use crate::kexec::core_file::{self, CoreFile};
use crate::kexec::digests::LoadDigests;
use crate::kexec::error::KexecError;
use crate::kexec::heap;
use crate::kexec::lists;
use crate::kexec::loaded::{self, Loaded};
use crate::kexec::next_tree::TreeContent;
use crate::kexec::options::LoadOptions;
use crate::kexec::payload::{InMemory, Payload};
use crate::kexec::place::{self, Domain, Place, Request};
use crate::kexec::seeds;
use crate::kexec::segment::{MAX_SEGMENTS, Segment, Staged, whole_pages};
use crate::kexec::stage::{Content, Stage};
use crate::kexec::transition;
use crate::memory::preserved::PreservedMemory;
use crate::report;
use crate::smp::cpus::Cpus;

/// How many extents, and pieces of them, can be ordered.
const WORKSPACE: usize = 512;

/// What a load reads, and the memory it loads to.
pub struct Loader<'l> {
    /// The machine.
    pub platform: &'l Platform,
    /// Its CPUs.
    pub cpus: &'l Cpus,
    /// Memory that the payload has to leave alone.
    pub preserved: &'l PreservedMemory,
    /// The memory to load to.
    pub memory: PayloadMemory<'l>,
    /// How to load.
    pub options: LoadOptions,
}

/// The kernel of a payload.
#[derive(Clone, Copy)]
struct Kernel {
    /// Its file in the archive.
    file: &'static [u8],
    /// How the file is packed.
    kind: KernelFile<'static>,
}

/// What a payload needs around its parts: device tree, control frames, core file.
struct Surroundings<'t> {
    tree: TreeContent<'t>,
    control: PaRange,
    penned: CpuSet,
    core: Option<CoreFile>,
}

impl Loader<'_> {
    /// Loads `payload`.
    ///
    /// # Errors
    /// [`KexecError`]. Memblock is as before.
    pub fn load(mut self, payload: Payload) -> Result<Loaded, KexecError> {
        let started = cpu::counter();
        let mut notes = PaRange::default();
        match self.load_from_archive(payload, &mut notes) {
            Ok(loaded) => {
                report_phase(&loaded, cpu::ticks_since(started));
                Ok(loaded)
            }
            Err(error) => {
                self.release(&mut notes);
                Err(error)
            }
        }
    }

    /// Frees what a load that failed has allocated.
    fn release(&mut self, notes: &mut PaRange) {
        self.memory.release();
        loaded::free_notes(self.memory.memory, mem::take(notes));
    }

    /// Finds the kernel in the archive, and lends its unpacker a heap for as long as it unpacks.
    fn load_from_archive(&mut self, payload: Payload, notes: &mut PaRange) -> Result<Loaded, KexecError> {
        let archive = archive::open(self.platform, self.memory.memory)?;
        let archive = archive.ok_or(KexecError::NoPayload("the boot loader passed no archive"))?;
        let file = archive.find("Image").ok_or(KexecError::NoPayload("the archive has no Image"))?.data;
        let kernel = Kernel { file, kind: KernelFile::recognise(file)? };
        let heap_len = kernel.kind.memory_needed()? as u64;
        if heap_len == 0 {
            return self.load_kernel_of_any_length(payload, &archive, kernel, notes);
        }
        let everywhere = self.memory.memory.everywhere();
        let heap_at = self.memory.memory.memblock.alloc(heap_len, SEGMENT_ALIGN, everywhere)?;
        let heap_range = PaRange::new(heap_at, Pa(heap_at.0 + heap_len));
        // SAFETY: these bytes were just allocated, and are freed after the heap has ended.
        let mut heap = unsafe { self.memory.memory.owned_bytes(heap_range) };
        let loaded =
            heap::lend(heap.as_uninit(), || self.load_kernel_of_any_length(payload, &archive, kernel, notes));
        // Memblock only refuses when it needs one more region than it has room for; that stays
        // reserved.
        let _ = self.memory.memory.memblock.free(heap_range);
        loaded
    }

    /// Loads `kernel`. If its file turns out to be longer than its headers announce, loads it again
    /// after counting its bytes.
    fn load_kernel_of_any_length(
        &mut self,
        payload: Payload,
        archive: &Archive<'static>,
        kernel: Kernel,
        notes: &mut PaRange,
    ) -> Result<Loaded, KexecError> {
        match self.load_kernel(payload, archive, kernel, notes) {
            Err(KexecError::Unpack(UnpackError::LongerThanAnnounced { .. })) => {
                self.release(notes);
                let all: u64 = self.memory.memory.mapped().map(PaRange::len).sum();
                let kernel = Kernel { kind: kernel.kind.counted(all)?, ..kernel };
                self.load_kernel(payload, archive, kernel, notes)
            }
            loaded => loaded,
        }
    }

    // The unpacker takes 45 KiB of the stack, which it shares with no second one.
    #[inline(never)]
    fn load_kernel(
        &mut self,
        payload: Payload,
        archive: &Archive<'static>,
        kernel: Kernel,
        notes: &mut PaRange,
    ) -> Result<Loaded, KexecError> {
        let mut unpacker = kernel.kind.unpack()?;
        let image = unpacker.image();
        self.check_granule(&image)?;
        let mut text = [0; COMMAND_LINE_MAX - 1];
        let Self { platform, preserved, options, .. } = *self;
        let input = payload.input(platform, self.memory.memory, archive, self.memory.pool, &mut text)?;
        let initrd = input.initrd;
        let mut around = self
            .surroundings(TreeContent::new(input.bootargs, self.seeds()?, self.platform.vacated()), notes)?;
        if self.memory.pool == Pool::Machine {
            around.tree.preserved = preserved.for_tree();
        }
        let dtb_len = around.tree.measure(platform.dtb.blob, initrd.map(|initrd| initrd.at))?;
        let control = around.control;
        let request = Request { image: &image, initrd, dtb_len, control, preserved, options };
        let place = request.place(&mut self.memory)?;
        let destinations = self.reserve_destinations(&place, around.core.as_ref())?;

        let bounce = match place.domain {
            Domain::Usable => place::allocate_bounce(&mut self.memory),
            Domain::Free => None,
        };
        let mut workspace = [Pending::UNUSED; WORKSPACE];
        let segments = Segments::new(&destinations)?;
        let plan = MovePlan::new(segments, &mut workspace, bounce, self.shares())?;
        let in_place = place.domain == Domain::Free && !options.scattered;
        let mut stage = Stage::new(plan, in_place, &mut self.memory);
        stage_kernel(&mut stage, &mut unpacker, kernel, &place)?;
        if let Some(initrd) = initrd {
            stage_initrd(&mut stage, initrd, &place)?;
        }
        let tree = around.tree.with_initrd(place.placed.initrd);
        stage.stage_tree(platform.dtb.blob, &tree, place.placed.dtb)?;
        if let Some(core) = &around.core {
            let header = core.write(stage.memory(), platform.image)?;
            stage.add(header);
        }
        let (segments, moves) = stage.finish()?;
        self.seal(segments, moves, &around, place.placed.entry(), *notes)
    }

    /// Checks that this CPU has the granule of the image.
    fn check_granule(&self, image: &Image) -> Result<(), KexecError> {
        let mmfr0 = self.platform.features.mmfr0;
        let supported: ArrayVec<Granule, 3> =
            [Granule::K4, Granule::K16, Granule::K64].into_iter().filter(|&g| mmfr0.supports(g)).collect();
        Ok(image.check_page_size(&supported)?)
    }

    /// New seeds for the payload, made of those in our own tree.
    fn seeds(&self) -> Result<Seeds, KexecError> {
        Ok(seeds::new(linmap_fdt::parse_dtb(self.platform.dtb.blob)?))
    }

    /// Allocates what the payload needs around its parts, and completes `tree` with it.
    fn surroundings<'t>(
        &mut self,
        mut tree: TreeContent<'t>,
        notes: &mut PaRange,
    ) -> Result<Surroundings<'t>, KexecError> {
        let image = self.platform.image;
        tree.usable = [self.memory.crash.range];
        let (core, penned) = match self.memory.pool {
            Pool::Machine => (None, self.cpus.have_left_firmware()),
            Pool::CrashKernel => {
                *notes = core_file::allocate_notes(self.memory.memory, image)?;
                let core = CoreFile::allocate(&mut self.memory, image, *notes)?;
                tree.core_header = Some(core.header);
                // No CPU goes to a pen when a crash kernel is entered.
                (Some(core), CpuSet::EMPTY)
            }
        };
        let control = control::allocate(&mut self.memory, self.platform.entered, !penned.is_empty())?;
        if !penned.is_empty() {
            tree.set_pen(control::pen_at(control), penned);
        }
        Ok(Surroundings { tree, control, penned, core })
    }

    /// Allocates the free parts of the destinations, so that no later allocation lies in a
    /// destination.
    fn reserve_destinations(
        &mut self,
        place: &Place,
        core: Option<&CoreFile>,
    ) -> Result<ArrayVec<PaRange, MAX_SEGMENTS>, KexecError> {
        let initrd = place.placed.initrd.filter(|_| !place.initrd_stays);
        let header = core.map(|core| core.header);
        let mut destinations = ArrayVec::new();
        for range in [Some(place.placed.image), initrd, Some(place.placed.dtb), header].into_iter().flatten()
        {
            let whole = whole_pages(range);
            self.memory.reserve_free(whole)?;
            destinations.push(whole);
        }
        Ok(destinations)
    }

    /// How many CPUs take part in the move.
    fn shares(&self) -> NonZeroUsize {
        let cpus = if self.options.mmu_off { 1 } else { per_cpu::online().len().min(MAX_SHARES) };
        NonZeroUsize::new(cpus).unwrap_or(NonZeroUsize::MIN)
    }

    /// Writes the code for the move, builds its tables, and takes the digests if asked to.
    fn seal(
        &mut self,
        segments: ArrayVec<Segment, MAX_SEGMENTS>,
        moves: Moves,
        around: &Surroundings<'_>,
        entry: Pa,
        notes: PaRange,
    ) -> Result<Loaded, KexecError> {
        lists::check(self.memory.memory, &moves)?;
        let memory = &*self.memory.memory;
        lists::clean(memory, &moves)?;
        let control = around.control;
        let pen = control::write(memory, control, self.platform.entered, around.tree.pen);
        let transition = if moves.lists.is_empty() || self.options.mmu_off {
            None
        } else {
            transition::build(self.memory.memory, control)?
        };
        let memory = &*self.memory.memory;
        let digests = if self.options.takes_digests() {
            Some(LoadDigests::take(memory, &segments, &moves, transition.as_ref())?)
        } else {
            None
        };
        Ok(Loaded {
            segments,
            moves,
            digests,
            transition,
            control,
            pen,
            penned: around.penned,
            is_in_use: false,
            entry,
            notes,
        })
    }
}

/// Stages the kernel. If it has to move, is not packed, and lies on a page in the archive, it is
/// moved from there.
fn stage_kernel(
    stage: &mut Stage<'_, '_, '_, '_>,
    unpacker: &mut Unpacker<'_>,
    kernel: Kernel,
    place: &Place,
) -> Result<(), KexecError> {
    let image = place.placed.image;
    let raw = InMemory::of_archive(stage.memory(), kernel.file);
    let is_raw = kernel.kind.packing() == Packing::Raw;
    if is_raw && place.domain == Domain::Usable && raw.at.start.0.is_multiple_of(SEGMENT_ALIGN) {
        return stage.move_from_memory("image", raw, image.start);
    }
    let mut content = if is_raw { Content::Bytes(kernel.file) } else { Content::Packed(unpacker) };
    stage.stage("image", &mut content, whole_pages(image))
}

/// Stages the initrd. It stays where it is, or is moved from there if it lies on a page, or is
/// copied.
fn stage_initrd(
    stage: &mut Stage<'_, '_, '_, '_>,
    initrd: InMemory,
    place: &Place,
) -> Result<(), KexecError> {
    let Some(destination) = place.placed.initrd else { return Ok(()) };
    if place.initrd_stays {
        stage.leave_in_place("initrd", whole_pages(destination), initrd.at.len());
        Ok(())
    } else if place.domain == Domain::Usable && initrd.at.start.0.is_multiple_of(SEGMENT_ALIGN) {
        stage.move_from_memory("initrd", initrd, destination.start)
    } else {
        stage.stage("initrd", &mut Content::Bytes(initrd.bytes), whole_pages(destination))
    }
}

fn report_phase(loaded: &Loaded, ticks: u64) {
    let moves = &loaded.moves;
    let in_place = loaded.segments.iter().filter(|segment| segment.staged == Staged::InPlace);
    report!(
        "phase=kexec-load ticks={ticks} segments={} bytes={} in_place={} extents={} list_frames={} \
         tables={} lists={} image={} dtb={}",
        loaded.segments.len(),
        moves.moved,
        in_place.map(|segment| segment.destination.len()).sum::<u64>(),
        moves.extents,
        moves.frames,
        loaded.table_count(),
        moves.lists.len(),
        loaded.entry,
        loaded.dtb()
    );
}
