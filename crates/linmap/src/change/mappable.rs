//! Whether the memory that a change names may be mapped, and why not.

use linmap_live::PlanError;
use linmap_table::{PhysicalMemory, Unmappable};
use linmap_vmsa::PaRange;

use super::change_error::ChangeError;
use super::region::Region;

/// Checks that all of `range`, not empty, may be mapped.
pub(super) fn check_mappable(memory: &impl PhysicalMemory, range: PaRange) -> Result<(), ChangeError> {
    match memory.first_unmappable(range) {
        None => Ok(()),
        Some(unmappable) => Err(not_mappable(range, unmappable)),
    }
}

/// Returns the error that names the first byte of `range` that must not be mapped, and the reason.
pub(super) fn not_mappable(range: PaRange, unmappable: Unmappable) -> ChangeError {
    match unmappable {
        Unmappable::NotMemory(pa) => ChangeError::NotMemory { range, pa },
        Unmappable::NoMap(pa) => ChangeError::NoMap { range, pa },
    }
}

/// Replaces an error about a hole in `range` by the reason for the hole. Returns any other error as
/// it is.
#[cold]
#[inline(never)]
pub(super) fn explained(
    memory: &impl PhysicalMemory,
    region: &Region,
    range: PaRange,
    error: ChangeError,
) -> ChangeError {
    let ChangeError::Plan(PlanError::Hole { va }) = error else { return error };
    match memory.first_unmappable(region.page_at(va)) {
        Some(unmappable) => not_mappable(range, unmappable),
        None => error,
    }
}
