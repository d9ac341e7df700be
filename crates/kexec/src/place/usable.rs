//! The memory for a payload that does not fit into free memory. It includes the memory that the
//! running kernel uses until the hand-over.

use linmap_memblock::{Memblock, RegionError};
use linmap_vmsa::{Granule, PaRange};

/// Fills `usable`, which is empty, with the memory that a payload may occupy: all mappable memory
/// of `memory`, free or not, without `not`. `not` must have all memory that outlives the running
/// kernel (the firmware's reservations, preserved memory) and all memory that the hand-over itself
/// needs. Its free ranges are for [`PayloadPlacement::lowest`](crate::PayloadPlacement::lowest)
/// then.
///
/// # Errors
///
/// [`RegionError`]: there are more ranges than fit into `usable`.
pub fn fill_with_usable<const N: usize>(
    usable: &mut Memblock<N>,
    memory: &Memblock<N>,
    not: impl IntoIterator<Item = PaRange>,
) -> Result<(), RegionError> {
    for range in memory.mappable(Granule::K4.bytes()) {
        usable.add(range)?;
    }
    for range in not {
        usable.reserve(range)?;
    }
    Ok(())
}
