//! Device trees of machines with several CPUs, and of some that lie.

use linmap_tests::{Boot, Outcome, RAM, file};
use vm_fdt::{FdtReserveEntry, FdtWriter};

/// A machine's device tree, as far as CPUs are concerned.
pub struct Tree {
    /// /cpus: the lowest affinity field, how it is started, and a status.
    pub cpus: Vec<Node>,
    pub gic: Gic,
    pub psci: Option<&'static str>,
    pub psci_node: PsciNode,
    pub memory: (u64, u64),
    pub console: u64,
}

/// A node below /cpus.
#[derive(Clone)]
pub struct Node {
    pub reg: Option<u64>,
    pub method: Option<Method>,
    pub status: Option<&'static str>,
}

/// How a CPU is started.
#[derive(Clone, Copy)]
pub enum Method {
    Psci,
    SpinTable(Option<u64>),
}

/// The interrupt controller.
pub enum Gic {
    None,
    Unknown,
    V2 { compatible: &'static str, distributor: u64, cpu_interface: u64, interface_len: u64 },
}

impl Gic {
    /// A GIC-400.
    pub const fn v2(distributor: u64, cpu_interface: u64) -> Self {
        Self::V2 { compatible: "arm,gic-400", distributor, cpu_interface, interface_len: 0x2000 }
    }
}

/// Where PSCI is, and how its functions are numbered.
pub enum PsciNode {
    /// At /psci, by the specification.
    AtRoot,
    /// At /firmware/psci, by the specification.
    InFirmware,
    /// At /psci, by the tree: version 0.1.
    Numbered,
}

/// That of QEMU's `virt`.
pub const VIRT_GIC: Gic = Gic::v2(0x0800_0000, 0x0801_0000);

/// A CPU that PSCI starts.
pub fn psci(reg: u64) -> Node {
    Node { reg: Some(reg), method: Some(Method::Psci), status: None }
}

impl Tree {
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

    pub fn boot(&self, options: &str, append: &str, script: &str) -> Outcome {
        let tree = file(&self.write().expect("a tree that the writer accepts"));
        let boot = Boot::new(options).with("--dtb", tree.path()).with("--append", append);
        boot.with("--script", script).run()
    }

    pub fn boot_virt(&self, append: &str, script: &str) -> Outcome {
        self.boot("--memory 1G --cpus 4", append, script)
    }
}
