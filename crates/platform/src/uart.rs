//! The UART of the console: the one that `stdout-path` or `earlycon=` names.

use linmap_fdt::{Fdt, string};
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
}

/// A UART and where its registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uart {
    /// Its programming model.
    pub kind: UartKind,
    /// The address of its first register.
    pub registers: Pa,
}

impl Uart {
    /// Returns the UART that `stdout-path` of `/chosen` names: by a path or an alias, with options
    /// after a colon. Returns `None` if there is none or if it is not of a [`UartKind`].
    pub fn from_stdout_path(fdt: Fdt<'_>) -> Option<Self> {
        let path = chosen::stdout_path(fdt)?;
        let path = if path.starts_with('/') { path } else { string(fdt.aliases()?.property(path)?)? };
        let device = Device::at(fdt, path)?;
        let kind = device.node.compatible().find_map(|name| match name {
            "arm,pl011" => Some(UartKind::Pl011),
            "arm,sbsa-uart" => Some(UartKind::Sbsa),
            _ => None,
        })?;
        Some(Self { kind, registers: device.registers.first()?.start })
    }

    /// Returns the UART that a value of `earlycon=` names: `pl011,0x9000000`, or with an access
    /// width `pl011,mmio32,0x9000000`.
    pub fn from_earlycon(value: &str) -> Option<Self> {
        let mut parts = value.split(',');
        if parts.next()? != "pl011" {
            return None;
        }
        let address = match parts.next()? {
            "mmio32" | "mmio" => parts.next()?,
            address => address,
        };
        let digits = address.strip_prefix("0x")?;
        let registers = Pa(u64::from_str_radix(digits, 16).ok()?);
        Some(Self { kind: UartKind::Pl011, registers })
    }
}
