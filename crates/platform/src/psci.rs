//! How PSCI is called.

use linmap_fdt::{FdtNode, string};

/// The instruction that calls the firmware (SMC Calling Convention, Arm DEN 0028).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// HVC, to EL2.
    Hvc,
    /// SMC, to EL3.
    Smc,
}

/// Which functions a PSCI has, and by which numbers they are called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PsciFunctions {
    /// Those of version 0.2 or later, by the numbers of the specification (Arm DEN 0022).
    Standard,
    /// Those of version 0.1, by the numbers that the tree gives. It has no AFFINITY_INFO and no
    /// SYSTEM_OFF.
    Numbered {
        /// Starts a CPU.
        cpu_on: Option<u32>,
        /// Switches the calling CPU off.
        cpu_off: Option<u32>,
    },
}

/// The functions that a `compatible` stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PsciBinding {
    Standard,
    Numbered,
}

impl PsciBinding {
    /// Returns the binding of a device that is compatible with `name`. Later versions than 1.0 are
    /// compatible with one of these.
    pub fn of_compatible(name: &[u8]) -> Option<Self> {
        match name {
            b"arm,psci-1.0" | b"arm,psci-0.2" => Some(Self::Standard),
            b"arm,psci" => Some(Self::Numbered),
            _ => None,
        }
    }
}

/// A PSCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Psci {
    /// How it is called.
    pub conduit: Conduit,
    /// What it can do.
    pub functions: PsciFunctions,
}

impl Psci {
    /// CPU_ON of version 0.2, with 64-bit arguments.
    pub const CPU_ON: u32 = 0xc400_0003;
    /// CPU_OFF of version 0.2.
    pub const CPU_OFF: u32 = 0x8400_0002;

    /// Reads the PSCI of `node`. Returns `None` if it names no method.
    pub(crate) fn of_node(node: FdtNode<'_>, binding: PsciBinding) -> Option<Self> {
        let [method, cpu_on, cpu_off] = node.values(["method", "cpu_on", "cpu_off"]);
        let conduit = match string(method?)? {
            "hvc" => Conduit::Hvc,
            "smc" => Conduit::Smc,
            _ => return None,
        };
        let number = |value: Option<&[u8]>| value?.try_into().map(u32::from_be_bytes).ok();
        let functions = match binding {
            PsciBinding::Standard => PsciFunctions::Standard,
            PsciBinding::Numbered => {
                PsciFunctions::Numbered { cpu_on: number(cpu_on), cpu_off: number(cpu_off) }
            }
        };
        Some(Self { conduit, functions })
    }

    /// Returns the number of the function that starts a CPU, if there is one.
    pub fn cpu_on(self) -> Option<u32> {
        match self.functions {
            PsciFunctions::Standard => Some(Self::CPU_ON),
            PsciFunctions::Numbered { cpu_on, .. } => cpu_on,
        }
    }

    /// Returns the number of the function that switches the calling CPU off, if there is one.
    pub fn cpu_off(self) -> Option<u32> {
        match self.functions {
            PsciFunctions::Standard => Some(Self::CPU_OFF),
            PsciFunctions::Numbered { cpu_off, .. } => cpu_off,
        }
    }

    /// Returns whether it has AFFINITY_INFO, which reports whether a CPU is off, and SYSTEM_OFF.
    pub fn is_standard(self) -> bool {
        self.functions == PsciFunctions::Standard
    }
}
