//! What is moved where before the payload starts, and the tables under which that happens.

mod extent;
mod finished_plan;
mod frame_finder;
mod ind_list;
mod list;
mod list_error;
mod list_writer;
mod move_error;
mod ordering;
mod plan;
mod record;
mod segment_sources;
mod transition;

pub use extent::{Extent, ExtentSource};
pub use finished_plan::{MAX_SHARES, Moves};
pub use ind_list::{IndEntry, IndError, IndList};
pub use linmap_relocate::{KIND_CLEAR, KIND_COPY, KIND_COPY_DOWNWARDS, KIND_GO, KIND_LINK, KIND_MASK};
pub use list::{LIST_FRAME_LEN, LIST_FRAME_WORDS, MoveList, RECORDS_PER_FRAME, Records};
pub use list_error::WireError;
pub use list_writer::ListFrame;
pub use move_error::MoveError;
pub use ordering::Pending;
pub use plan::{BOUNCE_MAX, MovePlan};
pub use record::{Direction, RECORD_WORDS, Record};
pub use segment_sources::SegmentSources;
pub use transition::{Transition, TransitionError};
