//! CPUs from a spin table go through kexec: to linmap's pen and from there to the next kernel,
//! Linux or linmap, at every level a kernel is entered at.

use std::path::{Path, PathBuf};

use linmap_tests::{Boot, Conduit, Outcome, RAM, SpinTableBoot, archive, file, is_soak, soak_or_first};
use vm_fdt::{FdtReserveEntry, FdtWriter};

/// A machine whose device tree is enough for Linux.
struct Tree {
    memory: (u64, u64),
    /// Distributor and CPU interface of a GICv2.
    gic: (u64, u64),
    /// Its registers for a hypervisor, and those for a guest.
    gic_at_el2: Option<(u64, u64)>,
    /// A PL011, and its interrupt.
    console: (u64, u32),
    psci: Option<&'static str>,
    /// The firmware's page.
    reserved: u64,
    mailboxes: [u64; 4],
    bootargs: String,
    /// Start and length.
    initrd: Option<(u64, u64)>,
}

impl Tree {
    fn raspi4b() -> Self {
        Self {
            memory: (0, 2 << 30),
            gic: (0xff84_1000, 0xff84_2000),
            gic_at_el2: None,
            console: (0xfe20_1000, 121),
            psci: None,
            reserved: 0,
            mailboxes: [0xd8, 0xe0, 0xe8, 0xf0],
            bootargs: String::new(),
            initrd: None,
        }
    }

    fn virt(conduit: Conduit, mailboxes: [u64; 4], bootargs: String, initrd: &[u8]) -> Self {
        Self {
            memory: (RAM, 1 << 30),
            gic: (0x0800_0000, 0x0801_0000),
            gic_at_el2: (conduit == Conduit::Smc).then_some((0x0803_0000, 0x0804_0000)),
            console: (0x0900_0000, 1),
            psci: Some(match conduit {
                Conduit::Hvc => "hvc",
                Conduit::Smc => "smc",
            }),
            reserved: SpinTableBoot::FIRMWARE,
            mailboxes,
            bootargs,
            initrd: Some((SpinTableBoot::INITRD_AT, initrd.len() as u64)),
        }
    }

    fn write(&self) -> vm_fdt::FdtWriterResult<Vec<u8>> {
        const GIC: u32 = 1;
        const CLOCK: u32 = 2;
        let reservations = [FdtReserveEntry::new(self.reserved, 0x1000)?];
        let mut fdt = FdtWriter::new_with_mem_reserv(&reservations)?;
        let root = fdt.begin_node("")?;
        fdt.property_string("compatible", "linux,dummy-virt")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_u32("interrupt-parent", GIC)?;
        if let Some(method) = self.psci {
            let node = fdt.begin_node("psci")?;
            fdt.property_string("compatible", "arm,psci-1.0")?;
            fdt.property_string("method", method)?;
            fdt.end_node(node)?;
        }
        let cpus = fdt.begin_node("cpus")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 0)?;
        for (number, mailbox) in (0u64..).zip(self.mailboxes) {
            let node = fdt.begin_node(&format!("cpu@{number:x}"))?;
            fdt.property_string("device_type", "cpu")?;
            fdt.property_string("compatible", "arm,armv8")?;
            fdt.property_u64("reg", number)?;
            fdt.property_string("enable-method", "spin-table")?;
            fdt.property_u64("cpu-release-addr", mailbox)?;
            fdt.end_node(node)?;
        }
        fdt.end_node(cpus)?;
        let (distributor, interface) = self.gic;
        let node = fdt.begin_node(&format!("interrupt-controller@{distributor:x}"))?;
        fdt.property_string("compatible", "arm,gic-400")?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_u32("#interrupt-cells", 3)?;
        fdt.property_u32("#address-cells", 0)?;
        let mut reg = vec![distributor, 0x1000, interface, 0x2000];
        if let Some((hypervisor, guest)) = self.gic_at_el2 {
            reg.extend([hypervisor, 0x2000, guest, 0x2000]);
            fdt.property_array_u32("interrupts", &[1, 9, 4])?;
        }
        fdt.property_array_u64("reg", &reg)?;
        fdt.property_phandle(GIC)?;
        fdt.end_node(node)?;
        let node = fdt.begin_node("timer")?;
        fdt.property_string("compatible", "arm,armv8-timer")?;
        fdt.property_array_u32("interrupts", &[1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08])?;
        fdt.end_node(node)?;
        let node = fdt.begin_node("clock")?;
        fdt.property_string("compatible", "fixed-clock")?;
        fdt.property_u32("#clock-cells", 0)?;
        fdt.property_u32("clock-frequency", 24_000_000)?;
        fdt.property_phandle(CLOCK)?;
        fdt.end_node(node)?;
        let (registers, interrupt) = self.console;
        let node = fdt.begin_node("serial")?;
        fdt.property_string_list("compatible", vec!["arm,pl011".into(), "arm,primecell".into()])?;
        fdt.property_array_u64("reg", &[registers, 0x1000])?;
        fdt.property_array_u32("interrupts", &[0, interrupt, 4])?;
        fdt.property_array_u32("clocks", &[CLOCK, CLOCK])?;
        fdt.property_string_list("clock-names", vec!["uartclk".into(), "apb_pclk".into()])?;
        fdt.end_node(node)?;
        let node = fdt.begin_node("memory")?;
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &[self.memory.0, self.memory.1])?;
        fdt.end_node(node)?;
        let node = fdt.begin_node("chosen")?;
        fdt.property_string("stdout-path", "/serial")?;
        fdt.property_string("bootargs", &self.bootargs)?;
        if let Some((start, len)) = self.initrd {
            fdt.property_u64("linux,initrd-start", start)?;
            fdt.property_u64("linux,initrd-end", start + len)?;
        }
        fdt.end_node(node)?;
        fdt.end_node(root)?;
        fdt.finish()
    }

    fn blob(&self) -> Vec<u8> {
        self.write().expect("a tree that the writer accepts")
    }
}

