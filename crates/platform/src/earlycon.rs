//! The values of `earlycon=` on the command line.

use linmap_vmsa::Pa;

use crate::uart::{RegisterWidth, Uart, UartKind};

impl Uart {
    /// Returns the UART that a value of `earlycon=` names: a driver, optionally how its registers
    /// are accessed, and an address, as in `pl011,0x9000000` or `uart8250,mmio32,0xf0000000`. What
    /// follows the address is the speed of the line, which stays as the firmware has set it.
    ///
    /// | driver | UART |
    /// |---|---|
    /// | `pl011` | [`UartKind::Pl011`] |
    /// | `uart8250`, `uart`, `ns16550`, `ns16550a` | [`UartKind::Ns16550`]: `mmio` has 8-bit registers side by side, `mmio16` and `mmio32` wider ones |
    /// | `bcm2835aux` | [`UartKind::Ns16550`] with 32-bit registers |
    /// | `cdns` | [`UartKind::Cadence`] |
    /// | `ec_imx6q`, `ec_imx21` | [`UartKind::Imx`] |
    pub fn from_earlycon(value: &str) -> Option<Self> {
        let mut parts = value.split(',');
        let driver = parts.next()?;
        let next = parts.next()?;
        let (width, address) = match next {
            "mmio" => (RegisterWidth::Byte, parts.next()?),
            "mmio16" => (RegisterWidth::HalfWord, parts.next()?),
            "mmio32" => (RegisterWidth::Word, parts.next()?),
            address => (RegisterWidth::Byte, address),
        };
        let digits = address.strip_prefix("0x")?;
        // The standard library's reader accepts a sign.
        let address = u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
        let registers = Pa(address);
        Some(match driver {
            "pl011" => Self::new(UartKind::Pl011, registers),
            "uart8250" | "uart" | "ns16550" | "ns16550a" => {
                Self { shift: width.log2(), width, ..Self::new(UartKind::Ns16550, registers) }
            }
            "bcm2835aux" => Self::ns16550_of_words(registers),
            "cdns" => Self::new(UartKind::Cadence, registers),
            "ec_imx6q" | "ec_imx21" => Self::new(UartKind::Imx, registers),
            _ => return None,
        })
    }
}
