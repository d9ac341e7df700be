//! The CPU and its console, which every other wing uses.

pub mod affinities;
pub mod bulk;
pub mod command_line;
pub mod compare;
pub mod console;
pub mod cpu;
pub mod cpu_set;
pub mod el2_stub;
pub mod entered;
pub mod frame;
pub mod geometry;
pub mod identity_map;
pub mod image;
pub mod layout;
pub mod per_cpu;
pub mod platform;
pub mod print;
pub mod probe;
pub mod psci;
pub mod sctlr;
pub mod stop;
pub mod topology;
pub mod uart;
pub mod uart_model;
pub mod wait;
