//! The interrupt controller, as far as CPUs interrupt each other.

pub mod controller;
pub mod error;
pub mod interrupt;
pub mod sgi;
pub mod v2;
pub mod v3;
