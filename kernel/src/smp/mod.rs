//! All CPUs: started, called, parked, sent away.

pub mod cpus;
pub mod cross_call;
pub mod parking;
pub mod pen;
pub mod secondary;
pub mod stacks;
