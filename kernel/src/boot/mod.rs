//! From the boot loader to Rust: entry, the device tree, the command line.

pub mod chosen;
pub mod device_tree;
pub mod dtb;
pub mod entry;
pub mod number;
pub mod topology;
pub mod uart;
