//! The other CPUs at a hand-over to the next kernel.

use core::sync::atomic::Ordering;

use linmap::Layout;
use linmap_platform::{CpuNode, EnableMethod};
use linmap_table::Fixmap;
use smccc::psci::AffinityState;

use crate::arch::cpu::ThisCpu;
use crate::arch::cpu_set::CpuSet;
use crate::arch::per_cpu::{self, State};
use crate::arch::psci;
use crate::arch::wait::{PATIENCE, wait_until};
use crate::memory::parking;
use crate::smp::boot_page;
use crate::smp::cpus::Cpus;
use crate::smp::cross_call;
use crate::smp::error::{CpuError, Why};
use crate::smp::pen::Pen;

impl Cpus {
    /// Checks that all other CPUs can be switched off now, or sent to a pen. CPUs that the firmware
    /// never released stay with it. A CPU from a spin table that may wait to be called is asked.
    ///
    /// # Errors
    /// [`CpuError`]: the first CPU that can't be switched off, or that is lost.
    pub fn check_stoppable(&self) -> Result<(), CpuError> {
        for (number, described) in self.list.iter().enumerate().skip(1) {
            self.check_one_stoppable(number, *described).map_err(|why| CpuError { number, why })?;
        }
        Ok(())
    }

    fn check_one_stoppable(&self, number: usize, described: CpuNode) -> Result<(), Why> {
        let cpu = per_cpu::of(number);
        let said = || self.psci.map(|psci| psci::affinity_info(psci, described.affinity));
        let is_on = || said() == Some(Ok(AffinityState::On));
        let is_off = || said() == Some(Ok(AffinityState::Off));
        let found = |state| {
            cpu.working.store(0, Ordering::Release);
            parking::forget(number);
            cpu.set_state(state);
        };
        match (cpu.state(), described.method) {
            // A crashed kernel may have left a CPU on that this kernel did not start.
            (State::Off, EnableMethod::Psci) if is_on() => Err(Why::NotOurs),
            (State::Off, _) => Ok(()),
            (State::Online, _) if cross_call::is_finished(number) => Ok(()),
            (State::Online, _) => Err(Why::Busy),
            // A CPU that timed out may switch itself off much later.
            (State::Lost | State::Leaving, EnableMethod::Psci) if is_off() => {
                found(State::Off);
                Ok(())
            }
            // A CPU that timed out may reach the place where it waits much later.
            (State::Uncalled | State::Lost | State::Leaving, EnableMethod::SpinTable { .. }) => {
                if !boot_page::is_waiting(described.affinity) {
                    return Err(Why::Astray);
                }
                found(State::Uncalled);
                Ok(())
            }
            _ => Err(Why::Lost),
        }
    }

    /// The CPUs from spin tables that have left the firmware's: a payload has to find them in a
    /// pen.
    pub fn have_left_firmware(&self) -> CpuSet {
        let from_spin_table =
            |described: &CpuNode| matches!(described.method, EnableMethod::SpinTable { .. });
        let list = self.list.iter().enumerate().skip(1);
        list.filter(|(number, described)| {
            from_spin_table(described) && per_cpu::of(*number).state() != State::Off
        })
        .map(|(number, _)| number)
        .collect()
    }

    /// Sends all CPUs that wait to be called to `pen`, and waits for each until it is there.
    ///
    /// # Errors
    /// [`CpuError`]: a CPU does not say that it is there. It is lost, and so are those in the pen
    /// already.
    pub fn send_to_pen(&self, layout: &Layout, pen: Pen) -> Result<(), CpuError> {
        for number in self.have_left_firmware().iter() {
            let cpu = per_cpu::of(number);
            if cpu.state() != State::Uncalled {
                continue;
            }
            let affinity = self.list[number].affinity;
            boot_page::call_to_pen(affinity, pen.entry(), pen.mark(number));
            let there = wait_until(PATIENCE, || pen.has(layout, number));
            boot_page::call_nobody();
            cpu.set_state(State::Lost);
            if !there {
                return Err(CpuError { number, why: Why::NotPenned });
            }
        }
        Ok(())
    }

    /// Turns the interrupt controller off.
    pub fn stop_interrupts(&self, fixmap: &mut Fixmap) {
        if let Ok(gic) = &self.gic {
            gic.stop(fixmap, &mut ThisCpu);
        }
    }
}
