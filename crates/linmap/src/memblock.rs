//! Memblock as the allocator behind a linear map. Feature `memblock`.

mod frames;
mod record;

pub use frames::MemblockFrames;
pub use record::{MemblockRecord, first_unmappable};
