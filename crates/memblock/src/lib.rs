#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod alloc;
mod cursor;
mod dynamic;
mod fdt;
mod fdt_error;
mod fdt_storage;
mod growth;
mod iomem;
mod memblock;
mod range_set;
mod region_error;
mod uefi;
mod vacated;

pub use alloc::AllocError;
pub use dynamic::{DynamicError, DynamicReservation};
pub use fdt_error::{FdtError, FdtWarning, FdtWarnings};
pub use fdt_storage::EarlyStorage;
pub use growth::Growth;
pub use iomem::IomemError;
pub use memblock::{Memblock, MemoryRegion};
pub use region_error::{PA_LIMIT, RegionError};
pub use uefi::{UefiAttributes, UefiDescriptor, UefiError, UefiMap, UefiType, UefiUse};
pub use vacated::covers_only;
