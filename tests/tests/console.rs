//! The console: which UART it is, and that a boot says something on each kind.

use linmap_tests::{BoardBoot, UartNode, console_of_image_at, console_with_tree_at};

const RASPI3B: &str = "-M raspi3b -serial null -serial stdio";
const ZCU102: &str = "-M xlnx-zcu102 -m 1G -audio none -serial stdio";
const IMX8MP: &str = "-M imx8mp-evk -m 1G -serial null -serial stdio";
const NPCM845: &str = "-M npcm845-evb -m 1G -serial stdio";

const VIRT: BoardBoot<'_> = BoardBoot {
    options: "-M virt -cpu cortex-a53 -m 256M -serial stdio",
    ram: 0x4000_0000,
    uart: None,
    built_in: "earlycon=pl011,0x9000000",
    bootargs: "",
};

/// Boots `virt` with `uart` in the tree, which is refused for a reason that holds `why`.
#[track_caller]
fn expect_warning(boot: BoardBoot<'_>, compatible: &[&str], registers: u64, why: &str) {
    let uart = Some(UartNode { compatible, registers, cells: &[] });
    let console = BoardBoot { uart, ..boot }.run_until("linmap: state=done");
    let warning = format!("linmap: warning=console uart={registers:#x} what=");
    let line = console.lines().find(|line| line.starts_with(&warning));
    assert!(line.is_some_and(|line| line.contains(why)), "{console}");
    assert!(console.contains("linmap: phase=linear-map "), "{console}");
}

#[test]
fn a_pl011_that_the_machine_lacks_leaves_the_console_before() {
    // Flash, another PrimeCell (the clock), nothing at all, and RAM.
    for (registers, why) in [
        (0, "identification"),
        (0x0901_0000, "0x141031 and 0xb105f00d"),
        (0x0c80_0000, "aborts"),
        (0x4800_0000, "identification"),
    ] {
        expect_warning(VIRT, &["arm,pl011", "arm,primecell"], registers, why);
    }
}

#[test]
fn a_uart_that_never_sends_leaves_the_console_before() {
    expect_warning(VIRT, &["arm,sbsa-uart"], 0x4f00_0000, "was not empty");
    expect_warning(VIRT, &["ns16550a"], 0x4f00_0000, "was not empty");
}

/// The console of a board whose UART is `uart`, named by the tree alone and by the image alone.
#[track_caller]
fn expect_both_to_speak(options: &str, ram: u64, uart: UartNode<'_>, earlycon: &str) {
    let by_tree = BoardBoot { options, ram, uart: Some(uart), built_in: "", bootargs: "" };
    let by_image = BoardBoot { uart: None, built_in: earlycon, ..by_tree };
    for boot in [by_tree, by_image] {
        let console = boot.run_until("linmap: state=done");
        assert!(console.contains("linmap: generation=0 el="), "{console}");
        assert!(console.contains("linmap: phase=linear-map "), "{console}");
    }
}

#[test]
fn a_mini_uart_speaks() {
    let uart = UartNode { compatible: &["brcm,bcm2835-aux-uart"], registers: 0x3f21_5040, cells: &[] };
    expect_both_to_speak(RASPI3B, 0, uart, "earlycon=bcm2835aux,mmio32,0x3f215040");
}

#[test]
fn a_cadence_uart_speaks() {
    let compatible = &["xlnx,zynqmp-uart", "cdns,uart-r1p12", "xlnx,xuartps"];
    let uart = UartNode { compatible, registers: 0xff00_0000, cells: &[] };
    expect_both_to_speak(ZCU102, 0, uart, "earlycon=cdns,mmio,0xff000000,115200n8");
}

#[test]
fn an_imx_uart_speaks() {
    let compatible = &["fsl,imx8mp-uart", "fsl,imx6q-uart"];
    let uart = UartNode { compatible, registers: 0x3089_0000, cells: &[] };
    expect_both_to_speak(IMX8MP, 0x4000_0000, uart, "earlycon=ec_imx6q,0x30890000,115200");
}

#[test]
fn an_8250_speaks_with_byte_and_with_word_registers() {
    let npcm = UartNode {
        compatible: &["nuvoton,npcm845-uart", "nuvoton,npcm750-uart"],
        registers: 0xf000_0000,
        cells: &[("reg-shift", 2)],
    };
    let dw_apb = UartNode {
        compatible: &["snps,dw-apb-uart"],
        cells: &[("reg-shift", 2), ("reg-io-width", 4)],
        ..npcm
    };
    expect_both_to_speak(NPCM845, 0, npcm, "earlycon=uart8250,mmio32,0xf0000000");
    expect_both_to_speak(NPCM845, 0, dw_apb, "earlycon=ns16550,mmio32,0xf0000000,115200");
}

#[test]
fn earlycon_names_the_console_if_the_tree_names_one_that_is_absent() {
    let boot = BoardBoot { built_in: "", bootargs: VIRT.built_in, ..VIRT };
    expect_warning(boot, &["ns16550a"], 0x0c80_0000, "aborts");
}

/// Checks that an image started at `at` says that it can't continue, to people and to machines, and
/// why.
#[track_caller]
fn expect_refusal(options: &str, earlycon: &str, at: u64, why: &str) {
    let console = console_of_image_at(options, earlycon, at, "\"\r\n");
    assert!(console.starts_with("linmap cannot continue: the boot loader "), "{console}");
    let line = console.lines().find(|line| line.starts_with("linmap: error=entry what="));
    assert!(line.is_some_and(|line| line.contains(why)), "{console}");
}

#[test]
fn an_entry_at_el3_is_refused() {
    let options = "-M virt,secure=on -cpu cortex-a53 -m 256M -serial stdio";
    for earlycon in
        ["quiet earlycon=pl011,0x9000000 x", "earlycon=uart,0x4  earlycon=pl011,mmio32,0x9000000,115200"]
    {
        expect_refusal(options, earlycon, 0x4020_0000, "at EL3");
    }
}

#[test]
fn an_image_at_a_place_that_the_boot_protocol_excludes_is_refused() {
    let options = "-M virt -cpu cortex-a53 -m 256M -serial stdio";
    for offset in [4, 0x1000, 0x10_0ffc] {
        expect_refusal(options, "earlycon=pl011,0x9000000", 0x4020_0000 + offset, "2 MiB");
    }
}

#[test]
fn a_refusal_is_printed_on_each_uart() {
    for (options, earlycon, at) in [
        (RASPI3B, "earlycon=bcm2835aux,0x3F215040", 0x20_0004),
        (ZCU102, "earlycon=cdns,mmio,0xff000000,115200", 0x20_0004),
        (IMX8MP, "earlycon=ec_imx6q,0x30890000", 0x4020_0004),
        (NPCM845, "earlycon=uart8250,mmio32,0xf0000000,115200n8", 0x20_0004),
    ] {
        expect_refusal(options, earlycon, at, "2 MiB");
    }
}

#[test]
fn a_device_tree_where_there_is_no_memory_is_an_error_on_the_console_of_the_image() {
    // Before there is a console, the tree is read for the place of the image.
    let console = console_with_tree_at(0x30_4000_0000, "earlycon=pl011,0x9000000", "Kernel Offset: disabled");
    assert!(console.contains("linmap: error=exception "), "{console}");
}
