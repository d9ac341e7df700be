//! How a CPU leaves: it takes no more interrupts, and then switches itself off or waits with its
//! MMU off.

use core::sync::atomic::{Ordering, fence};

use linmap_park::WayOff;
use linmap_platform::{Conduit, Psci, PsciFunctions};
use smccc::psci::AffinityState;

use crate::arch::affinities;
use crate::arch::per_cpu::{self, State};
use crate::arch::psci::{self, CONDUIT_HVC, CONDUIT_SMC, CONDUIT_WAIT};
use crate::arch::stop;
use crate::gic::controller;
use crate::memory::parking;

unsafe extern "C" {
    fn secondary_again() -> !;
}

/// Whether other CPUs interrupt this one. The boot CPU is sent no interrupts. The interface of any
/// other CPU works once it is online.
pub fn takes_interrupts() -> bool {
    let me = per_cpu::this_cpu();
    me != 0 && matches!(per_cpu::of(me).state(), State::Online | State::Leaving)
}

/// Removes this CPU, which is online, from those that are interrupted. No interrupt stays pending
/// for the next kernel.
pub fn leave_others() {
    per_cpu::of(per_cpu::this_cpu()).set_state(State::Leaving);
    // The same fence is in `interrupt_others`: either the CPU that ends the kernel sees the new
    // state, or this CPU sees that the kernel ends.
    fence(Ordering::SeqCst);
    stop::stop_if_elsewhere();
    drain_interrupts();
}

/// Takes all interrupts that are pending for this CPU, so that the next kernel gets none of them,
/// and lets no more through.
pub fn drain_interrupts() {
    if takes_interrupts() {
        while controller::take().is_some() {}
        controller::stop_this_cpu();
    }
}

/// Leaves the live tables. Then switches this CPU off, or waits with the MMU off if it came from a
/// spin table, or stops where neither is possible. Interrupts are masked.
pub fn off() -> ! {
    let (conduit, function) = way_off(per_cpu::this_cpu());
    let way = match conduit {
        CONDUIT_HVC => WayOff::PsciHvc { cpu_off: function },
        CONDUIT_SMC => WayOff::PsciSmc { cpu_off: function },
        CONDUIT_WAIT => WayOff::Code(secondary_again),
        _ => WayOff::Stay,
    };
    parking::for_good(way)
}

/// Switches off this CPU, which takes interrupts, and announces it first.
pub fn leave() -> ! {
    leave_others();
    off()
}

/// Switches off this CPU before it takes interrupts: its interface of the GIC may not even exist.
pub fn leave_early() -> ! {
    per_cpu::of(per_cpu::this_cpu()).set_state(State::Leaving);
    off()
}

/// Whether PSCI reports the CPU `number` as off. `true` for a CPU that does not leave by PSCI, and
/// where PSCI can't report it.
pub fn is_off(number: usize) -> bool {
    let (conduit, cpu_off) = way_off(number);
    let conduit = match conduit {
        CONDUIT_HVC if cpu_off == Psci::CPU_OFF => Conduit::Hvc,
        CONDUIT_SMC if cpu_off == Psci::CPU_OFF => Conduit::Smc,
        _ => return true,
    };
    let psci = Psci { conduit, functions: PsciFunctions::Standard };
    psci::affinity_info(psci, affinities::of(number)) == Ok(AffinityState::Off)
}

/// How the CPU `number` leaves: a `CONDUIT_` and the number of CPU_OFF.
fn way_off(number: usize) -> (u64, u32) {
    let way = per_cpu::of(number).conduit.load(Ordering::Acquire);
    (way & u64::from(u32::MAX), (way >> 32) as u32)
}
