//! Devices of the device tree, and where the CPU sees their registers.

use arrayvec::ArrayVec;
use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};
use linmap_fdt::{address, is_enabled};
use linmap_vmsa::{Pa, PaRange};

/// The deepest level below the root at which devices are found. The root's children are at level 1.
const MAX_DEPTH: usize = 7;
/// How many entries of a `reg` are read.
const MAX_REGISTERS: usize = 32;

/// The `reg` of a device, in addresses of the CPU: at most 32 ranges.
pub type Registers = ArrayVec<PaRange, MAX_REGISTERS>;

/// A device.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// Its node.
    pub node: FdtNode<'a>,
    /// Its registers, up to the first entry of `reg` that the buses above do not translate.
    pub registers: Registers,
}

impl<'a> Device<'a> {
    /// Returns the first enabled device, in the tree's order, for which `is_wanted` is true. It
    /// looks at most seven levels deep, and below no disabled node.
    pub fn find(fdt: Fdt<'a>, is_wanted: impl Fn(&FdtNode<'a>) -> bool) -> Option<Self> {
        find_below(fdt.root(), &mut ArrayVec::new(), &is_wanted)
    }

    /// Returns the device at `path`, enabled or not.
    pub fn at(fdt: Fdt<'a>, path: &str) -> Option<Self> {
        let mut buses = Buses::new();
        let mut node = fdt.root();
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            node = node.child(part)?;
            if parts.peek().is_some() {
                buses.try_push(node).ok()?;
            }
        }
        Some(Self { node, registers: registers(node, &buses) })
    }
}

/// The nodes between the root and a device, the outermost first.
type Buses<'a> = ArrayVec<FdtNode<'a>, { MAX_DEPTH - 1 }>;

/// Looks below `parent`, which is the last of `buses` unless it is the root.
fn find_below<'a>(
    parent: FdtNode<'a>,
    buses: &mut Buses<'a>,
    is_wanted: &impl Fn(&FdtNode<'a>) -> bool,
) -> Option<Device<'a>> {
    for node in parent.children() {
        if !is_enabled(&node) {
            continue;
        }
        if is_wanted(&node) {
            return Some(Device { node, registers: registers(node, buses) });
        }
        if buses.try_push(node).is_err() {
            continue;
        }
        let found = find_below(node, buses, is_wanted);
        if found.is_some() {
            return found;
        }
        buses.pop();
    }
    None
}

/// Returns the `reg` of `node` below `buses`, up to the first entry that they do not translate.
fn registers(node: FdtNode<'_>, buses: &[FdtNode<'_>]) -> Registers {
    let mut registers = Registers::new();
    let Ok(Some(entries)) = node.reg() else { return registers };
    for entry in entries {
        let range = address(entry.address)
            .zip(entry.size::<u64>().ok())
            .and_then(|(address, size)| PaRange::from_len(Pa(translate(buses, address)?), size));
        if range.is_none_or(|range| registers.try_push(range).is_err()) {
            break;
        }
    }
    registers
}

/// Translates an address of the innermost bus to one of the CPU: each bus maps it by its `ranges`.
/// An empty `ranges` maps 1:1.
fn translate(buses: &[FdtNode<'_>], from: u64) -> Option<u64> {
    let mut at = from;
    for bus in buses.iter().rev() {
        let mut windows = bus.ranges().ok()??.peekable();
        if windows.peek().is_some() {
            at = windows.find_map(|window| {
                let offset = at.checked_sub(address(window.child_bus_address)?)?;
                if offset >= window.length::<u64>().ok()? {
                    return None;
                }
                address(window.parent_bus_address)?.checked_add(offset)
            })?;
        }
    }
    Some(at)
}
