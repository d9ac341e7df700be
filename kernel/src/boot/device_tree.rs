//! Finding devices in the device tree, and where the CPU sees their registers.

use arrayvec::ArrayVec;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Cells, Node, ToCellInt};
use linmap_vmsa::{Pa, PaRange};

use crate::boot::topology::is_enabled;

/// How deep devices are looked for below the root, buses counted.
const MAX_DEPTH: usize = 6;
/// The most entries of a `reg` that are read.
const MAX_REGISTERS: usize = 32;

/// The `reg` of a device, as the CPU sees it.
pub type Registers = ArrayVec<PaRange, MAX_REGISTERS>;

/// A device.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// Its node.
    pub node: FdtNode<'a>,
    /// Its registers, as far as they can be translated.
    pub registers: Registers,
}

/// The first enabled device, in the tree's order, that `wanted` says yes to.
pub fn find<'a>(fdt: Fdt<'a>, wanted: fn(&FdtNode<'a>) -> bool) -> Option<Device<'a>> {
    let mut buses = ArrayVec::new();
    find_below(fdt.root(), &mut buses, wanted)
}

/// Looks below `parent`, which stands at the end of `buses` unless it is the root.
fn find_below<'a>(
    parent: FdtNode<'a>,
    buses: &mut ArrayVec<FdtNode<'a>, MAX_DEPTH>,
    wanted: fn(&FdtNode<'a>) -> bool,
) -> Option<Device<'a>> {
    for node in parent.children() {
        if !is_enabled(&node) {
            continue;
        }
        if wanted(&node) {
            return Some(Device { node, registers: registers(node, buses) });
        }
        if buses.try_push(node).is_err() {
            continue;
        }
        let found = find_below(node, buses, wanted);
        if found.is_some() {
            return found;
        }
        buses.pop();
    }
    None
}

/// The device at `path`.
pub fn at<'a>(fdt: Fdt<'a>, path: &str) -> Option<Device<'a>> {
    let mut buses = ArrayVec::<_, MAX_DEPTH>::new();
    let mut node = fdt.root();
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        node = node.child(part)?;
        if parts.peek().is_some() {
            buses.try_push(node).ok()?;
        }
    }
    Some(Device { node, registers: registers(node, &buses) })
}

/// The `reg` of `node`, below `buses`, the outermost first. Ends at the first entry that can't be translated.
fn registers(node: FdtNode<'_>, buses: &[FdtNode<'_>]) -> Registers {
    let mut registers = Registers::new();
    let Ok(Some(entries)) = node.reg() else { return registers };
    for entry in entries {
        let range = address(entry.address)
            .zip(entry.size::<u64>().ok())
            .and_then(|(address, size)| PaRange::from_len(Pa(through(buses, address)?), size));
        if range.is_none_or(|range| registers.try_push(range).is_err()) {
            break;
        }
    }
    registers
}

/// An address as the innermost of `buses` has it, as the CPU sees it: each bus translates by its `ranges`, an empty one
/// 1:1.
fn through(buses: &[FdtNode<'_>], from: u64) -> Option<u64> {
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

/// The address in `cells`: one or two of them. No cells are no address, where `#address-cells` is 0.
pub fn address(cells: Cells<'_>) -> Option<u64> {
    if cells.as_ref().is_empty() { None } else { cells.to_int().ok() }
}
