//! PSCI: starting CPUs, asking for their state, switching the machine off.

use dtoolkit::fdt::Fdt;
use linmap_platform::{Affinity, Conduit, EnableMethod};
use linmap_vmsa::Pa;
use smccc::psci::{self, AffinityState, Error, LowestAffinityLevel};
use smccc::{Hvc, Smc};

use crate::arch::cpu;
use crate::arch::entered::Entered;

/// A CPU leaves without PSCI, which can't be called.
pub const CONDUIT_NONE: u64 = 0;
/// A CPU leaves by PSCI, called with HVC.
pub const CONDUIT_HVC: u64 = 1;
/// A CPU leaves by PSCI, called with SMC.
pub const CONDUIT_SMC: u64 = 2;
/// A CPU leaves by waiting in `secondary.S` with its MMU off, because it came from a spin table.
pub const CONDUIT_WAIT: u64 = 3;

/// Runs a function of `smccc::psci` through the conduit.
macro_rules! through {
    ($conduit:expr, $function:ident($($argument:expr),*)) => {
        match $conduit {
            Conduit::Hvc => psci::$function::<Hvc>($($argument),*),
            Conduit::Smc => psci::$function::<Smc>($($argument),*),
        }
    };
}

/// The conduit that the DTB names. `None` for HVC in a kernel that was entered at EL2, because it
/// would call itself.
pub fn reachable(fdt: Fdt<'_>, entered: Entered) -> Option<Conduit> {
    Conduit::of_psci(fdt).filter(|conduit| *conduit == Conduit::Smc || entered == Entered::El1)
}

/// How assembly calls PSCI through `conduit`: a `CONDUIT_`.
pub fn code(conduit: Option<Conduit>) -> u64 {
    match conduit {
        None => CONDUIT_NONE,
        Some(Conduit::Hvc) => CONDUIT_HVC,
        Some(Conduit::Smc) => CONDUIT_SMC,
    }
}

/// How a CPU that is started by `method` leaves: a `CONDUIT_`.
pub fn way_off(method: EnableMethod, conduit: Option<Conduit>) -> u64 {
    match method {
        EnableMethod::SpinTable { .. } => CONDUIT_WAIT,
        _ => code(conduit),
    }
}

/// Starts the CPU at `affinity` at `entry`, MMU off.
pub fn cpu_on(conduit: Conduit, affinity: Affinity, entry: Pa) -> Result<(), Error> {
    through!(conduit, cpu_on(affinity.bits(), entry.0, 0))
}

/// The state of the CPU at `affinity`, as the firmware reports it.
pub fn affinity_info(conduit: Conduit, affinity: Affinity) -> Result<AffinityState, Error> {
    through!(conduit, affinity_info(affinity.bits(), LowestAffinityLevel::All))
}

/// Switches the machine off. Halts where PSCI can't be called or refuses.
pub fn power_off(conduit: Option<Conduit>) -> ! {
    if let Some(conduit) = conduit {
        let _ = through!(conduit, system_off());
    }
    cpu::halt()
}
