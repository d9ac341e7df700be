//! A CPU that is being called, from the call to its end.

use core::sync::atomic::Ordering;

use linmap::features::Features;
use linmap_platform::Affinity;
use linmap_vmsa::id::{Isar0, Midr, Mmfr0, Mmfr2};

use crate::arch::per_cpu::{self, PerCpu, State};
use crate::arch::wait::{PATIENCE, wait_until};
use crate::memory::parking;
use crate::smp::boot_page::{self, Unfit};
use crate::smp::error::Why;

/// A CPU that is being called. It may arrive at any moment.
#[must_use = "the call lasts until it is withdrawn or finished"]
#[derive(Debug)]
pub struct Call {
    number: usize,
    affinity: Affinity,
    before: State,
}

/// How a call ended that did not bring the CPU online.
#[derive(Debug)]
pub enum Ended {
    /// The CPU left before its MMU was on.
    Unfit(Unfit),
    /// The CPU was refused.
    Refused(Why),
    /// The CPU has no usable CPU interface of the interrupt controller.
    NoCpuInterface,
    /// The CPU timed out. It is [`State::Lost`] now.
    TimedOut,
}

impl Ended {
    /// Whether the CPU leaves by itself.
    pub fn is_leaving(&self) -> bool {
        !matches!(self, Self::TimedOut)
    }

    /// The reason for reports.
    pub fn why(self) -> Why {
        match self {
            Self::Unfit(unfit) => Why::Unfit(unfit),
            Self::Refused(why) => why,
            Self::NoCpuInterface => Why::NoCpuInterface,
            Self::TimedOut => Why::DidNotStart,
        }
    }
}

impl Call {
    /// Calls the CPU `number` at `affinity`, which is off or waits to be called. `conduit` says how
    /// it leaves.
    pub fn new(number: usize, affinity: Affinity, conduit: u64) -> Self {
        let cpu = per_cpu::of(number);
        let before = cpu.state();
        parking::expect(number);
        cpu.conduit.store(conduit, Ordering::Release);
        cpu.set_state(State::Starting);
        boot_page::call(affinity, conduit);
        Self { number, affinity, before }
    }

    /// Withdraws the call: the CPU was never sent here.
    pub fn withdraw(self) {
        boot_page::call_nobody();
        self.cpu().set_state(self.before);
    }

    /// Waits until the CPU arrives, has `admit` decide by its features whether it may stay, and
    /// waits until it is online.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn finish<T>(self, admit: impl FnOnce(Features) -> Result<T, Why>) -> Result<T, Ended> {
        self.wait_for_arrival()?;
        let cpu = self.cpu();
        let admitted = admit(features(cpu)).map_err(|why| {
            cpu.set_state(State::Refused);
            Ended::Refused(why)
        })?;
        cpu.set_state(State::Admitted);
        wait_until(PATIENCE, || cpu.state() != State::Admitted);
        // The CPU may change its state after the last look.
        if cpu.change_state(State::Admitted, State::Lost) {
            return Err(Ended::TimedOut);
        }
        if cpu.state() == State::Online { Ok(admitted) } else { Err(Ended::NoCpuInterface) }
    }

    fn wait_for_arrival(&self) -> Result<(), Ended> {
        let cpu = self.cpu();
        let mut unfit = None;
        let arrived = wait_until(PATIENCE, || {
            unfit = boot_page::unfit(self.affinity);
            unfit.is_some() || cpu.state() == State::Arrived
        });
        boot_page::call_nobody();
        if let Some(unfit) = unfit {
            // SAFETY: its MMU was never on.
            unsafe { parking::forget(self.number) };
            return Err(Ended::Unfit(unfit));
        }
        // The CPU may arrive after the last look.
        if !arrived && cpu.change_state(State::Starting, State::Lost) {
            if !boot_page::is_coming(self.affinity) {
                // SAFETY: it does not start any more: nobody calls it.
                unsafe { parking::forget(self.number) };
            }
            return Err(Ended::TimedOut);
        }
        Ok(())
    }

    fn cpu(&self) -> &'static PerCpu {
        per_cpu::of(self.number)
    }
}

/// The features of a CPU that has arrived.
fn features(cpu: &PerCpu) -> Features {
    let [midr, mmfr0, mmfr2, isar0] = cpu.id.each_ref().map(|word| word.load(Ordering::Relaxed));
    Features::new(Midr(midr), Mmfr0(mmfr0), Mmfr2(mmfr2), Isar0(isar0))
}
