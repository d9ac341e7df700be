//! What can go wrong with a change.

use linmap_live::{PlanError, Refused};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use super::editor::ParkError;
use crate::page_ranges::TooManyPageRanges;

/// Why nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The range is empty or does not consist of whole pages.
    #[error("{range} is not one or more whole pages of {granule:#x} bytes")]
    Unaligned {
        /// The range asked for.
        range: PaRange,
        /// The granule in bytes.
        granule: u64,
    },
    /// The linear region does not reach all of the range.
    #[error("{range} is not inside the linear region, which covers {reach}")]
    OutOfReach {
        /// The range asked for.
        range: PaRange,
        /// The physical addresses that have a linear address.
        reach: PaRange,
    },
    /// There are too many ranges of pages.
    #[error(transparent)]
    TooManyPageRanges(#[from] TooManyPageRanges),
    /// A part of the range is not memory.
    #[error("{pa} in {range} is not memory")]
    NotMemory {
        /// The range asked for.
        range: PaRange,
        /// The first such address.
        pa: Pa,
    },
    /// A part of the range must not be mapped.
    #[error("{pa} in {range} is no-map: it belongs to the firmware")]
    NoMap {
        /// The range asked for.
        range: PaRange,
        /// The first such address.
        pa: Pa,
    },
    /// The range overlaps a part of the kernel image that the call must not change.
    #[error("{range} overlaps {image}, a part of the kernel image that this call must not change")]
    ImageText {
        /// The range asked for.
        range: PaRange,
        /// That part of the image.
        image: PaRange,
    },
    /// The range is partly inside the kernel image's data and partly outside.
    #[error("{range} is only partly inside the kernel image's data at {image}, which is mapped twice")]
    PartlyImage {
        /// The range asked for.
        range: PaRange,
        /// The image's data.
        image: PaRange,
    },
    /// The change can't be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The check refused the plan: a bug of the planner.
    #[error("the plan was refused: {0}")]
    Refused(#[from] Refused),
    /// A CPU did not leave the map.
    #[error(transparent)]
    Park(#[from] ParkError),
}
