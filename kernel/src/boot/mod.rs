//! From the boot loader to Rust: entry, the device tree, the command line.

pub mod command_line;
pub mod dtb;
pub mod entry;
pub mod topology;
