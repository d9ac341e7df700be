//! Finding memory: the phase that fills memblock.

use arrayvec::ArrayVec;
use dtoolkit::fdt::Fdt;
use linmap_memblock::{FdtError, Memblock, RegionError};
use linmap_platform::Affinity;
use linmap_platform::CommandLine;
use linmap_platform::chosen;
use linmap_vmsa::PaRange;
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::image::Image;
use crate::arch::layout::GEOMETRY;
use crate::arch::print::Quoted;
use crate::arch::topology::Topology;
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
pub fn find(
    fdt: Fdt<'static>,
    dtb: PaRange,
    image: Image,
    line: CommandLine<'_>,
) -> Result<Found, FindError> {
    let started = cpu::counter();
    let mut memblock = Memblock::<REGIONS>::new();
    memblock.fill_from_fdt(fdt)?;
    let initrd = chosen::initrd(fdt);
    let firmware = reserved_without(&memblock, initrd);
    let in_use = [image.range(), dtb, initrd.unwrap_or_default()];
    let preserved = PreservedMemory::from_tree(fdt, &memblock, &in_use);
    let mut topology = Topology::from_fdt(fdt, Affinity::of_mpidr(cpu::mpidr()));
    topology.check_mailboxes(&memblock, &in_use);
    let page = GEOMETRY.granule().bytes();
    for range in [Some(image.range()), dtb.align_outward(page)].into_iter().flatten() {
        memblock.reserve(range)?;
    }
    let crash = CrashMemory::reserve(line, &mut memblock).unwrap_or_else(|error| {
        say!("no memory is reserved for a crash kernel: {error}");
        report!("warning=crash-kernel what={}", Quoted(&error));
        CrashMemory::default()
    });
    report!(
        "phase=memblock ticks={} regions={} bytes={} reserved={} reserved_bytes={}",
        cpu::ticks_since(started),
        memblock.regions().count(),
        memblock.memory_len(),
        memblock.reserved().len(),
        memblock.reserved().iter().map(|range| range.len()).sum::<u64>()
    );
    Ok(Found { memblock, firmware, initrd, preserved, topology, crash })
}

/// All reserved memory, without `initrd`.
fn reserved_without(memblock: &Memblock<REGIONS>, initrd: Option<PaRange>) -> ArrayVec<PaRange, REGIONS> {
    let initrd = initrd.unwrap_or_default();
    let around = |range: &PaRange| {
        let below = PaRange::new(range.start, range.end.min(initrd.start));
        let above = PaRange::new(range.start.max(initrd.end), range.end);
        [if initrd.is_empty() { *range } else { below }, if initrd.is_empty() { initrd } else { above }]
    };
    memblock
        .reserved()
        .iter()
        .flat_map(around)
        .filter(|range| range.start < range.end)
        .take(REGIONS)
        .collect()
}
