//! How long a CPU runs before the next one does.
//!
//! QEMU runs all CPUs in one thread, each for 100 ms, or until it executes WFE, WFI or YIELD. A
//! CPU that waits for another without them, by ISB as Rust's `spin_loop` or by loads alone, takes
//! all of that, and the CPU that it waits for does not run. So the recorder makes slices shorter.

use std::sync::atomic::{AtomicU32, Ordering};

/// What a slice may cost. It is a millisecond or two of code that does not wait.
const SLICE: u32 = 1 << 14;

/// What is left of the slice. The one thread of CPUs alone uses it.
static LEFT: AtomicU32 = AtomicU32::new(SLICE);

/// What a CPU does at the cost of its slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spent {
    /// An ISB without effect: in a loop, it waits.
    IdleIsb,
    /// A load-acquire. In a loop, it may wait.
    Acquire,
    /// Something else that the recorder sees.
    Other,
}

impl Spent {
    const fn cost(self) -> u32 {
        match self {
            Self::IdleIsb => SLICE / 64,
            Self::Acquire => SLICE / 1024,
            Self::Other => 1,
        }
    }
}

/// Takes the cost off the slice. Says whether it is over, and the next begins.
pub fn is_over(spent: Spent) -> bool {
    let left = LEFT.load(Ordering::Relaxed).checked_sub(spent.cost()).filter(|left| *left > 0);
    LEFT.store(left.unwrap_or(SLICE), Ordering::Relaxed);
    left.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_waits_has_shorter_slices_than_one_that_works() {
        let slices = |spent, times| (0..times).filter(|_| is_over(spent)).count();
        assert_eq!(slices(Spent::Other, 10 * SLICE), 10);
        assert_eq!(slices(Spent::Acquire, 10 * 1024), 10);
        assert_eq!(slices(Spent::IdleIsb, 10 * 64), 10);
    }
}
