//! Where a payload may be placed when free memory has no room for it: also where the running kernel is, since that ends with
//! the hand-over.

use linmap_memblock::{Memblock, RegionError};
use linmap_vmsa::{Granule, PaRange};

/// Memory that a payload may have: all that `memory` maps, free or not, without `not`. That has to name what outlives the
/// running kernel (what the firmware reserves, what is kept) and what the hand-over itself needs. Its free ranges are for
/// [`Placed::lowest`](crate::Placed::lowest).
///
/// # Errors
///
/// [`RegionError`]: there are more ranges than a memblock of `N` has room for.
pub fn usable<const N: usize>(
    memory: &Memblock<N>,
    not: impl IntoIterator<Item = PaRange>,
) -> Result<Memblock<N>, RegionError> {
    let mut usable = Memblock::new();
    for range in memory.mapped(Granule::K4.bytes()) {
        usable.add(range)?;
    }
    for range in not {
        usable.reserve(range)?;
    }
    Ok(usable)
}
