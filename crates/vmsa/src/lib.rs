#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

mod address;
mod address_form;
mod attribute_error;
mod attributes;
pub mod bbm;
mod descriptor;
mod geometry;
mod geometry_word;
mod granule;
mod hardware_updates;
pub mod id;
mod level;
mod mair;
mod memory_type;
mod permissions;
mod regime;
pub mod registers;
mod stage_2_registers;
mod table_permissions;
pub mod tlbi;
mod walk;

pub use address::{Pa, PaRange, Va, VaRange};
pub use attribute_error::AttributeError;
pub use attributes::{Attributes, Shareability};
pub use descriptor::{Decoded, Descriptor, LINEAR_SPAN, LeafError, leaf_type};
pub use geometry::{Geometry, GeometryError, PaReach};
pub use granule::Granule;
pub use hardware_updates::HardwareUpdates;
pub use level::Level;
pub use mair::Mair;
pub use memory_type::MemoryType;
pub use permissions::{Access, Execute};
pub use regime::{Regime, Stage2};
pub use stage_2_registers::{Stage2Registers, VmidSize};
pub use table_permissions::TablePermissions;
pub use walk::{TableRegisters, Walk, WalkError};
