//! AArch64 translation tables in memory.
//!
//! Two kinds of tree, and the difference is a type. A [`DetachedTree`] is in no TTBR: it is written freely, a table at a
//! time, without barriers or invalidations, and published once. A `linmap_live::LiveTree` is walked by hardware: every change of
//! it is planned, checked and applied. Besides, a boot changes live tables by two fixed sequences: publishing a detached tree
//! into an invalid entry, and [`Fixmap`] slots.
//!
//! What varies is behind three small traits: how a table frame is reached ([`TableWindow`]), where frames come from
//! ([`FrameSource`]), and what the CPU does ([`cpu::Cpu`]).

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
