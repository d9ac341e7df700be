//! How the kernel ends.

pub mod fatal;
pub mod halt;
