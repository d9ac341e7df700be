#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

mod address;
mod attributes;
pub mod bbm;
mod descriptor;
mod geometry;
mod granule;
pub mod id;
mod level;
mod regime;
pub mod registers;
pub mod tlbi;

pub use address::{Pa, PaRange, Va, VaRange};
pub use attributes::{Access, AttributeError, Attributes, Execute, MemoryType, Shareability};
pub use descriptor::{Decoded, Descriptor, LINEAR_SPAN, LeafError, leaf_type};
pub use geometry::{Geometry, GeometryError, PaReach};
pub use granule::Granule;
pub use level::Level;
pub use regime::Regime;
