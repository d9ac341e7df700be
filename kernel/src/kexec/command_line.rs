//! The words of the command line about payloads.

use linmap_platform::CommandLine;

use crate::arch::command_line::GENERATION;
use crate::kexec::error::KexecError;

/// The number of kexecs of linmap into itself before this boot.
///
/// # Errors
/// [`KexecError::NotANumber`].
pub fn generation(line: CommandLine<'_>) -> Result<u64, KexecError> {
    number(line, GENERATION, 0)
}

/// The number of the last generation.
///
/// # Errors
/// [`KexecError::NotANumber`].
pub fn last_generation(line: CommandLine<'_>) -> Result<u64, KexecError> {
    number(line, "linmap.generations", 1)
}

/// The value of `key`, or `default`.
fn number(line: CommandLine<'_>, key: &'static str, default: u64) -> Result<u64, KexecError> {
    match line.get(key) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|_| KexecError::NotANumber { key }),
    }
}
