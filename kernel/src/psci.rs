//! PSCI: switching the machine off.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use smccc::{Hvc, Smc, psci};

/// How PSCI is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Psci {
    /// By HVC.
    Hvc,
    /// By SMC.
    Smc,
}

impl Psci {
    /// The conduit that the DTB's /psci node names.
    pub fn from_fdt(fdt: Fdt<'_>) -> Option<Self> {
        match fdt.find_node("/psci")?.property("method")?.value_as::<&str>().ok()? {
            "hvc" => Some(Self::Hvc),
            "smc" => Some(Self::Smc),
            _ => None,
        }
    }

    /// Switches the machine off; returns only if the firmware refuses.
    pub fn system_off(self) {
        let _ = match self {
            Self::Hvc => psci::system_off::<Hvc>(),
            Self::Smc => psci::system_off::<Smc>(),
        };
    }
}
