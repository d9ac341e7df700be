//! What the device tree says of PSCI.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};

/// How PSCI is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Psci {
    /// By HVC.
    Hvc,
    /// By SMC.
    Smc,
}

impl Psci {
    /// The conduit that the DTB's /psci node names. None for a PSCI older than 0.2, whose functions have no fixed numbers.
    pub fn from_fdt(fdt: Fdt<'_>) -> Option<Self> {
        let node = fdt.find_node("/psci")?;
        if !node.compatible()?.any(|name| matches!(name, "arm,psci-0.2" | "arm,psci-1.0")) {
            return None;
        }
        match node.property("method")?.value_as::<&str>().ok()? {
            "hvc" => Some(Self::Hvc),
            "smc" => Some(Self::Smc),
            _ => None,
        }
    }
}
