//! The CPU and what stands next to it: instructions, exceptions, per-CPU data, the console, PSCI.

pub mod console;
pub mod cpu;
pub mod exceptions;
pub mod percpu;
pub mod probe;
pub mod psci;
