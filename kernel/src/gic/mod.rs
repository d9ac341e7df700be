//! The interrupt controller, as far as CPUs interrupt each other.

pub mod controller;
pub mod error;
pub mod interrupt;
pub mod node;
pub mod sgi;
pub mod v2;
pub mod v3;
