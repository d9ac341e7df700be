//! Random changes of the map under load.

pub mod arena;
pub mod call;
pub mod error;
pub mod footprint;
pub mod random;
pub mod run;
pub mod worker;
