//! How the kernel ends: one CPU prints the reason, all others stop, and a crash kernel is entered
//! if one waits.

pub mod exceptions;
pub mod fail;
pub mod fatal;
pub mod interrupts;
pub mod panic;
pub mod stopping;
