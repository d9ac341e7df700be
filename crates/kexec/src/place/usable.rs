//! The memory for a payload that does not fit into free memory. It includes the memory that the
//! running kernel uses until the hand-over.

use linmap_memblock::{Memblock, RegionError};
use linmap_vmsa::{Granule, PaRange};

/// Returns the memory that a payload may occupy: all mappable memory of `memory`, free or not,
/// without `not`. `not` must have all memory that outlives the running kernel (the firmware's
/// reservations, preserved memory) and all memory that the hand-over itself needs. The result's
/// free ranges are for [`PayloadPlacement::lowest`](crate::PayloadPlacement::lowest).
///
/// # Errors
///
/// [`RegionError`]: there are more ranges than fit into a memblock of this capacity.
pub fn usable<const N: usize>(
    memory: &Memblock<N>,
    not: impl IntoIterator<Item = PaRange>,
) -> Result<Memblock<N>, RegionError> {
    let mut usable = Memblock::new();
    for range in memory.mappable(Granule::K4.bytes()) {
        usable.add(range)?;
    }
    for range in not {
        usable.reserve(range)?;
    }
    Ok(usable)
}
