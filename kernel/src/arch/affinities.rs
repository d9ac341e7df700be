//! The affinity of each CPU by its number, where assembly finds it too.

use core::sync::atomic::{AtomicU64, Ordering};

use linmap_platform::Affinity;

use crate::arch::layout::MAX_CPUS;
use crate::arch::per_cpu;

/// The affinity of each CPU by number, [`NOBODY`] where there is none. `secondary.S` looks its own
/// up.
#[unsafe(no_mangle)]
static SECONDARY_AFFINITIES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(NOBODY) }; MAX_CPUS];

/// No CPU's affinity.
pub const NOBODY: u64 = u64::MAX;

/// Gives the number `number` to the CPU at `affinity`. The boot CPU knows its own.
pub fn assign(number: usize, affinity: Affinity) {
    SECONDARY_AFFINITIES[number].store(affinity.bits(), Ordering::Release);
    per_cpu::introduce(number);
}

/// The affinity of the CPU `number`.
pub fn of(number: usize) -> Affinity {
    Affinity::of_mpidr(SECONDARY_AFFINITIES[number].load(Ordering::Acquire))
}
