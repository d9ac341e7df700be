#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

pub mod cpu;
mod detached;
mod fill;
mod fixmap;
mod frames;
mod mapping;
mod physical_memory;
mod ttbr0;
pub mod verify;
mod walk;
mod window;

pub use detached::{Built, DetachedTree, EntryInUse, contiguous_part, release_below};
pub use fill::{clear, fill};
pub use fixmap::{Fixmap, FixmapWindow};
pub use frames::{FrameSource, OutOfFrames};
pub use mapping::{Cursor, Leaves, Mapping, MappingError, Mappings};
pub use physical_memory::{PhysicalMemory, RecordError, Unmappable};
pub use ttbr0::{Installed, Reserved};
pub use walk::{Leaf, LeafIter, Walk, read, walk};
pub use window::{OffsetWindow, TableWindow};
