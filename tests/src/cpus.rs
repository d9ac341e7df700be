//! Device trees of machines with CPUs of many kinds, and what a boot says of its CPUs.

use serde_json::Value;
use vm_fdt::{FdtReserveEntry, FdtWriter};

use crate::boot::{Boot, Outcome};
use crate::tree::{RAM, file};

/// A machine's device tree, as far as CPUs are concerned.
#[derive(Debug)]
pub struct CpuTree {
    /// The children of /cpus.
    pub cpus: Vec<Node>,
    /// The interrupt controller.
    pub gic: Gic,
    /// How PSCI is called, `None` for no PSCI.
    pub psci: Option<&'static str>,
    /// Where PSCI is.
    pub psci_node: PsciNode,
    /// Start and length of RAM.
    pub memory: (u64, u64),
    /// Where the console's registers are.
    pub console: u64,
}

/// A child of /cpus.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its affinity.
    pub reg: Option<u64>,
    /// How it is started.
    pub method: Option<Method>,
    /// Its status.
    pub status: Option<&'static str>,
}

/// How a CPU is started.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    /// By PSCI.
    Psci,
    /// By a spin table with this mailbox.
    SpinTable(Option<u64>),
}

/// An interrupt controller.
#[derive(Debug)]
pub enum Gic {
    /// None.
    None,
    /// One that linmap does not know.
    Unknown,
    /// A GICv2: its `compatible`, the addresses of its registers, and the length of the second.
    #[expect(missing_docs, reason = "the line above says it")]
    V2 { compatible: &'static str, distributor: u64, cpu_interface: u64, interface_len: u64 },
}

/// Where PSCI is, and how its functions are numbered.
#[derive(Debug)]
pub enum PsciNode {
    /// At /psci, by the specification.
    AtRoot,
    /// At /firmware/psci, by the specification.
    InFirmware,
    /// At /psci, by the tree: version 0.1.
    Numbered,
}

impl Gic {
    /// A GIC-400.
    pub const fn v2(distributor: u64, cpu_interface: u64) -> Self {
        Self::V2 { compatible: "arm,gic-400", distributor, cpu_interface, interface_len: 0x2000 }
    }
}

/// That of QEMU's `virt`.
pub const VIRT_GIC: Gic = Gic::v2(0x0800_0000, 0x0801_0000);

/// A CPU that PSCI starts.
pub fn psci(reg: u64) -> Node {
    Node { reg: Some(reg), method: Some(Method::Psci), status: None }
}

impl CpuTree {
    /// QEMU's `virt` with a GICv2, PSCI, and these CPUs.
    pub fn virt(cpus: Vec<Node>) -> Self {
        let psci_node = PsciNode::AtRoot;
        Self {
            cpus,
            gic: VIRT_GIC,
            psci: Some("hvc"),
            psci_node,
            memory: (RAM, 1 << 30),
            console: 0x0900_0000,
        }
    }

    /// A Raspberry Pi 4, whose firmware leaves CPUs in a spin table.
    pub fn raspi4b() -> Self {
        let cpu =
            |n: u64| Node { reg: Some(n), method: Some(Method::SpinTable(Some(0xd8 + 8 * n))), status: None };
        Self {
            cpus: (0..4).map(cpu).collect(),
            gic: Gic::v2(0xff84_1000, 0xff84_2000),
            psci: None,
            psci_node: PsciNode::AtRoot,
            memory: (0, 2 << 30),
            console: 0xfe20_1000,
        }
    }

