//! Devices of the device tree, and where the CPU sees their registers.

use arrayvec::ArrayVec;
use linmap_fdt::{Cells, Descendants, Fdt, FdtNode, Status, number};
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
    /// Returns the device at `path`, enabled or not.
    pub fn at(fdt: Fdt<'a>, path: &str) -> Option<Self> {
        let mut above = Above::from_iter([fdt.root()]);
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        let mut node = fdt.root();
        while let Some(part) = parts.next() {
            node = node.child(part)?;
            if parts.peek().is_some() {
                above.try_push(node).ok()?;
            }
        }
        Some(Self { node, registers: registers(node, &above) })
    }
}

/// A node and its `compatible`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub node: FdtNode<'a>,
    compatible: &'a [u8],
}

impl<'a> Found<'a> {
    /// Returns the strings of `compatible`, the most specific first.
    pub fn compatible(self) -> impl Iterator<Item = &'a [u8]> {
        self.compatible.split(|byte| *byte == 0)
    }
}

/// The enabled nodes of a tree, in the tree's order: at most seven levels deep, and none below a
/// node that is not enabled.
pub(crate) struct EnabledNodes<'a> {
    walk: Descendants<'a>,
    /// The nodes above the last one.
    above: Above<'a>,
    /// The last node with its depth.
    last: Option<(usize, FdtNode<'a>)>,
}

/// The nodes from the root to the parent of a device.
type Above<'a> = ArrayVec<FdtNode<'a>, MAX_DEPTH>;

impl<'a> EnabledNodes<'a> {
    pub fn of(fdt: Fdt<'a>) -> Self {
        Self { walk: fdt.root().descendants(), above: Above::from_iter([fdt.root()]), last: None }
    }

    /// Moves to the next node and returns it.
    pub fn next(&mut self) -> Option<Found<'a>> {
        loop {
            let (depth, node, [status, compatible]) = self.walk.next_with(["status", "compatible"])?;
            match self.last.replace((depth, node)) {
                // It has room, since nothing deeper is visited.
                Some((parent_depth, parent)) if parent_depth < depth => drop(self.above.try_push(parent)),
                _ => self.above.truncate(depth),
            }
            let is_enabled = Status::of_value(status).is_okay();
            if !is_enabled || depth == MAX_DEPTH {
                self.walk.skip_below();
            }
            if is_enabled {
                return Some(Found { node, compatible: compatible.unwrap_or_default() });
            }
        }
    }

    /// Returns `found`, the last node, with its registers.
    pub fn device(&self, found: Found<'a>) -> Device<'a> {
        Device { node: found.node, registers: registers(found.node, &self.above) }
    }
}

/// Returns the `reg` of `node`, which lies below `above`, up to the first entry that they do not
/// translate.
fn registers(node: FdtNode<'_>, above: &[FdtNode<'_>]) -> Registers {
    let mut registers = Registers::new();
    let Some(Ok(entries)) = above.last().map(|parent| node.reg(parent.cells())) else { return registers };
    for entry in entries {
        let range = entry
            .address()
            .zip(entry.size())
            .and_then(|(address, size)| PaRange::from_len(Pa(translate(above, address)?), size));
        if range.is_none_or(|range| registers.try_push(range).is_err()) {
            break;
        }
    }
    registers
}

/// Translates an address below the last of `above` to one of the CPU: each bus maps it by its
/// `ranges`. An empty `ranges` maps 1:1.
fn translate(above: &[FdtNode<'_>], from: u64) -> Option<u64> {
    let mut at = from;
    for pair in above.windows(2).rev() {
        let [parent, bus] = pair else { return None };
        let ranges = bus.property("ranges")?;
        if !ranges.is_empty() {
            at = translated_by(ranges, bus.cells(), parent.cells(), at)?;
        }
    }
    Some(at)
}

/// Translates by the windows of `ranges`: an address below the bus, one above it, and a size.
fn translated_by(ranges: &[u8], below: Cells, above: Cells, at: u64) -> Option<u64> {
    let [low, high, size] = [below.address, above.address, below.size].map(|cells| cells as usize);
    let window = low.saturating_add(high).saturating_add(size).saturating_mul(4);
    if window == 0 || !ranges.len().is_multiple_of(window) {
        return None;
    }
    ranges.chunks_exact(window).find_map(|window| {
        let (start, rest) = window.split_at_checked(4 * low)?;
        let (to, size) = rest.split_at_checked(4 * high)?;
        let offset = at.checked_sub(number(start)?)?;
        if offset >= number(size)? {
            return None;
        }
        number(to)?.checked_add(offset)
    })
}