/// The target folder.
fn target() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

fn raspi4b(append: &str, payload: &str, script: &str) -> Outcome {
    let tree = file(&Tree::raspi4b().blob());
    let boot =
        Boot::new("--machine raspi4b --memory 2G").with("--dtb", tree.path()).with("--payload", payload);
    boot.with("--append", append).with("--script", script).run()
}

/// What each generation's phase `cpus` says about `key`.
fn phases(outcome: &Outcome, key: &str) -> Vec<u64> {
    let phases = outcome.records.iter().filter(|r| r.get("phase").is_some_and(|phase| phase == "cpus"));
    phases.map(|phase| phase[key].as_u64().expect("a number")).collect()
}

#[track_caller]
fn expect_linux_on_four_cpus(outcome: &Outcome) {
    outcome.expect_success();
    assert_eq!(outcome.user_space("cpus"), "4", "{}", outcome.console);
    assert_eq!(outcome.user_space("initrd"), "ok", "{}", outcome.console);
}

#[test]
fn linmap_gets_them_back_from_itself_by_way_of_a_pen_whoever_moves_the_payload() {
    for how in ["", "--scattered", "--scattered --mmu-off"] {
        // The one that was switched off waits to be called, and goes to the pen from there.
        let script = format!("cpu-off 2; kexec load --verify {how}; kexec exec --verify");
        let outcome = raspi4b("linmap.generations=2", "self", &script);
        outcome.expect_success();
        assert_eq!(phases(&outcome, "online"), [4, 4, 4], "{how}\n{}", outcome.console);
    }
}

#[test]
fn linux_gets_those_that_were_called_from_the_pen_and_the_others_from_the_firmware() {
    let scattered = "verify; kexec load --scattered --verify; kexec exec --verify";
    let outcome = raspi4b("linmap.cpus=2", "linux", scattered);
    assert_eq!(phases(&outcome, "online"), [2]);
    assert_eq!(outcome.with("state").expect("a state")["cpus"], 2);
    expect_linux_on_four_cpus(&outcome);
    if is_soak() {
        expect_linux_on_four_cpus(&raspi4b("linmap.cpus=2", "linux", "kexec"));
        expect_linux_on_four_cpus(&raspi4b("", "linux", "kexec"));
        let outcome = raspi4b("", "linux", scattered);
        assert_eq!(outcome.with("state").expect("a state")["cpus"], 4);
        expect_linux_on_four_cpus(&outcome);
    }
}

#[test]
fn one_that_leaves_the_firmware_after_the_payload_was_loaded_is_loaded_for_again() {
    let outcome = raspi4b("linmap.cpus=2", "self", "kexec load; cpu-on 3; kexec exec");
    let what = outcome.with("script").expect("a verdict")["what"].as_str().expect("text").to_owned();
    assert!(what.contains("CPU 3") && what.contains("load it again"), "{what}");
    let script = "kexec load; cpu-on 3; !kexec exec; kexec unload; kexec";
    let outcome = raspi4b("linmap.cpus=2", "self", script);
    outcome.expect_success();
    assert_eq!(phases(&outcome, "online"), [2, 2], "{}", outcome.console);
}

/// A mailbox for each CPU.
const OWN: [u64; 4] = [MAILBOX, MAILBOX + 8, MAILBOX + 16, MAILBOX + 24];
/// One for all.
const SHARED: [u64; 4] = [MAILBOX; 4];
const MAILBOX: u64 = SpinTableBoot::FIRMWARE + SpinTableBoot::CODE_LEN;

