//! What we know of QEMU's machines: where their memory is, how they are entered, which serial port
//! is the console.

use std::ops::Range;

use crate::size::MemorySize;

/// A QEMU machine that linmap boots on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Machine {
    /// QEMU's own machine: any CPU type, any amount of memory, which begins at address 0x40000000
    Virt,
    /// Two Cortex-A72; memory from address 0 with a hole above 2 GiB; entered at EL2
    XlnxVersalVirt,
    /// Cortex-A53; needs --dtb
    XlnxZcu102,
    /// Four Cortex-A72 and 2G from address 0; entered at EL2; needs --dtb
    Raspi4b,
}

/// The exception level a machine hands the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExceptionLevel {
    /// EL1: the machine has no hypervisor level.
    El1,
    /// EL2.
    El2,
}

/// A version of the Arm Generic Interrupt Controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GicVersion {
    /// GICv2.
    V2,
    /// GICv3.
    V3,
}

impl GicVersion {
    /// The most CPUs of a GICv2.
    pub const V2_CPUS: u32 = 8;
}

/// How QEMU is made to enter a kernel that we have loaded into memory ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The loader device sets the first CPU's PC. PSCI and the EL stay as for `-kernel`.
    LoaderDevice,
    /// The entry stub is QEMU's `-kernel`: without a kernel these machines enter at EL3 and have no
    /// PSCI.
    StubAsKernel,
}

impl Machine {
    /// QEMU's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Virt => "virt",
            Self::XlnxVersalVirt => "xlnx-versal-virt",
            Self::XlnxZcu102 => "xlnx-zcu102",
            Self::Raspi4b => "raspi4b",
        }
    }

    /// Memory where none is asked for.
    pub fn default_memory(self) -> MemorySize {
        match self {
            Self::Virt | Self::XlnxVersalVirt => MemorySize::gib(4),
            Self::XlnxZcu102 | Self::Raspi4b => MemorySize::gib(2),
        }
    }

    /// The console of last resort, for the Image's built-in command line.
    pub fn early_console(self) -> &'static str {
        match self {
            Self::Virt => "earlycon=pl011,0x9000000",
            Self::XlnxVersalVirt => "earlycon=pl011,0xff000000",
            Self::XlnxZcu102 => "earlycon=cdns,mmio,0xff000000",
            Self::Raspi4b => "earlycon=pl011,0xfe201000",
        }
    }

    /// Whether the machine can switch itself off: whether it has PSCI.
    pub fn powers_off(self) -> bool {
        self != Self::Raspi4b
    }

    /// Whether QEMU makes a device tree of its own for a kernel.
    pub fn generates_device_tree(self) -> bool {
        matches!(self, Self::Virt | Self::XlnxVersalVirt)
    }

    /// The CPU type where none is asked for; `None` where the machine has one type only.
    pub fn default_cpu(self) -> Option<&'static str> {
        (self == Self::Virt).then_some("max")
    }

    /// The only CPU type of a machine on which QEMU silently ignores `-cpu`.
    pub fn only_cpu(self) -> Option<&'static str> {
        match self {
            Self::Virt => None,
            Self::XlnxVersalVirt | Self::Raspi4b => Some("cortex-a72"),
            Self::XlnxZcu102 => Some("cortex-a53"),
        }
    }

    /// The number of CPUs of a machine that has no choice of it.
    pub fn only_cpus(self) -> Option<u32> {
        match self {
            Self::Virt | Self::XlnxZcu102 => None,
            Self::XlnxVersalVirt => Some(2),
            Self::Raspi4b => Some(4),
        }
    }

    /// The exception level of a machine that has no choice of it.
    pub fn only_exception_level(self) -> Option<ExceptionLevel> {
        match self {
            Self::Virt | Self::XlnxZcu102 => None,
            Self::XlnxVersalVirt | Self::Raspi4b => Some(ExceptionLevel::El2),
        }
    }

    /// How a kernel that is not given by `-kernel` is entered.
    pub fn entry(self) -> Entry {
        match self {
            Self::Virt | Self::XlnxZcu102 => Entry::LoaderDevice,
            Self::XlnxVersalVirt | Self::Raspi4b => Entry::StubAsKernel,
        }
    }

    /// Where the machine has RAM, physical addresses.
    pub fn ram(self, memory: MemorySize) -> Vec<Range<u64>> {
        const LOW: u64 = 2 << 30;
        const HIGH: u64 = 0x8_0000_0000;
        let size = memory.bytes();
        match self {
            Self::Virt => vec![0x4000_0000..size.saturating_add(0x4000_0000)],
            Self::Raspi4b => vec![0..size],
            Self::XlnxVersalVirt | Self::XlnxZcu102 if size <= LOW => vec![0..size],
            Self::XlnxVersalVirt | Self::XlnxZcu102 => vec![0..LOW, HIGH..HIGH.saturating_add(size - LOW)],
        }
    }

    /// Where QEMU puts pieces of its own before the first instruction, physical addresses. On
    /// `virt` its device tree is at the start of RAM; with a `-kernel` there are a boot loader
    /// of a few instructions, secondary CPUs' pens and that kernel at the start, and a device tree
    /// 128 MiB, or half of a smaller memory, above it.
    pub fn taken_by_qemu(self, memory: MemorySize) -> Vec<Range<u64>> {
        const ROOM: u64 = 4 << 20;
        let base = self.ram(memory).first().map_or(0, |ram| ram.start);
        let tree = base + (memory.bytes() / 2).min(128 << 20);
        match self.entry() {
            Entry::LoaderDevice => vec![base..base + ROOM],
            Entry::StubAsKernel => vec![base..base + ROOM, tree..tree + ROOM],
        }
    }
}
