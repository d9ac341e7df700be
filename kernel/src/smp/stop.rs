//! Switching one of the other CPUs off, as the boot CPU does it.

use core::sync::atomic::Ordering;

use linmap_platform::{CpuNode, EnableMethod};
use smccc::psci::AffinityState;

use crate::arch::cpu_set::CpuSet;
use crate::arch::per_cpu::{self, State};
use crate::arch::psci;
use crate::arch::wait::{PATIENCE, wait_until};
use crate::gic::interrupt::interrupt;
use crate::gic::sgi::Sgi;
use crate::memory::parking;
use crate::smp::boot_page;
use crate::smp::cpus::Cpus;
use crate::smp::cross_call;
use crate::smp::error::{CpuError, Why};

/// How long a CPU may take from leaving the live root to its call of CPU_OFF, in milliseconds.
const LAST_INSTRUCTIONS: u64 = 100;

impl Cpus {
    /// Switches the CPU `number` off. A CPU from a spin table waits to be called again.
    ///
    /// # Errors
    /// [`CpuError`].
    pub fn stop(&self, number: usize) -> Result<(), CpuError> {
        let fail = |why| CpuError { number, why };
        self.described(number)?;
        if number == 0 {
            return Err(fail(Why::BootCpu));
        }
        if per_cpu::of(number).state() != State::Online {
            return Err(fail(Why::NotOnline));
        }
        if !cross_call::is_finished(number) {
            return Err(fail(Why::Busy));
        }
        interrupt(Sgi::Off, CpuSet::one(number));
        wait_until(PATIENCE, || per_cpu::of(number).state() == State::Leaving);
        if self.wait_until_off(number) { Ok(()) } else { Err(fail(Why::DidNotLeave)) }
    }

    /// Waits until the CPU `number`, which leaves, is off, or waits to be called if it came from a
    /// spin table. Returns whether it has left; otherwise it is lost.
    pub(super) fn wait_until_off(&self, number: usize) -> bool {
        let CpuNode { affinity, method } = self.list[number];
        let state = match (method, self.psci) {
            (EnableMethod::Psci, Some(psci)) if psci.is_standard() => {
                let is_off = || psci::affinity_info(psci, affinity) == Ok(AffinityState::Off);
                wait_until(PATIENCE, is_off).then_some(State::Off)
            }
            // The firmware can't be asked.
            (EnableMethod::Psci, Some(_)) => self.wait_for_last_instructions(number).then_some(State::Off),
            (EnableMethod::SpinTable { .. }, _) => boot_page::is_waiting(affinity).then_some(State::Uncalled),
            _ => None,
        };
        per_cpu::of(number).set_state(state.unwrap_or(State::Lost));
        state.is_some()
    }

    /// Waits until the CPU `number`, which leaves, has left the live root, and then long enough for
    /// the few instructions that are left until it calls a PSCI of version 0.1. Linux does not wait
    /// at all. Returns whether it has left.
    fn wait_for_last_instructions(&self, number: usize) -> bool {
        let has_left = wait_until(PATIENCE, || parking::is_away(number));
        wait_until(LAST_INSTRUCTIONS, || false);
        has_left
    }

    /// Waits until the CPU `number`, which was sent from its work, is off. Returns whether it is.
    pub fn has_left(&self, number: usize) -> bool {
        let gone = self.wait_until_off(number);
        if gone {
            per_cpu::of(number).working.store(0, Ordering::Release);
            parking::forget(number);
        }
        gone
    }
}
