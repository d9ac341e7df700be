//! The UART of the console: its programming model, and the one that `stdout-path` names.

use linmap_fdt::{Fdt, FdtNode, string};
use linmap_vmsa::Pa;

use crate::chosen;
use crate::device::Device;

/// The programming model of a UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UartKind {
    /// A PL011.
    Pl011,
    /// The part of a PL011 that the Arm Base System Architecture asks for: no control and no line
    /// registers.
    Sbsa,
    /// A 16550 or one of its relatives, such as an 8250, a DesignWare APB UART, or the mini UART of
    /// a Raspberry Pi.
    Ns16550,
    /// The Cadence UART of Zynq.
    Cadence,
    /// The UART of i.MX21 and later.
    Imx,
}

impl UartKind {
    /// Returns whether data is moved as by a PL011: by the same registers and flags.
    pub const fn is_pl011(self) -> bool {
        matches!(self, Self::Pl011 | Self::Sbsa)
    }
}

/// The width of the accesses to a UART's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterWidth {
    /// One byte.
    Byte,
    /// Two bytes.
    HalfWord,
    /// Four bytes.
    Word,
}

impl RegisterWidth {
    /// The width in bytes.
    pub const fn bytes(self) -> u8 {
        1 << self.log2()
    }

    /// The base-2 logarithm of the width in bytes.
    pub const fn log2(self) -> u8 {
        match self {
            Self::Byte => 0,
            Self::HalfWord => 1,
            Self::Word => 2,
        }
    }

    fn from_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::HalfWord),
            4 => Some(Self::Word),
            _ => None,
        }
    }
}

/// How a PL011 is identified before it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// Its identification registers have to say that it is a PL011: the device tree has no
    /// `arm,primecell-periphid`, which means that the registers hold the truth.
    InRegisters,
    /// The device tree or the command line states it. Its identification registers may be missing
    /// or wrong.
    Stated,
}

/// A UART and where its registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uart {
    /// Its programming model.
    pub kind: UartKind,
    /// The address of its first register.
    pub registers: Pa,
    /// Register N of a [`UartKind::Ns16550`] is N << `shift` bytes above the first. 0 for all other
    /// kinds, whose registers are at fixed offsets.
    pub shift: u8,
    /// The width of an access to a register.
    pub width: RegisterWidth,
    /// How it is identified.
    pub identity: Identity,
}

/// The largest shift of a register's number that is accepted: 16 bytes from one register to the
/// next.
const MAX_SHIFT: u32 = 4;

impl Uart {
    /// Returns the UART of this kind at `registers`: 8-bit registers side by side for
    /// [`UartKind::Ns16550`], 32-bit registers for all other kinds. Its identity is stated.
    pub const fn new(kind: UartKind, registers: Pa) -> Self {
        let width = match kind {
            UartKind::Ns16550 => RegisterWidth::Byte,
            _ => RegisterWidth::Word,
        };
        Self { kind, registers, shift: 0, width, identity: Identity::Stated }
    }

    /// Returns a [`UartKind::Ns16550`] at `registers` with 32-bit registers side by side.
    pub const fn ns16550_of_words(registers: Pa) -> Self {
        Self { shift: 2, width: RegisterWidth::Word, ..Self::new(UartKind::Ns16550, registers) }
    }

    /// Returns the UART that `stdout-path` of `/chosen` names: by a path or an alias, with options
    /// after a colon. Returns `None` if there is none or if it is not of a [`UartKind`].
    pub fn from_stdout_path(fdt: Fdt<'_>) -> Option<Self> {
        let path = chosen::stdout_path(fdt)?;
        let path = if path.starts_with('/') { path } else { string(fdt.aliases()?.property(path)?)? };
        let device = Device::at(fdt, path)?;
        let registers = device.registers.first()?.start;
        device.node.compatible().find_map(|name| Self::compatible(name, registers))?.described_by(device.node)
    }

    /// The UART at `registers` that is compatible with `name`.
    fn compatible(name: &str, registers: Pa) -> Option<Self> {
        Some(match name {
            "arm,pl011" => Self { identity: Identity::InRegisters, ..Self::new(UartKind::Pl011, registers) },
            "arm,sbsa-uart" => Self::new(UartKind::Sbsa, registers),
            // The tree says how these have their registers.
            "ns8250"
            | "ns16450"
            | "ns16550"
            | "ns16550a"
            | "ns16750"
            | "ns16850"
            | "snps,dw-apb-uart"
            | "marvell,armada-38x-uart"
            | "nvidia,tegra20-uart"
            | "nuvoton,npcm750-uart" => Self::new(UartKind::Ns16550, registers),
            // Their bindings have neither reg-shift nor reg-io-width.
            "brcm,bcm2835-aux-uart" | "mediatek,mt6577-uart" | "ti,am654-uart" | "ti,omap4-uart" => {
                Self::ns16550_of_words(registers)
            }
            "cdns,uart-r1p8" | "cdns,uart-r1p12" | "xlnx,xuartps" | "xlnx,zynqmp-uart" => {
                Self::new(UartKind::Cadence, registers)
            }
            "fsl,imx21-uart" | "fsl,imx53-uart" | "fsl,imx6q-uart" => Self::new(UartKind::Imx, registers),
            _ => return None,
        })
    }

    /// This UART with what the other properties of its node say. `None` if they say something that
    /// is not supported.
    fn described_by(mut self, node: FdtNode<'_>) -> Option<Self> {
        if node.property("arm,primecell-periphid").is_some() {
            self.identity = Identity::Stated;
        }
        if self.kind != UartKind::Ns16550 {
            return Some(self);
        }
        if node.property("big-endian").is_some() {
            return None;
        }
        let cell = |name| node.property(name).map(|value| value.try_into().map(u32::from_be_bytes).ok());
        if let Some(offset) = cell("reg-offset") {
            self.registers = Pa(self.registers.0.checked_add(offset?.into())?);
        }
        if let Some(shift) = cell("reg-shift") {
            self.shift = shift?.try_into().ok().filter(|_| shift <= Some(MAX_SHIFT))?;
        }
        if let Some(width) = cell("reg-io-width") {
            self.width = RegisterWidth::from_bytes(width?)?;
        }
        Some(self)
    }
}
