//! PSCI: starting CPUs, asking for their state, switching the machine off.

mod node;

use dtoolkit::fdt::Fdt;
use linmap_vmsa::Pa;
use smccc::psci::{self, AffinityState, Error, LowestAffinityLevel};
use smccc::{Hvc, Smc};

use crate::arch::cpu;
use crate::arch::entered::Entered;
use crate::boot::topology::{Affinity, Method};

pub use node::Psci;

/// PSCI can't be called.
pub const CONDUIT_NONE: u64 = 0;
/// Assembly calls PSCI by HVC.
pub const CONDUIT_HVC: u64 = 1;
/// Assembly calls PSCI by SMC.
pub const CONDUIT_SMC: u64 = 2;
/// PSCI is not called. The CPU came from a spin table, so it waits in `secondary.S` with its MMU off.
pub const CONDUIT_WAIT: u64 = 3;

/// Runs a function of `smccc::psci` through the conduit.
macro_rules! through {
    ($conduit:expr, $function:ident($($argument:expr),*)) => {
        match $conduit {
            Psci::Hvc => psci::$function::<Hvc>($($argument),*),
            Psci::Smc => psci::$function::<Smc>($($argument),*),
        }
    };
}

/// The conduit that the DTB names. `None` for HVC in a kernel that was entered at EL2, because it would call itself.
pub fn reachable(fdt: Fdt<'_>, entered: Entered) -> Option<Psci> {
    Psci::from_fdt(fdt).filter(|psci| *psci == Psci::Smc || entered == Entered::El1)
}

/// How assembly calls `psci`: a `CONDUIT_`.
pub fn conduit(psci: Option<Psci>) -> u64 {
    match psci {
        None => CONDUIT_NONE,
        Some(Psci::Hvc) => CONDUIT_HVC,
        Some(Psci::Smc) => CONDUIT_SMC,
    }
}

/// Starts the CPU at `affinity` at `entry`, MMU off.
pub fn cpu_on(psci: Psci, affinity: Affinity, entry: Pa) -> Result<(), Error> {
    through!(psci, cpu_on(affinity.bits(), entry.0, 0))
}

/// The state of the CPU at `affinity`, as the firmware reports it.
pub fn affinity_info(psci: Psci, affinity: Affinity) -> Result<AffinityState, Error> {
    through!(psci, affinity_info(affinity.bits(), LowestAffinityLevel::All))
}

/// Switches the machine off. Halts where PSCI can't be called or refuses.
pub fn power_off(psci: Option<Psci>) -> ! {
    if let Some(psci) = psci {
        let _ = through!(psci, system_off());
    }
    cpu::halt()
}

/// How a CPU that is started by `method` leaves: a `CONDUIT_`.
pub fn way_off(method: Method, psci: Option<Psci>) -> u64 {
    match method {
        Method::SpinTable { .. } => CONDUIT_WAIT,
        Method::Psci | Method::Unknown => conduit(psci),
    }
}
