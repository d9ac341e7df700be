//! Which CPU executes.
//!
//! With all CPUs in one thread, QEMU 10 and later put the number of the CPU that translated a block
//! into the block's callbacks, and CPUs share blocks. What tells them apart is the pointer to the
//! CPU's state, which QEMU's code generator keeps in a register that calls preserve: RBP on x86-64,
//! X19 on AArch64. So callbacks enter through two instructions that hand that register on. A
//! callback that QEMU's C code calls, as for atomics, has the right number; there the register
//! holds something else. Hosts of other architectures have the number alone.

use std::ffi::c_uint;
use std::sync::atomic::{AtomicUsize, Ordering};

use linmap_trace::MAX_CPUS;

/// The states of the CPUs, in the order in which they first execute an instruction that is
/// recorded. That is the order of their numbers if they are started in it.
static STATES: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

fn known(state: usize) -> Option<usize> {
    let states = STATES.iter().map(|known| known.load(Ordering::Relaxed));
    states.take_while(|known| *known != 0).position(|known| known == state)
}

/// The CPU with `state` that executes an instruction, which translated code alone says. `given` is
/// the number that it gives, and `state` 0 where it hands no register on.
pub fn of_instruction(given: c_uint, state: usize) -> usize {
    if state == 0 {
        return given as usize;
    }
    known(state).unwrap_or_else(|| {
        let free = STATES.iter().position(|known| known.load(Ordering::Relaxed) == 0);
        if let Some(free) = free {
            STATES[free].store(state, Ordering::Relaxed);
        }
        free.unwrap_or(given as usize)
    })
}

/// The CPU that stores: the one with `state`, or the `given` one if there is none, since QEMU's C
/// code says so.
pub fn of_store(given: c_uint, state: usize) -> usize {
    known(state).unwrap_or(given as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_that_share_a_block_are_told_apart_by_their_state() {
        assert_eq!(of_store(3, 0x1000), 3, "before any instruction");
        assert_eq!(of_instruction(0, 0x1000), 0);
        // Translated by CPU 0, executed by another.
        assert_eq!(of_instruction(0, 0x2000), 1);
        assert_eq!(of_store(0, 0x2000), 1);
        assert_eq!(of_instruction(1, 0x1000), 0);
        // What C code has in the register is nobody's state.
        assert_eq!(of_store(1, 0x3000), 1);
        assert_eq!(of_instruction(2, 0), 2, "no register is handed on");
    }
}
