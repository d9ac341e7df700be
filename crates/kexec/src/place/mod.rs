//! Where the parts of a payload go.

mod lowest;
mod part;
mod placement;
mod placement_error;
mod search;
mod segment;
mod usable;
mod window;

pub use part::Part;
pub use placement::{Initrd, PayloadPlacement};
pub use placement_error::PlacementError;
pub use segment::{MAX_SEGMENTS, SEGMENT_ALIGN, SegmentError, Segments};
pub use usable::fill_with_usable;
pub use window::initrd_window;
