#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod affinity;
pub mod chosen;
mod command_line;
mod crash_memory;
pub mod device;
mod devices;
mod earlycon;
pub mod gic;
mod memory_words;
mod number;
mod psci;
pub mod sgi;
mod topology;
mod uart;

pub use affinity::Affinity;
pub use command_line::{COMMAND_LINE_MAX, CommandLine, CommandLineError, Word, Words, join_words};
pub use crash_memory::{CrashReservation, CrashReservationError};
pub use devices::Devices;
pub use memory_words::{MemoryLimit, MemoryMap, MemoryMapEntry, MemoryWordError};
pub use number::parse_number;
pub use psci::{Conduit, Psci, PsciFunctions};
pub use topology::{CpuNode, EnableMethod, Topology, UnusableCpu};
pub use uart::{Identity, RegisterWidth, Uart, UartKind};
