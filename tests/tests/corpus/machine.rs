//! What a boot reads from a tree besides memory: CPUs, PSCI, the GIC, the console. What our reader
//! finds is what another reader finds, or a case that has a name.

use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};
use linmap_memblock::Memblock;
use linmap_platform::gic::{V2, V3, Version};
use linmap_platform::{
    Affinity, Conduit, Devices, EnableMethod, Psci, PsciFunctions, Topology, Uart, UartKind,
};

use crate::other_reader::{enabled_nodes, is_enabled, number, reg, strings, text};

/// As many as the kernel supports.
const CPUS: usize = 256;
/// Physical address bits of a CPU that reaches all devices of all boards.
const PA_BITS: u8 = 48;

/// A machine.
#[derive(Debug)]
pub struct Machine {
    pub cpus: usize,
    pub conduit: Option<Conduit>,
    pub gic: Option<Version>,
    pub console: Console,
    /// What the tree says that makes a part of the machine unusable.
    pub cases: Vec<String>,
}

/// What a tree says of its console.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Console {
    /// A UART of which there is a driver.
    Uart(&'static str),
    /// There is no driver: the least specific `compatible`.
    NoDriver(String),
    /// `/chosen` has no `stdout-path`.
    NotNamed,
    /// `stdout-path` leads to no node.
    NoNode,
}

/// Reads the machine of a tree in which `memory` was found.
pub fn read<const N: usize>(blob: &[u8], memory: &Memblock<N>) -> Result<Machine, String> {
    let ours = linmap_fdt::parse_dtb(blob).map_err(|error| error.to_string())?;
    let theirs = Fdt::new_unchecked(blob);
    let mut cases = Vec::new();
    let cpus = cpus(ours, theirs, memory, &mut cases)?;
    let devices = Devices::find(ours);
    let conduit = psci(devices.psci, theirs)?;
    let gic = gic(&devices, theirs, &mut cases)?;
    let console = console(ours, theirs, &mut cases)?;
    Ok(Machine { cpus, conduit, gic, console, cases })
}

fn cpus<const N: usize>(
    ours: linmap_fdt::Fdt<'_>,
    theirs: Fdt<'_>,
    memory: &Memblock<N>,
    cases: &mut Vec<String>,
) -> Result<usize, String> {
    let parent = theirs.find_node("/cpus").ok_or("no /cpus")?;
    let is_cpu = |node: &FdtNode<'_>| text(node, "device_type").as_deref() == Some("cpu");
    let nodes: Vec<_> = parent.children().filter(is_cpu).collect();
    let expected: Vec<_> = nodes.iter().map(|node| (reg(*node)[0].0, method(node))).collect();
    let (boot, _) = *expected.first().ok_or("no CPU")?;
    let mut found = Topology::<CPUS>::from_fdt(ours, Affinity::of_mpidr(boot));
    cases.extend(found.unusable.iter().map(|cpu| cpu.to_string()));
    let listed: Vec<_> = found.cpus.iter().map(|cpu| (cpu.affinity.bits(), cpu.method)).collect();
    if found.unusable_count == 0 && listed != expected || found.left_out.is_some() {
        return Err(format!("CPUs {listed:x?}, should be {expected:x?}"));
    }
    if found.unusable_count + listed.len() != expected.len() {
        return Err(format!("{} CPUs of {}", listed.len(), expected.len()));
    }
    let before = found.unusable.len();
    found.check_mailboxes(memory, &[]);
    cases.extend(found.unusable.iter().skip(before).map(|cpu| cpu.to_string()));
    Ok(listed.len())
}

fn method(node: &FdtNode<'_>) -> EnableMethod {
    match text(node, "enable-method").as_deref() {
        Some("psci") => EnableMethod::Psci,
        Some("spin-table") => {
            let release = number(node, "cpu-release-addr").expect("a mailbox");
            EnableMethod::SpinTable { release: linmap_vmsa::Pa(release) }
        }
        _ => EnableMethod::Unknown,
    }
}

/// The word of the binding.
pub fn conduit_name(conduit: Conduit) -> &'static str {
    match conduit {
        Conduit::Hvc => "hvc",
        Conduit::Smc => "smc",
    }
}

fn psci(found: Option<Psci>, theirs: Fdt<'_>) -> Result<Option<Conduit>, String> {
    let is_psci =
        |node: &FdtNode<'_>| strings(node, "compatible").iter().any(|name| name.starts_with("arm,psci"));
    let expected = enabled_nodes(theirs.root(), &is_psci).first().map(|node| {
        let is_standard = strings(node, "compatible").iter().any(|name| name.starts_with("arm,psci-"));
        (text(node, "method"), is_standard)
    });
    let ours = found
        .map(|psci| (Some(conduit_name(psci.conduit).to_owned()), psci.functions == PsciFunctions::Standard));
    if ours != expected {
        return Err(format!("PSCI {ours:?}, should be {expected:?}"));
    }
    Ok(found.map(|psci| psci.conduit))
}

