//! The words of the command line about CPUs.

use core::fmt::Write;

use arrayvec::ArrayString;
use linmap::features::{BbmOverride, NotALevel, Overclaimed};
use linmap_platform::CommandLine;
use thiserror::Error;

use crate::arch::command_line::CPUS;
use crate::arch::layout::MAX_CPUS;
use crate::smp::error::CpuError;

/// The word with the BBM level of all CPUs.
const BBM: &str = "linmap.bbm";
/// The words with the BBM level of one CPU begin with this, and end with the CPU's number.
const BBM_OF_CPU: &str = "linmap.bbm.cpu";

/// Why a word of the command line about CPUs is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CpuWordError {
    /// `linmap.cpus=` is not a number.
    #[error("linmap.cpus= is the number of CPUs to use, from 1")]
    Cpus,
    /// `linmap.bbm=` or `linmap.bbm.cpuN=` is not a level.
    #[error("{word}=: {source}")]
    Level {
        /// The word.
        word: ArrayString<24>,
        /// What is wrong.
        source: NotALevel,
    },
    /// It claims too much of the boot CPU.
    #[error("linmap.bbm: CPU 0: {0}")]
    Overclaimed(#[from] Overclaimed),
    /// It claims too much of another CPU.
    #[error("linmap.bbm: {0}")]
    OverclaimedLater(CpuError),
}

/// The BBM level of the CPU `number` on the command line: its own word, or that of all CPUs.
///
/// # Errors
/// [`CpuWordError::Level`].
pub fn bbm_override(line: CommandLine<'_>, number: usize) -> Result<Option<BbmOverride>, CpuWordError> {
    let mut own = ArrayString::<24>::new();
    // It fits: the number of a CPU has at most three digits.
    let _ = write!(own, "{BBM_OF_CPU}{number}");
    for word in [own.as_str(), BBM] {
        if let Some(value) = line.get(word) {
            return level(word, value).map(Some);
        }
    }
    Ok(None)
}

/// Checks all words with BBM levels, so that a wrong one is an error before anything is built.
///
/// # Errors
/// [`CpuWordError::Level`].
pub fn check_levels(line: CommandLine<'_>) -> Result<(), CpuWordError> {
    for word in line.words() {
        if word.key() == BBM || is_bbm_of_cpu(word.key()) {
            level(word.key(), word.value())?;
        }
    }
    Ok(())
}

fn level(word: &str, value: &str) -> Result<BbmOverride, CpuWordError> {
    value.parse().map_err(|source| {
        let word = ArrayString::from(word).unwrap_or_default();
        CpuWordError::Level { word, source }
    })
}

/// Whether a word of the command line gives the BBM level of one CPU.
pub fn is_bbm_of_cpu(word: &str) -> bool {
    word.strip_prefix(BBM_OF_CPU).is_some_and(|number| {
        let is_plain = number == "0" || !number.starts_with(['0', '+']);
        is_plain && number.parse::<usize>().is_ok_and(|number| number < MAX_CPUS)
    })
}

/// The number of CPUs on the command line; `None` without `linmap.cpus=`.
///
/// # Errors
/// [`CpuWordError::Cpus`].
pub fn cpu_count(line: CommandLine<'_>) -> Result<Option<usize>, CpuWordError> {
    match line.get(CPUS) {
        None => Ok(None),
        Some(value) => match value.parse() {
            Ok(0) | Err(_) => Err(CpuWordError::Cpus),
            Ok(count) => Ok(Some(count)),
        },
    }
}
