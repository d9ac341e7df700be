//! The machine that a trace runs on.

use linmap_trace::{Head, MAX_CPUS};
use thiserror::Error;

/// What the model takes that the architecture's text does not promise.
///
/// ARCHITECTURE.md lists each leniency with the sentence that it rests on.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Leniency {
    /// Nothing.
    #[default]
    Strict,
    /// What kernels rely on and every CPU is known to do: for traces of kernels as they are.
    Kernels,
}

/// A machine and its memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The number of CPUs, 1 to [`MAX_CPUS`].
    pub cpus: usize,
    /// FEAT_BBM level of every CPU, 0 to 3.
    pub bbm: u8,
    /// Granule in bytes: 0x1000, 0x4000 or 0x10000.
    pub granule: u64,
    /// Bits of virtual address that the tables resolve, 25 to 52; of intermediate physical address
    /// for stage 2.
    pub va_bits: u8,
    /// Bits of physical address, one of 32, 36, 40, 42, 44, 48, 52.
    pub pa_bits: u8,
    /// Memory as (first byte, length in bytes), in whole pages. Its content is unknown until it is
    /// stored to.
    pub ram: Vec<(u64, u64)>,
    /// What is taken beyond the architecture's text.
    pub leniency: Leniency,
}

/// An impossible machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The number of CPUs.
    #[error("cpus={0}: must be 1 to 64")]
    Cpus(usize),
    /// The BBM level.
    #[error("bbm={0}: must be 0 to 3")]
    Bbm(u8),
    /// The granule.
    #[error("granule={0:#x}: must be 0x1000, 0x4000 or 0x10000")]
    Granule(u64),
    /// The VA size.
    #[error("va={0}: must be 25 to 52 bits")]
    VaBits(u8),
    /// The PA size.
    #[error("pa={0}: must be 32, 36, 40, 42, 44, 48 or 52 bits")]
    PaBits(u8),
    /// A range of memory.
    #[error(
        "ram {start:#x} {len:#x}: not whole pages, empty, beyond the physical addresses, or overlapping \
         another range"
    )]
    Ram {
        /// The first byte.
        start: u64,
        /// The length in bytes.
        len: u64,
    },
}

impl Config {
    /// The machine without its memory.
    pub const fn head(&self) -> Head {
        let Self { cpus, bbm, granule, va_bits, pa_bits, .. } = *self;
        Head { cpus, bbm, granule, va_bits, pa_bits }
    }

    /// Checks that the machine is possible.
    ///
    /// # Errors
    /// The [`ConfigError`] that names the impossible field.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return Err(ConfigError::Cpus(self.cpus));
        }
        if self.bbm > 3 {
            return Err(ConfigError::Bbm(self.bbm));
        }
        if !matches!(self.granule, 0x1000 | 0x4000 | 0x1_0000) {
            return Err(ConfigError::Granule(self.granule));
        }
        if !(25..=52).contains(&self.va_bits) {
            return Err(ConfigError::VaBits(self.va_bits));
        }
        if !matches!(self.pa_bits, 32 | 36 | 40 | 42 | 44 | 48 | 52) {
            return Err(ConfigError::PaBits(self.pa_bits));
        }
        let mut ram = self.ram.clone();
        ram.sort_unstable();
        let mut previous_end = 0;
        for (start, len) in ram {
            let end = start.checked_add(len).filter(|end| len > 0 && *end <= 1 << self.pa_bits);
            match end {
                Some(end) if (start | len) & 0xfff == 0 && previous_end <= start => previous_end = end,
                _ => return Err(ConfigError::Ram { start, len }),
            }
        }
        Ok(())
    }
}

impl From<Head> for Config {
    /// The machine without memory, judged strictly.
    fn from(head: Head) -> Self {
        let Head { cpus, bbm, granule, va_bits, pa_bits } = head;
        Self { cpus, bbm, granule, va_bits, pa_bits, ram: Vec::new(), leniency: Leniency::Strict }
    }
}
