#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

mod alloc;
mod cursor;
mod fdt;
mod fdt_error;
mod memblock;
mod range_set;
mod region_error;
mod vacated;

pub use alloc::AllocError;
pub use fdt_error::{FdtError, FdtWarning, FdtWarnings};
pub use memblock::{Memblock, MemoryRegion};
pub use region_error::{PA_LIMIT, RegionError};
pub use vacated::covers_only;
