#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod build;
mod bump_frames;
pub mod cpu;
mod detached;
mod fill;
mod first_map;
mod fixmap;
mod frames;
mod mapping;
mod physical_memory;
mod reachable_frames;
mod release;
mod subtree;
mod table_image;
mod ttbr0;
pub mod verify;
mod walk;
mod window;

pub use build::Built;
pub use bump_frames::BumpFrames;
pub use detached::{DetachedTree, EntryInUse};
pub use fill::{clear, fill};
pub use first_map::{FirstMap, FirstMapError};
pub use fixmap::{Fixmap, FixmapWindow};
pub use frames::{FrameSource, OutOfFrames};
pub use mapping::{Cursor, Leaves, Mapping, MappingError, Mappings, contiguous_part};
pub use physical_memory::{PhysicalMemory, RecordError, Unmappable};
pub use reachable_frames::ReachableFrames;
pub use release::release_below;
pub use subtree::{Subtree, SubtreeError};
pub use table_image::TableImage;
pub use ttbr0::{Installed, Reserved};
pub use walk::{Leaf, LeafIter, Walk, read, walk};
pub use window::{OffsetWindow, TableWindow};
