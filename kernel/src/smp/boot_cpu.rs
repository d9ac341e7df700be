//! The boot CPU's features.

use linmap::features::Features;
use linmap_platform::CommandLine;
use linmap_vmsa::PaRange;
use linmap_vmsa::id::{Isar0, Midr, Mmfr0, Mmfr2};

use crate::arch::cpu;
use crate::smp::command_line::{CpuWordError, bbm_override, check_levels};

/// The boot CPU's features as the command line limits them.
///
/// # Errors
/// [`CpuWordError`], for the words about any CPU.
pub fn features(line: CommandLine<'_>) -> Result<Features, CpuWordError> {
    check_levels(line)?;
    let features =
        Features::new(Midr(cpu::midr()), Mmfr0(cpu::mmfr0()), Mmfr2(cpu::mmfr2()), Isar0(cpu::isar0()));
    Ok(match bbm_override(line, 0)? {
        Some(limit) => features.with_bbm(limit)?,
        None => features,
    })
}

/// The bits of physical address that the last byte of each of `ranges` needs.
pub fn bits_to_reach(ranges: impl IntoIterator<Item = PaRange>) -> u8 {
    let last = ranges.into_iter().map(|range| range.end.0.saturating_sub(1)).max().unwrap_or(0);
    (u64::BITS - last.leading_zeros()) as u8
}
