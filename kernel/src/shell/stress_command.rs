//! The command `stress`.

use crate::arch::cpu;
use crate::memory::live::{Fields, timed};
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;
use crate::shell::words::Words;
use crate::stress::run::{self, Summary};
use crate::{report, say};

/// The words of `stress`.
pub const STRESS: &str = "stress CALLS [SEED]";

/// Makes random changes while all other CPUs use the map.
pub fn stress(owners: &mut Owners, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, STRESS);
    let calls = words.number()?;
    // The first line of the run prints the seed, for a repetition of the run.
    let seed = words.optional_number()?.unwrap_or_else(cpu::counter);
    words.end()?;
    let Owners { platform, memory, map, .. } = owners;
    let (summary, ticks) = timed(|| run::run(memory, map, platform.image, calls, seed));
    let Summary { calls, refused, too_long, workers, accesses, faults, probed, changed } = summary?;
    say!("{calls} calls, {refused} of them refused; the map is as before.");
    report!(
        "stress=ok calls={calls} seed={seed:#x} workers={workers} accesses={accesses} faults={faults} \
         probed={probed} refused={refused} too_long={too_long} ticks={ticks} {}",
        Fields(changed)
    );
    Ok(())
}