/// The console of a `virt` whose CPUs have these mailboxes.
fn virt(
    cpu: &str,
    conduit: Conduit,
    mailboxes: [u64; 4],
    bootargs: &str,
    script: &str,
    kernel: &[u8],
) -> String {
    let initrd = archive(&[
        ("cmdline", b"earlycon panic=-1"),
        ("Image", kernel),
        ("initrd", b""),
        ("script", script.as_bytes()),
    ]);
    let tree = Tree::virt(conduit, mailboxes, bootargs.to_owned(), &initrd).blob();
    SpinTableBoot { cpu, conduit, tree: &tree, initrd: &initrd, mailboxes }.run()
}

#[test]
fn they_are_handed_on_at_the_level_they_were_entered_at() {
    let kernel = std::fs::read(target().join("linmap/Image")).expect("the kernel is built");
    for (cpu, conduit, level) in [
        ("neoverse-n1", Conduit::Hvc, "el=1 vhe=0"),
        ("neoverse-n1", Conduit::Smc, "el=2 vhe=1"),
        ("cortex-a72", Conduit::Smc, "el=2 vhe=0"),
    ] {
        let script = "kexec load --scattered\nkexec exec";
        let words = "linmap.payload=self linmap.generations=2";
        let console = virt(cpu, conduit, OWN, words, script, &kernel);
        for generation in 0..=2 {
            assert!(console.contains(&format!("generation={generation} {level}")), "{console}");
        }
        assert_eq!(console.matches("online=4 present=4 method=spin-table").count(), 3, "{console}");
    }
}

#[test]
fn linux_gets_those_that_share_a_mailbox_with_one_that_was_called() {
    let kernel = std::fs::read(target().join("payload/linux-6.12/Image")).expect("Debian's kernel");
    for &conduit in soak_or_first(1, &[Conduit::Smc, Conduit::Hvc]) {
        let console = virt("neoverse-n1", conduit, SHARED, "linmap.cpus=2", "cpus\nkexec", &kernel);
        assert_eq!(console.matches("method=spin-table state=uncalled").count(), 2, "{console}");
        assert!(console.contains("smp: Brought up 1 node, 4 CPUs"), "{console}");
        for complaint in ["[Firmware Bug]", "failed to come online", "WARNING:"] {
            assert!(!console.contains(complaint), "{conduit:?}: {complaint}\n{console}");
        }
    }
}

/// Xen enters EL2 on each CPU without clearing E2H. Two go to the pen from where they were started,
/// two from where they wait to be called. Without a first domain Xen panics and resets.
#[test]
fn xen_gets_all_from_the_pen_at_an_el2_without_vhe() {
    let kernel = std::fs::read(target().join("payload/xen/Image")).expect("Debian's Xen");
    let console = virt("neoverse-n1", Conduit::Smc, SHARED, "linmap.cpus=2", "kexec", &kernel);
    assert!(console.contains("generation=0 el=2 vhe=1"), "{console}");
    assert!(console.contains("(XEN) Brought up 4 CPUs"), "{console}");
}

#[test]
fn they_stop_for_a_crash_kernel_that_one_of_them_enters() {
    let outcome = raspi4b("linmap.crashkernel=256M", "linux", "kexec load --crash; panic 2");
    outcome.expect_success();
    let state = outcome.with("stopped").expect("the way into the crash kernel");
    assert_eq!((&state["cpu"], &state["stopped"], &state["running"]), (&2.into(), &3.into(), &0.into()));
    assert_eq!(outcome.user_space("initrd"), "ok");
    assert!(outcome.console.contains("linmap-userspace: vmcore="), "{}", outcome.console);
}

#[test]
fn a_pen_that_is_not_as_it_was_written_is_noticed_before_anyone_goes_there() {
    let load = "kexec load --verify; kexec plan";
    let first = raspi4b("", "self", load);
    let plan = first.expect_success().with("control").expect("a plan").clone();
    // Code, orders, EL2's stub, the pen.
    let pen = plan["control"].as_u64().unwrap() + 0x3000;
    for (offset, byte) in [(0, 0), (1024 + 4, 1), (2048, 1)] {
        let at = pen + offset;
        let outcome =
            raspi4b("", "self", &format!("{load}; poke {at:#x} {byte}; !kexec exec --verify; cpus"));
        outcome.expect_success();
        let refused = outcome.with("refused").expect("a refusal")["what"].as_str().unwrap().to_owned();
        assert!(
            refused.contains("the relocation code has changed since it was loaded"),
            "{offset}: {refused}"
        );
    }
}
