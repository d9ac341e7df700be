//! What a tree says, by another reader and by plain lists of ranges.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use linmap_vmsa::{Pa, PaRange};

/// What the specification counts in: firmware describes memory in pages of 4 KiB.
const PAGE: u64 = 0x1000;

/// The memory of a tree.
#[derive(Clone)]
pub struct Memory {
    /// Memory entries as they stand in the tree, empty ones too.
    pub entries: Vec<(u64, u64)>,
    pub ram: Vec<PaRange>,
    pub no_map: Vec<PaRange>,
    pub reserved: Vec<PaRange>,
}

impl Memory {
    /// Reads `/memreserve/`, the memory nodes and the reservations.
    pub fn read(fdt: Fdt<'_>) -> Self {
        let mut memory =
            Self { entries: Vec::new(), ram: Vec::new(), no_map: Vec::new(), reserved: Vec::new() };
        for node in
            fdt.root().children().filter(|node| text(node, "device_type").as_deref() == Some("memory"))
        {
            if is_enabled(&node) {
                memory.entries.extend(reg(node));
            }
        }
        let ranges = memory.entries.iter().map(|(start, len)| range(*start, *len)).collect();
        memory.ram = union(ranges).into_iter().map(|range| range.align_inward(PAGE)).collect();
        memory.ram.retain(|range| !range.is_empty());
        let listed = fdt.memory_reservations().map(|entry| (entry.address(), entry.size()));
        let mut reserved: Vec<_> = listed.collect();
        let mut no_map = Vec::new();
        for node in fdt.find_node("/reserved-memory").iter().flat_map(|parent| parent.children()) {
            if is_enabled(&node) {
                let list = if node.property("no-map").is_some() { &mut no_map } else { &mut reserved };
                list.extend(reg(node));
            }
        }
        let pages = |entries: Vec<(u64, u64)>| {
            let ranges = entries.into_iter().map(|(start, len)| range(start, len));
            let ranges = ranges.filter(|range| !range.is_empty());
            union(ranges.map(|range| range.align_outward(PAGE).expect("an end")).collect())
        };
        (memory.reserved, memory.no_map) = (pages(reserved), pages(no_map));
        memory
    }

    /// The memory that may be mapped, in whole pages of `page` bytes.
    pub fn mappable(&self, page: u64) -> Vec<PaRange> {
        let parts = self.ram.iter().flat_map(|ram| without(*ram, &self.no_map));
        parts.map(|part| part.align_inward(page)).filter(|part| !part.is_empty()).collect()
    }

    /// Returns how much memory there is from its start on, holes included, until `bytes` bytes of
    /// it may be mapped.
    pub fn len_with(&self, bytes: u64) -> u64 {
        let mut left = bytes;
        let mut end = Pa(0);
        for part in self.mappable(PAGE) {
            end = Pa(part.start.0 + part.len().min(left));
            left -= part.len().min(left);
            if left == 0 {
                break;
            }
        }
        self.ram.iter().map(|ram| ram.end.min(end).0.saturating_sub(ram.start.0)).sum()
    }

    /// Leaves the first `bytes` bytes of memory.
    pub fn limit(&mut self, bytes: u64) {
        let mut left = bytes;
        for ram in &mut self.ram {
            ram.end = ram.end.min(Pa(ram.start.0 + left));
            left -= ram.len();
        }
        self.ram.retain(|range| !range.is_empty());
    }

    /// The no-map parts of memory: how many there are, and their bytes.
    pub fn holes(&self) -> (u64, u64) {
        let parts = self.no_map.iter().flat_map(|hole| self.ram.iter().map(|ram| ram.intersection(*hole)));
        let lengths = parts.filter(|part| !part.is_empty()).map(|part| part.len());
        lengths.fold((0, 0), |(count, bytes), len| (count + 1, bytes + len))
    }
}

fn range(start: u64, len: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(start.checked_add(len).expect("a range")))
}

/// The bytes of all ranges, by ascending ranges that don't touch.
fn union(mut ranges: Vec<PaRange>) -> Vec<PaRange> {
    ranges.sort_by_key(|range| range.start);
    let mut all: Vec<PaRange> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match all.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => all.push(range),
        }
    }
    all
}

/// What of `range` lies in none of the ascending `holes`.
fn without(range: PaRange, holes: &[PaRange]) -> Vec<PaRange> {
    let mut parts = Vec::new();
    let mut start = range.start;
    for hole in holes.iter().filter(|hole| hole.overlaps(range)) {
        parts.push(PaRange::new(start, hole.start.max(start)));
        start = hole.end;
    }
    parts.push(PaRange::new(start, range.end.max(start)));
    parts.retain(|part| !part.is_empty());
    parts
}

/// Address and size of each entry of `reg`.
pub fn reg(node: FdtNode<'_>) -> Vec<(u64, u64)> {
    let Some(entries) = node.reg().expect("whole entries") else { return Vec::new() };
    entries.map(|reg| (reg.address().expect("an address"), reg.size().expect("a size"))).collect()
}

/// The first string of a property.
pub fn text(node: &FdtNode<'_>, name: &str) -> Option<String> {
    strings(node, name).into_iter().next()
}

/// The strings of a property.
pub fn strings(node: &FdtNode<'_>, name: &str) -> Vec<String> {
    let Some(property) = node.property(name) else { return Vec::new() };
    let value = property.value().strip_suffix(b"\0").unwrap_or(property.value());
    value.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

/// The number in a property of one or two cells.
pub fn number(node: &FdtNode<'_>, name: &str) -> Option<u64> {
    let property = node.property(name)?;
    match *property.value() {
        [a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d]).into()),
        ref value => Some(u64::from_be_bytes(value.try_into().ok()?)),
    }
}

/// Whether its status lets it be used.
pub fn is_enabled(node: &FdtNode<'_>) -> bool {
    matches!(text(node, "status").as_deref(), None | Some("okay" | "ok"))
}

/// The nodes below `node` of which `wanted` holds, without those below a node that is not enabled.
pub fn enabled_nodes<'a>(node: FdtNode<'a>, wanted: &dyn Fn(&FdtNode<'a>) -> bool) -> Vec<FdtNode<'a>> {
    let mut found = Vec::new();
    for child in node.children().filter(is_enabled) {
        found.extend(wanted(&child).then_some(child));
        found.extend(enabled_nodes(child, wanted));
    }
    found
}
