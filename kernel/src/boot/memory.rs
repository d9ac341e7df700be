//! Finding memory: the phase that fills memblock.

use core::mem;

use arrayvec::ArrayVec;
use linmap::Layout;
use linmap_fdt::Fdt;
use linmap_kexec::SEGMENT_ALIGN;
use linmap_memblock::{
    AllocError, DynamicError, DynamicReservation, EarlyStorage, FdtError, FdtWarnings, Memblock, RegionError,
};
use linmap_platform::Affinity;
use linmap_platform::CommandLine;
use linmap_platform::chosen;
use linmap_table::Fixmap;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::layout::GRANULE;
use crate::arch::print::Quoted;
use crate::arch::topology::Topology;
use crate::boot::memory_words::{self, WordError};
use crate::boot::pass::Pass;
use crate::boot::reach;
use crate::boot::reserved_outside::ReservedOutside;
use crate::kexec::crash::memory::CrashMemory;
use crate::memory::long_lists::{EarlyWindow, REGIONS, RangeList, with_scratch};
use crate::memory::preserved::PreservedMemory;
use crate::{report, say};

/// What the device tree says about memory, and of the CPUs whose mailboxes lie in it.
pub struct Found {
    /// Memory, with everything reserved that is in use.
    pub memblock: Memblock<REGIONS>,
    /// The window in which memblock's lists are, if they are long.
    pub window: EarlyWindow,
    /// The boot loader's initrd.
    pub initrd: Option<PaRange>,
    /// What the previous kernel preserved.
    pub preserved: PreservedMemory,
    /// The CPUs.
    pub topology: Topology,
    /// The memory of a crash kernel.
    pub crash: CrashMemory,
}