/// The GIC is the last interrupt controller on the way up from the one that the root names.
fn gic(devices: &Devices<'_>, theirs: Fdt<'_>, cases: &mut Vec<String>) -> Result<Option<Version>, String> {
    let root = theirs.root();
    let named = |node: &FdtNode<'_>| number(node, "interrupt-parent");
    let mut controller = None;
    let mut next = named(&root).or_else(|| root.children().find_map(|node| named(&node)));
    while let Some(phandle) = next {
        let is_next = |node: &FdtNode<'_>| number(node, "phandle") == Some(phandle);
        let node = *enabled_nodes(root, &is_next).first().ok_or("an interrupt parent that is no node")?;
        next = named(&node).filter(|parent| *parent != phandle);
        controller = Some(node);
    }
    let controller = controller.ok_or("no interrupt controller")?;
    let Some((version, device)) = &devices.gic else {
        cases.push(format!("no GIC, but {}", strings(&controller, "compatible").join(" ")));
        return Ok(None);
    };
    if device.node.name() != controller.name() {
        return Err(format!("the GIC is {}, should be {}", device.node.name(), controller.name()));
    }
    let registers = match version {
        Version::V2 => V2::of(device, PA_BITS).map(|_| ()),
        Version::V3 => V3::of(device, PA_BITS).map(|_| ()),
    };
    registers.map_err(|error| error.to_string())?;
    Ok(Some(*version))
}

fn console(ours: linmap_fdt::Fdt<'_>, theirs: Fdt<'_>, cases: &mut Vec<String>) -> Result<Console, String> {
    let found = Uart::from_stdout_path(ours);
    let chosen = theirs.find_node("/chosen");
    let path = chosen.and_then(|chosen| text(&chosen, "stdout-path"));
    let node = path.as_ref().and_then(|path| {
        let start = path.split(':').next()?;
        let alias = || text(&theirs.find_node("/aliases")?, start);
        theirs.find_node(&if start.starts_with('/') { start.to_owned() } else { alias()? })
    });
    if let Some(node) = node.filter(|node| !is_enabled(node)) {
        cases.push(format!("the console's node {} is not enabled", node.name()));
    }
    let console = match (node, path) {
        (Some(node), _) => {
            let names = strings(&node, "compatible");
            match names.iter().find_map(|name| driver(name)) {
                Some(uart) => Console::Uart(uart),
                None => Console::NoDriver(names.last().cloned().unwrap_or_default()),
            }
        }
        (None, Some(_)) => Console::NoNode,
        (None, None) => Console::NotNamed,
    };
    let ours = found.map(|uart| match uart.kind {
        UartKind::Pl011 => PL011,
        UartKind::Sbsa => SBSA,
        UartKind::Ns16550 => NS16550,
        UartKind::Cadence => CADENCE,
        UartKind::Imx => IMX,
    });
    match (&console, ours) {
        (Console::Uart(theirs), Some(ours)) if *theirs == ours => Ok(console),
        (Console::NoDriver(_) | Console::NotNamed | Console::NoNode, None) => Ok(console),
        _ => Err(format!("{found:?}, should be {console:?}")),
    }
}

const PL011: &str = "PL011";
const SBSA: &str = "SBSA";
const NS16550: &str = "16550";
const CADENCE: &str = "Cadence";
const IMX: &str = "i.MX";

/// Which driver bindings name for a UART of the boards.
fn driver(compatible: &str) -> Option<&'static str> {
    Some(match compatible {
        "arm,pl011" => PL011,
        "arm,sbsa-uart" => SBSA,
        "ns8250" | "ns16450" | "ns16550" | "ns16550a" | "ns16750" | "ns16850" => NS16550,
        "snps,dw-apb-uart" | "marvell,armada-38x-uart" | "nvidia,tegra20-uart" => NS16550,
        "brcm,bcm2835-aux-uart" | "mediatek,mt6577-uart" | "ti,am654-uart" | "ti,omap4-uart" => NS16550,
        "cdns,uart-r1p8" | "cdns,uart-r1p12" | "xlnx,xuartps" | "xlnx,zynqmp-uart" => CADENCE,
        "fsl,imx21-uart" | "fsl,imx53-uart" | "fsl,imx6q-uart" => IMX,
        _ => return None,
    })
}
