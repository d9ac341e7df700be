//! PSCI: switching CPUs on and off, and the machine off.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use linmap_vmsa::Pa;
use smccc::psci::{self, AffinityState, Error, LowestAffinityLevel};
use smccc::{Hvc, Smc};

use crate::entry::Entered;
use crate::topology::Affinity;

/// How PSCI is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Psci {
    /// By HVC.
    Hvc,
    /// By SMC.
    Smc,
}

/// Runs a function of `smccc::psci` through the conduit.
macro_rules! through {
    ($conduit:expr, $function:ident($($argument:expr),*)) => {
        match $conduit {
            Psci::Hvc => psci::$function::<Hvc>($($argument),*),
            Psci::Smc => psci::$function::<Smc>($($argument),*),
        }
    };
}

impl Psci {
    /// The conduit that the DTB's /psci node names. None for a PSCI older than 0.2, whose functions have no fixed numbers,
    /// and none for HVC where that would call ourselves: in a kernel that was entered at EL2.
    pub fn from_fdt(fdt: Fdt<'_>, entered: Entered) -> Option<Self> {
        let node = fdt.find_node("/psci")?;
        if !node.compatible()?.any(|name| matches!(name, "arm,psci-0.2" | "arm,psci-1.0")) {
            return None;
        }
        match node.property("method")?.value_as::<&str>().ok()? {
            "hvc" if entered == Entered::El1 => Some(Self::Hvc),
            "smc" => Some(Self::Smc),
            _ => None,
        }
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
