//! How PSCI is called.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};

/// The instruction that calls the firmware (SMC Calling Convention, Arm DEN 0028).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// HVC, to EL2.
    Hvc,
    /// SMC, to EL3.
    Smc,
}

impl Conduit {
    /// Returns the conduit that the tree's `/psci` node names. Returns `None` for a PSCI older than
    /// 0.2, whose functions have no fixed numbers.
    pub fn of_psci(fdt: Fdt<'_>) -> Option<Self> {
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