/// Why memory can't be found.
#[derive(Debug, Error)]
pub enum FindError {
    /// The device tree describes none that can be used.
    #[error(transparent)]
    Fdt(#[from] FdtError<'static>),
    /// Memblock has no room for the image or the DTB.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// There is no memory for a list of ranges.
    #[error(transparent)]
    Lists(#[from] AllocError),
    /// A word of the command line can't be obeyed.
    #[error(transparent)]
    Word(#[from] WordError),
}

/// Reads memory and CPUs from `fdt`, reserves what is in use, and reports the phase.
///
/// # Errors
/// [`FindError`].
pub fn find(
    fdt: Fdt<'static>,
    dtb: PaRange,
    pass: Pass,
    line: CommandLine<'static>,
    fixmap: &mut Fixmap,
) -> Result<Found, FindError> {
    let image = pass.image;
    let started = cpu::counter();
    let mut memblock = Memblock::<REGIONS>::new();
    let mut window = EarlyWindow::new();
    let early = EarlyStorage {
        in_use: &[image.range(), dtb],
        align: GRANULE.bytes(),
        reach: |storage| window.ranges(fixmap, storage),
    };
    let warnings = memblock.fill_from_fdt_of_any_length(fdt, early)?;
    let outside = ReservedOutside::find(fdt, &memblock);
    memory_words::apply_maps(line, &mut memblock)?;
    let initrd = chosen::initrd(fdt);
    let in_use = [image.range(), dtb, initrd.unwrap_or_default()];
    let preserved = PreservedMemory::from_tree(fdt, &memblock, &in_use);
    let rescued = [image.range(), initrd.unwrap_or_default(), memblock.storage().unwrap_or_default()];
    let rescued = rescued.into_iter().chain(preserved.ranges());
    memory_words::apply_limits(line, &mut memblock, rescued)?;
    let left_out = reach::leave_out(&mut memblock, pass, line, initrd)?;
    reserve_partial_pages(&mut memblock)?;
    let mut topology = Topology::from_fdt(fdt, Affinity::of_mpidr(cpu::mpidr()));
    topology.check_mailboxes(&memblock, &in_use);
    let page = GRANULE.bytes();
    for range in [Some(image.range()), dtb.align_outward(page)].into_iter().flatten() {
        memblock.reserve(range)?;
    }
    memblock.place_dynamic(fdt, page, &mut report_dynamic);
    let crash = CrashMemory::reserve(line, &mut memblock);
    let ticks = cpu::ticks_since(started);
    warn(&warnings);
    if let Some(outside) = outside {
        say!("{outside}");
        report!("warning=memory what={}", Quoted(&outside));
    }
    reach::warn(left_out);
    let crash = crash.unwrap_or_else(|error| {
        say!("no memory is reserved for a crash kernel: {error}");
        report!("warning=crash-kernel what={}", Quoted(&error));
        CrashMemory::default()
    });
    report!(
        "phase=memblock ticks={} regions={} bytes={} reserved={} reserved_bytes={}",
        ticks,
        memblock.regions().count(),
        memblock.memory_len(),
        memblock.reserved().len(),
        memblock.reserved().iter().map(|range| range.len()).sum::<u64>()
    );
    Ok(Found { memblock, window, initrd, preserved, topology, crash })
}

/// The frames of 4 KiB at or above `from` that share a page of the linear map with something that
/// is not memory, or that must not be mapped: no linear map has them.
fn partial_pages(memblock: &Memblock<REGIONS>, from: Pa) -> impl Iterator<Item = PaRange> {
    const PAGE: u64 = GRANULE.bytes();
    let around = |range: PaRange| {
        let pages = range.align_inward(PAGE);
        match pages.is_empty() {
            true => [range, PaRange::default()],
            false => [PaRange::new(range.start, pages.start), PaRange::new(pages.end, range.end)],
        }
    };
    let partial = memblock.mappable(SEGMENT_ALIGN).filter(move |range| range.end > from).flat_map(around);
    partial.filter(move |range| range.start >= from && !range.is_empty())
}

fn reserve_partial_pages(memblock: &mut Memblock<REGIONS>) -> Result<(), RegionError> {
    let mut from = Pa(0);
    loop {
        // Filled in place: moving it costs more than what it usually holds.
        let mut some = ArrayVec::<PaRange, 64>::new();
        some.extend(partial_pages(memblock, from).take(64));
        let Some(last) = some.last() else { return Ok(()) };
        from = last.end;
        some.iter().try_for_each(|range| memblock.reserve(*range))?;
    }
}

/// Once the linear map is there: has memblock reach its lists by it, and unmaps the window. Returns
/// the memory that may be mapped, and what the firmware reserves.
///
/// # Errors
/// [`FindError`].
pub fn settle(
    found: &mut Found,
    fdt: Fdt<'static>,
    vacated: [PaRange; 2],
    fixmap: &mut Fixmap,
    layout: Layout,
) -> Result<(RangeList, RangeList), FindError> {
    let memblock = &mut found.memblock;
    mem::take(&mut found.window).close(fixmap, memblock, layout)?;
    let page = layout.geometry().granule().bytes();
    let count = memblock.mappable(page).count();
    let mut hardware = RangeList::with_room(count, memblock)?;
    hardware.fill(memblock.mappable(page));
    Ok((hardware, reserved_by_firmware(fdt, vacated, memblock)?))
}

/// Returns what the firmware reserves, without the entries that cover only one of `vacated`; and
/// the rest of partial pages, where nothing can be moved either. The linear map is there.
///
/// # Errors
/// [`FindError`].
fn reserved_by_firmware(
    fdt: Fdt<'static>,
    vacated: [PaRange; 2],
    memblock: &mut Memblock<REGIONS>,
) -> Result<RangeList, FindError> {
    with_scratch(memblock, |reservations, memblock| {
        reservations.fill_from_reservations(fdt, &vacated)?;
        for range in partial_pages(memblock, Pa(0)) {
            reservations.reserve(range)?;
        }
        let reserved = reservations.reserved();
        let mut list = RangeList::with_room(reserved.len(), memblock)?;
        list.fill(reserved.iter().copied());
        Ok(list)
    })
}

/// Reports where memory is that the tree lets the kernel choose.
fn report_dynamic(placed: Result<DynamicReservation<'_>, DynamicError<'_>>) {
    match placed {
        Ok(DynamicReservation { node, range, no_map, reusable }) => report!(
            "reserved-memory={} start={} bytes={} no_map={} reusable={}",
            Quoted(node),
            range.start,
            range.len(),
            u8::from(no_map),
            u8::from(reusable)
        ),
        Err(error) => {
            say!("{error}");
            report!("warning=memory what={}", Quoted(&error));
        }
    }
}

fn warn(warnings: &FdtWarnings<'_>) {
    for warning in &warnings.first {
        say!("{warning}");
        report!("warning=memory what={}", Quoted(warning));
    }
    if warnings.count > warnings.first.len() {
        say!("{} memory ranges are empty or overlap in all", warnings.count);
        report!("warning=memory count={}", warnings.count);
    }
}
