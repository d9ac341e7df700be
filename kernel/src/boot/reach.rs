//! Which memory the kernel uses: what its VA size and descriptors reach.

use linmap::Layout;
use linmap_memblock::{Memblock, RegionError};
use linmap_platform::CommandLine;
use linmap_vmsa::{Pa, PaRange};

use crate::arch::geometry::geometry;
use crate::boot::pass::Pass;
use crate::memory::long_lists::REGIONS;
use crate::{report, say};

/// Enters everything again with more bits if `memblock` has memory that needs them and the CPU has
/// them. Then removes what does not fit the linear region together with the image, memblock's lists
/// and, where there is room, the initrd. Returns how many bytes it removed.
///
/// # Errors
/// [`RegionError`]: memblock has no room for the rest.
pub fn leave_out(
    memblock: &mut Memblock<REGIONS>,
    pass: Pass,
    line: CommandLine<'_>,
    initrd: Option<PaRange>,
) -> Result<u64, RegionError> {
    let start = memblock.regions().next().map_or(Pa(0), |region| region.range.start);
    let all = PaRange::new(start, memblock.memory_end());
    pass.reach(line, all);
    let both = |a: PaRange, b: PaRange| PaRange::new(a.start.min(b.start), a.end.max(b.end));
    let image = pass.image.range();
    let image = memblock.storage().map_or(image, |lists| both(image, lists));
    let both = initrd.map_or(image, |initrd| both(image, initrd));
    let mut reach = Layout::reach(geometry(), all, both);
    if !reach.covers(both) {
        reach = Layout::reach(geometry(), all, image);
    }
    if reach == all {
        return Ok(0);
    }
    let before = memblock.memory_len();
    for beyond in [PaRange::new(all.start, reach.start), PaRange::new(reach.end, all.end)] {
        if !beyond.is_empty() {
            memblock.remove(beyond)?;
        }
    }
    Ok(before - memblock.memory_len())
}

/// Says that `left_out` bytes are not used, if there are any.
pub fn warn(left_out: u64) {
    if left_out > 0 {
        let bits = geometry().va_bits();
        say!("{left_out:#x} bytes of memory do not fit the linear region of {bits} bits: they are not used");
        report!("warning=memory-left-out bytes={left_out} va_bits={bits}");
    }
}
