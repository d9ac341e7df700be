//! The crash kernel: its memory, which is reserved from boot on, and the way into it when this
//! kernel ends.

pub mod description;
pub mod enter;
pub mod memory;
