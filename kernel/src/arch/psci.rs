//! PSCI: switching CPUs on and off, and the machine off.

use dtoolkit::fdt::Fdt;
use linmap_platform::{Affinity, Conduit};
use linmap_vmsa::Pa;
use smccc::psci::{self, AffinityState, Error, LowestAffinityLevel};
use smccc::{Hvc, Smc};

use crate::boot::entry::Entered;

/// PSCI, called through a conduit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Psci(pub Conduit);

/// Runs a function of `smccc::psci` through the conduit.
macro_rules! through {
    ($conduit:expr, $function:ident($($argument:expr),*)) => {
        match $conduit {
            Psci(Conduit::Hvc) => psci::$function::<Hvc>($($argument),*),
            Psci(Conduit::Smc) => psci::$function::<Smc>($($argument),*),
        }
    };
}

impl Psci {
    /// The conduit that the DTB names, but for HVC where that would call ourselves: in a kernel that was entered at EL2.
    pub fn reachable(fdt: Fdt<'_>, entered: Entered) -> Option<Self> {
        let conduit = Conduit::of_psci(fdt)?;
        (conduit == Conduit::Smc || entered == Entered::El1).then_some(Self(conduit))
    }

    /// Switches the machine off; returns only if the firmware refuses.
    pub fn system_off(self) {
        let _ = through!(self, system_off());
    }

    /// Starts the CPU at `affinity` at `entry`, MMU off.
    pub fn cpu_on(self, affinity: Affinity, entry: Pa) -> Result<(), Error> {
        through!(self, cpu_on(affinity.bits(), entry.0, 0))
    }

    /// What the firmware says of the CPU at `affinity`.
    pub fn affinity_info(self, affinity: Affinity) -> Result<AffinityState, Error> {
        through!(self, affinity_info(affinity.bits(), LowestAffinityLevel::All))
    }
}
