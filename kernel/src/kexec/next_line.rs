//! The command line of the next kernel.

use core::fmt::Write;

use arrayvec::ArrayString;
use linmap_kexec::{crash_line, payload_line};
use linmap_platform::{CommandLine, CommandLineError};

use crate::arch::command_line::{CPUS, CRASH_KERNEL, GENERATION, is_ours};
use crate::kexec::allocations::Pool;

/// Writes the line for a kernel from the archive: `archive`, then the words of `own` that are not
/// ours.
///
/// # Errors
/// [`CommandLineError`]; `buffer` is unchanged.
pub fn for_payload<'b>(
    own: CommandLine<'_>,
    archive: CommandLine<'_>,
    pool: Pool,
    buffer: &'b mut [u8],
) -> Result<&'b str, CommandLineError> {
    let passed_on = own.words().filter(|word| !is_ours(word));
    match pool {
        Pool::Machine => payload_line(archive, passed_on, buffer),
        Pool::CrashKernel => crash_line(archive, passed_on, buffer),
    }
}

/// Writes the line for linmap itself: `own` with the number of the next generation. A crash kernel
/// has one CPU, and reserves no memory for another.
///
/// # Errors
/// [`CommandLineError`]; `buffer` is unchanged.
pub fn for_generation<'b>(
    own: CommandLine<'_>,
    generation: u64,
    pool: Pool,
    buffer: &'b mut [u8],
) -> Result<&'b str, CommandLineError> {
    let last = word::<{ GENERATION.len() + 21 }>(GENERATION, generation);
    let one = word::<{ CPUS.len() + 2 }>(CPUS, 1);
    match pool {
        Pool::Machine => own.edited(&[GENERATION], &[&last], buffer),
        Pool::CrashKernel => own.edited(&[GENERATION, CPUS, CRASH_KERNEL], &[&one, &last], buffer),
    }
}

/// The word `key=value`, for which `LEN` bytes are enough.
fn word<const LEN: usize>(key: &str, value: u64) -> ArrayString<LEN> {
    let mut word = ArrayString::new();
    // A u64 has at most 20 digits, so that it fits.
    let written = write!(word, "{key}={value}");
    debug_assert!(written.is_ok());
    word
}
