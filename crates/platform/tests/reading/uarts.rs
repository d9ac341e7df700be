//! The UART of the console: from `stdout-path` and from `earlycon=`.

use linmap_fdt::parse_dtb;
use linmap_platform::{Identity, RegisterWidth, Uart, UartKind};
use linmap_vmsa::Pa;

use crate::trees::{CELLS_2_2, Properties, node, strings, tree};

const AT: u32 = 0xf000_0000;
const REGISTERS: Pa = Pa(0xf000_0000);

/// The UART of a tree whose console is compatible with `compatible` and has `properties`.
fn console(compatible: &str, properties: Properties<'_>) -> Option<Uart> {
    let mut all = vec![("reg", &[0, AT, 0, 0x1000][..])];
    all.extend_from_slice(properties);
    let blob = tree(CELLS_2_2, |fdt| {
        node(fdt, "serial", &all, |fdt| strings(fdt, &[("compatible", compatible)]));
        node(fdt, "chosen", &[], |fdt| strings(fdt, &[("stdout-path", "/serial:115200n8")]));
    });
    Uart::from_stdout_path(parse_dtb(&blob).expect("a tree"))
}

fn of_shift(shift: u8, width: RegisterWidth) -> Option<Uart> {
    Some(Uart { shift, width, ..Uart::new(UartKind::Ns16550, REGISTERS) })
}

#[test]
fn each_compatible_uart_has_its_programming_model() {
    for (compatible, kind) in [
        ("arm,sbsa-uart", UartKind::Sbsa),
        ("xlnx,zynqmp-uart\0cdns,uart-r1p12", UartKind::Cadence),
        ("fsl,imx8mp-uart\0fsl,imx6q-uart", UartKind::Imx),
        ("ns16550a", UartKind::Ns16550),
    ] {
        assert_eq!(console(compatible, &[]), Some(Uart::new(kind, REGISTERS)), "{compatible}");
    }
    assert_eq!(console("brcm,bcm2835-aux-uart", &[]), of_shift(2, RegisterWidth::Word));
    assert_eq!(console("acme,uart", &[]), None);
}

#[test]
fn the_tree_says_how_an_8250_has_its_registers() {
    let dw_apb = "rockchip,rk3399-uart\0snps,dw-apb-uart";
    let words: Properties<'_> = &[("reg-shift", &[2]), ("reg-io-width", &[4])];
    assert_eq!(console(dw_apb, words), of_shift(2, RegisterWidth::Word));
    let npcm = "nuvoton,npcm845-uart\0nuvoton,npcm750-uart";
    assert_eq!(console(npcm, &[("reg-shift", &[2])]), of_shift(2, RegisterWidth::Byte));
    assert_eq!(console(dw_apb, &[("reg-io-width", &[2])]), of_shift(0, RegisterWidth::HalfWord));
    let offset = console("ns16550", &[("reg-offset", &[0x100])]).map(|uart| uart.registers);
    assert_eq!(offset, Some(Pa(0xf000_0100)));
    let refused: [Properties<'_>; 5] = [
        &[("reg-shift", &[5])],
        &[("reg-shift", &[0x102])],
        &[("reg-shift", &[])],
        &[("reg-io-width", &[3])],
        &[("big-endian", &[])],
    ];
    for properties in refused {
        assert_eq!(console("ns16550a", properties), None, "{properties:?}");
    }
}

#[test]
fn a_pl011_is_identified_by_its_registers_unless_the_tree_states_them() {
    let pl011 = "arm,pl011\0arm,primecell";
    let uart = Uart::new(UartKind::Pl011, REGISTERS);
    assert_eq!(console(pl011, &[]), Some(Uart { identity: Identity::InRegisters, ..uart }));
    assert_eq!(console(pl011, &[("arm,primecell-periphid", &[0x0024_1011])]), Some(uart));
    assert_eq!(Uart::from_earlycon("pl011,0xf0000000"), Some(uart));
}

#[test]
fn earlycon_names_a_uart_and_how_its_registers_are_accessed() {
    for (value, shift, width) in [
        ("uart8250,0xf0000000", 0, RegisterWidth::Byte),
        ("uart,mmio,0xf0000000,115200n8", 0, RegisterWidth::Byte),
        ("ns16550,mmio16,0xf0000000", 1, RegisterWidth::HalfWord),
        ("ns16550a,mmio32,0xF0000000", 2, RegisterWidth::Word),
        ("bcm2835aux,0xf0000000", 2, RegisterWidth::Word),
    ] {
        assert_eq!(Uart::from_earlycon(value), of_shift(shift, width), "{value}");
    }
    let cadence = Some(Uart::new(UartKind::Cadence, REGISTERS));
    assert_eq!(Uart::from_earlycon("cdns,mmio,0xf0000000,115200n8"), cadence);
    let imx = Some(Uart::new(UartKind::Imx, REGISTERS));
    assert_eq!(Uart::from_earlycon("ec_imx6q,0xf0000000"), imx);
    for value in [
        "",
        "pl011",
        "pl011,mmio32",
        "pl011,9000000",
        "pl011,0x",
        "pl011,0x+9000000",
        "uart8250,io,0x3f8",
        "uart8250,mmio32be,0xf0000000",
        "uart8250,0x1ffffffffffffffff",
        "acme,0xf0000000",
    ] {
        assert_eq!(Uart::from_earlycon(value), None, "{value}");
    }
}
