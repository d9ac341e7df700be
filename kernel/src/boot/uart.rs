//! UARTs that the console can drive, and who names one: the device tree's stdout-path, `earlycon=`.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use linmap_vmsa::Pa;

use crate::boot::chosen;
use crate::boot::device_tree;

/// What drives a UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UartKind {
    /// A PL011.
    Pl011,
    /// The part of a PL011 that the Arm Base System Architecture asks for: no control and no line registers.
    Sbsa,
}

/// A UART and where its registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uart {
    /// What it is.
    pub kind: UartKind,
    /// Its first register.
    pub registers: Pa,
}

/// The UART that stdout-path names, if it is one that the console can drive: a path or an alias, with options after a
/// colon.
pub fn stdout_uart(fdt: Fdt<'_>) -> Option<Uart> {
    let path = chosen::string(fdt, "stdout-path")?.split(':').next()?;
    let path = if path.starts_with('/') {
        path
    } else {
        fdt.find_node("/aliases")?.property(path)?.value_as::<&str>().ok()?
    };
    let device = device_tree::at(fdt, path)?;
    let kind = device.node.compatible()?.find_map(|name| match name {
        "arm,pl011" => Some(UartKind::Pl011),
        "arm,sbsa-uart" => Some(UartKind::Sbsa),
        _ => None,
    })?;
    Some(Uart { kind, registers: device.registers.first()?.start })
}

/// The address in `earlycon=pl011,0x9000000`, also with an access width: `earlycon=pl011,mmio32,0x9000000`.
pub fn earlycon_pl011(value: &str) -> Option<Uart> {
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
    Some(Uart { kind: UartKind::Pl011, registers })
}
