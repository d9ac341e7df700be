#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod build_cost;
mod build_error;
mod builder;
mod change;
mod changed_ranges;
mod config;
pub mod features;
mod fixmap_build;
mod frame_pool;
mod identity_build;
mod image;
mod kaslr;
mod layout;
mod leaf_policy;
pub mod listing;
mod map_window;
mod mapping_list;
#[cfg(feature = "memblock")]
mod memblock;
mod page_ranges;
mod prepared;
mod slots;
mod step;
mod tree_counts;

pub use build_cost::BuildCost;
pub use build_error::BuildError;
pub use builder::Builder;
pub use change::{
    ChangeError, Changed, Editor, LinearMap, MemoryError, ParkError, Pause, Protection, Repaint,
};
pub use changed_ranges::{Allowed, ChangedRanges, MemoryChange, RecordFull};
pub use config::{ConfigError, LinearMapConfig};
pub use frame_pool::{FramePool, PooledFrames};
pub use image::ImageParts;
pub use kaslr::{ImageRegion, KaslrSeed};
pub use layout::{Layout, LayoutError};
pub use leaf_policy::{LeafPolicy, leaves_name};
pub use map_window::MapWindow;
pub use mapping_list::{BeyondIdentityReach, MappingList, MappingLists, TooManyRanges, identity_geometry};
#[cfg(feature = "memblock")]
pub use memblock::{MemblockFrames, MemblockRecord, first_unmappable};
pub use page_ranges::{PageRanges, TooManyPageRanges};
pub use prepared::{BuiltMap, PreparedMap};
pub use slots::{BuilderSlots, SlotError};
pub use step::FixmapStep;
pub use tree_counts::LevelCounts;
