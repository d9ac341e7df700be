//! Random changes of the map under load.

pub mod arena;
pub mod random;
pub mod run;
pub mod worker;
