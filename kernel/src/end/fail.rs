//! Errors that stop the kernel but are not bugs.

use core::fmt::Display;

use linmap_platform::Psci;

use crate::arch::print::Quoted;
use crate::arch::psci::power_off;
use crate::{report, say};

/// Prints the error, of kind `kind`, for people and for machines, and switches the machine off.
pub fn fail(kind: &str, error: &dyn Display, psci: Option<Psci>) -> ! {
    say!("linmap cannot continue: {error}");
    report!("error={kind} what={}", Quoted(error));
    power_off(psci)
}
