//! GICv2 and GICv3, far enough to interrupt other CPUs.

pub mod controller;
pub mod v2;
pub mod v3;
