//! Finding memory: the phase that fills memblock.

use arrayvec::ArrayVec;
use linmap_fdt::Fdt;
use linmap_kexec::SEGMENT_ALIGN;
use linmap_memblock::{FdtError, FdtWarnings, Memblock, RegionError};
use linmap_platform::Affinity;
use linmap_platform::CommandLine;
use linmap_platform::chosen;
use linmap_vmsa::PaRange;
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::layout::GRANULE;
use crate::arch::print::Quoted;
use crate::arch::topology::Topology;
use crate::boot::pass::Pass;
use crate::boot::reach;
use crate::kexec::crash::memory::CrashMemory;
use crate::memory::physical::REGIONS;
use crate::memory::preserved::PreservedMemory;
use crate::{report, say};

/// What the device tree says about memory, and of the CPUs whose mailboxes lie in it.
pub struct Found {
    /// Memory, with everything reserved that is in use.
    pub memblock: Memblock<REGIONS>,
    /// What the firmware reserves.
    pub firmware: ArrayVec<PaRange, REGIONS>,
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
}

/// Reads memory and CPUs from `fdt`, reserves what is in use, and reports the phase.
///
/// # Errors
/// [`FindError`].
pub fn find(fdt: Fdt<'static>, dtb: PaRange, pass: Pass, line: CommandLine<'_>) -> Result<Found, FindError> {
    let image = pass.image;
    let started = cpu::counter();
    let mut memblock = Memblock::<REGIONS>::new();
    let warnings = memblock.fill_from_fdt(fdt)?;
    let initrd = chosen::initrd(fdt);
    let left_out = reach::leave_out(&mut memblock, pass, line, initrd)?;
    let page = GRANULE.bytes();
    // Filled in place: moving it costs more than what it usually holds.
    let mut partial = ArrayVec::<PaRange, { 2 * REGIONS }>::new();
    partial.extend(partial_pages(&memblock, page).take(2 * REGIONS));
    for &range in &partial {
        memblock.reserve(range)?;
    }
    let mut firmware = ArrayVec::new();
    reserved_by_firmware(fdt, [dtb, initrd.unwrap_or_default()], &partial, &mut firmware)?;
    let in_use = [image.range(), dtb, initrd.unwrap_or_default()];
    let preserved = PreservedMemory::from_tree(fdt, &memblock, &in_use);
    let mut topology = Topology::from_fdt(fdt, Affinity::of_mpidr(cpu::mpidr()));
    topology.check_mailboxes(&memblock, &in_use);
    for range in [Some(image.range()), dtb.align_outward(page)].into_iter().flatten() {
        memblock.reserve(range)?;
    }
    let crash = CrashMemory::reserve(line, &mut memblock);
    let ticks = cpu::ticks_since(started);
    warn(&warnings);
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
    Ok(Found { memblock, firmware, initrd, preserved, topology, crash })
}

/// The frames of 4 KiB that share a page of the linear map with something that is not memory, or
/// that must not be mapped: no linear map has them.
fn partial_pages(memblock: &Memblock<REGIONS>, page: u64) -> impl Iterator<Item = PaRange> {
    let around = move |range: PaRange| {
        let pages = range.align_inward(page);
        match pages.is_empty() {
            true => [range, PaRange::default()],
            false => [PaRange::new(range.start, pages.start), PaRange::new(pages.end, range.end)],
        }
    };
    memblock.mappable(SEGMENT_ALIGN).flat_map(around).filter(|range| !range.is_empty())
}

/// Adds what the firmware reserves to `firmware`, which is empty, without the entries that cover
/// only one of `vacated`; and `partial`, where nothing can be moved either.
fn reserved_by_firmware(
    fdt: Fdt<'static>,
    vacated: [PaRange; 2],
    partial: &[PaRange],
    firmware: &mut ArrayVec<PaRange, REGIONS>,
) -> Result<(), FindError> {
    let mut reservations = Memblock::<REGIONS>::new();
    reservations.fill_from_reservations(fdt, &vacated)?;
    for &range in partial {
        reservations.reserve(range)?;
    }
    firmware.extend(reservations.reserved().iter().copied());
    Ok(())
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