    fn write(&self) -> vm_fdt::FdtWriterResult<Vec<u8>> {
        // The first page is the firmware's, on machines that have memory there.
        let reservations = [FdtReserveEntry::new(0, 0x1000)?];
        let mut fdt = FdtWriter::new_with_mem_reserv(&reservations)?;
        let root = fdt.begin_node("")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        if let Some(method) = self.psci {
            let above = matches!(self.psci_node, PsciNode::InFirmware);
            let above = if above { Some(fdt.begin_node("firmware")?) } else { None };
            let node = fdt.begin_node("psci")?;
            fdt.property_string("method", method)?;
            if matches!(self.psci_node, PsciNode::Numbered) {
                // The numbers of KVM's and QEMU's version 0.1.
                fdt.property_string("compatible", "arm,psci")?;
                fdt.property_u32("cpu_off", 0x95c1_ba5f)?;
                fdt.property_u32("cpu_on", 0x95c1_ba60)?;
            } else {
                fdt.property_string("compatible", "arm,psci-1.0")?;
            }
            fdt.end_node(node)?;
            if let Some(above) = above {
                fdt.end_node(above)?;
            }
        }
        let cpus = fdt.begin_node("cpus")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 0)?;
        for (i, cpu) in self.cpus.iter().enumerate() {
            let node = fdt.begin_node(&format!("cpu@{i:x}"))?;
            fdt.property_string("device_type", "cpu")?;
            if let Some(reg) = cpu.reg {
                fdt.property_u64("reg", reg)?;
            }
            if let Some(status) = cpu.status {
                fdt.property_string("status", status)?;
            }
            match cpu.method {
                Some(Method::Psci) => fdt.property_string("enable-method", "psci")?,
                Some(Method::SpinTable(release)) => {
                    fdt.property_string("enable-method", "spin-table")?;
                    if let Some(release) = release {
                        fdt.property_u64("cpu-release-addr", release)?;
                    }
                }
                None => {}
            }
            fdt.end_node(node)?;
        }
        fdt.end_node(cpus)?;
        // On a bus that translates addresses, as on many boards.
        const BUS: u64 = 0x10_0000_0000;
        let bus = fdt.begin_node("soc")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_array_u64("ranges", &[BUS, 0, 0x1_0000_0000])?;
        match self.gic {
            Gic::None => {}
            Gic::Unknown => {
                let node = fdt.begin_node("intc")?;
                fdt.property_string("compatible", "arm,gic-v5")?;
                fdt.property_null("interrupt-controller")?;
                fdt.end_node(node)?;
            }
            Gic::V2 { compatible, distributor, cpu_interface, interface_len } => {
                let node = fdt.begin_node("intc")?;
                fdt.property_string("compatible", compatible)?;
                fdt.property_null("interrupt-controller")?;
                let reg = [BUS + distributor, 0x1000, BUS + cpu_interface, interface_len];
                fdt.property_array_u64("reg", &reg)?;
                fdt.end_node(node)?;
            }
        }
        fdt.end_node(bus)?;
        let console = fdt.begin_node("serial")?;
        fdt.property_string("compatible", "arm,pl011")?;
        fdt.property_array_u64("reg", &[self.console, 0x1000])?;
        fdt.end_node(console)?;
        let memory = fdt.begin_node("memory")?;
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &[self.memory.0, self.memory.1])?;
        fdt.end_node(memory)?;
        let chosen = fdt.begin_node("chosen")?;
        fdt.property_string("stdout-path", "/serial")?;
        fdt.end_node(chosen)?;
        fdt.end_node(root)?;
        fdt.finish()
    }

    /// Boots this tree with these options of `cargo xtask boot`, words and script.
    ///
    /// # Panics
    /// When the tree can't be written.
    pub fn boot(&self, options: &str, append: &str, script: &str) -> Outcome {
        let tree = file(&self.write().expect("a tree that the writer accepts"));
        let boot = Boot::new(options).with("--dtb", tree.path()).with("--append", append);
        boot.with("--script", script).run()
    }

    /// Boots it on QEMU's `virt` with four CPUs.
    pub fn boot_virt(&self, append: &str, script: &str) -> Outcome {
        self.boot("--memory 1G --cpus 4", append, script)
    }
}

/// The records of the shell's `cpus`, by number.
pub fn shown(outcome: &Outcome) -> Vec<&serde_json::Map<String, Value>> {
    outcome.records.iter().filter(|record| record.contains_key("mpidr")).collect()
}

/// Expects `online` of `present` CPUs, and that all others answered the boot CPU's call in `cpus`.
#[track_caller]
pub fn expect_cpus(outcome: &Outcome, online: u64, present: u64) {
    let phase = outcome.expect_success().phase("cpus");
    assert_eq!(phase["online"], online, "{phase:?}\n{}", outcome.console);
    assert_eq!(phase["present"], present, "{phase:?}");
    let asked = outcome.with("asked").unwrap_or_else(|| panic!("{}", outcome.console));
    assert_eq!(asked["asked"], online - 1, "{asked:?}");
    assert_eq!(asked["answered"], online - 1, "{asked:?}");
    let states = shown(outcome);
    assert_eq!(states.len() as u64, present);
    assert_eq!(states.iter().filter(|cpu| cpu["state"] == "online").count() as u64, online);
}

/// Expects a warning of a CPU that holds all of `parts`.
#[track_caller]
pub fn expect_warning(outcome: &Outcome, parts: &[&str]) {
    let said = outcome.records.iter().any(|record| {
        let what = record.get("what").and_then(Value::as_str).unwrap_or_default();
        record.get("warning").is_some_and(|kind| kind == "cpu")
            && parts.iter().all(|part| what.contains(part))
    });
    assert!(said, "no warning says {parts:?}: {}", outcome.console);
}
