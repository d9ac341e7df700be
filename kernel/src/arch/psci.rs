//! PSCI: starting CPUs, asking for their state, switching the machine off.

use linmap_platform::{Affinity, Conduit, EnableMethod, Psci};
use linmap_vmsa::Pa;
use smccc::psci::{self, AffinityState, Error, LowestAffinityLevel};
use smccc::{Call, Hvc, Smc};

use crate::arch::cpu;
use crate::arch::entered::Entered;

// How a CPU leaves, for assembly: one of these in bits 31:0, and the number of PSCI's CPU_OFF above
// them.

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

/// The PSCI of the DTB, if it can be called. A kernel that was entered at EL2 can't use HVC: it
/// would call itself.
pub fn reachable(described: Option<Psci>, entered: Entered) -> Option<Psci> {
    described.filter(|psci| psci.conduit == Conduit::Smc || entered == Entered::El1)
}

/// How a CPU that is started by `method` leaves: a `CONDUIT_`, with the number of CPU_OFF.
pub fn way_off(method: EnableMethod, psci: Option<Psci>) -> u64 {
    let by_psci = |psci: Psci| {
        let conduit = match psci.conduit {
            Conduit::Hvc => CONDUIT_HVC,
            Conduit::Smc => CONDUIT_SMC,
        };
        Some(u64::from(psci.cpu_off()?) << 32 | conduit)
    };
    match method {
        EnableMethod::SpinTable { .. } => CONDUIT_WAIT,
        _ => psci.and_then(by_psci).unwrap_or(CONDUIT_NONE),
    }
}

/// Starts the CPU at `affinity` at `entry`, MMU off.
pub fn cpu_on(psci: Psci, affinity: Affinity, entry: Pa) -> Result<(), Error> {
    if psci.is_standard() {
        return through!(psci.conduit, cpu_on(affinity.bits(), entry.0, 0));
    }
    let function = psci.cpu_on().ok_or(Error::NotSupported)?;
    let mut arguments = [0; 17];
    arguments[..2].copy_from_slice(&[affinity.bits(), entry.0]);
    let [answer, ..] = match psci.conduit {
        Conduit::Hvc => Hvc::call64(function, arguments),
        Conduit::Smc => Smc::call64(function, arguments),
    };
    // Version 0.1 answers in 32 bits.
    smccc::error::success_or_error_32(answer as u32)
}

/// The state of the CPU at `affinity`, as the firmware reports it. Version 0.1 can't report it.
pub fn affinity_info(psci: Psci, affinity: Affinity) -> Result<AffinityState, Error> {
    if !psci.is_standard() {
        return Err(Error::NotSupported);
    }
    through!(psci.conduit, affinity_info(affinity.bits(), LowestAffinityLevel::All))
}

/// Switches the machine off. Halts where PSCI can't be called or refuses.
pub fn power_off(psci: Option<Psci>) -> ! {
    if let Some(psci) = psci.filter(|psci| psci.is_standard()) {
        let _ = through!(psci.conduit, system_off());
    }
    cpu::halt()
}
