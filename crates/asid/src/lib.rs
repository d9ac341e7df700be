#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

mod allocator;
mod atomic;
mod claims;
mod cpu_ids;
mod id_error;
mod maintenance;
mod numbers;
mod space_id;

pub use allocator::IdAllocator;
pub use cpu_ids::CpuIds;
pub use id_error::{CpuError, IdError};
pub use maintenance::Maintenance;
pub use space_id::SpaceId;
