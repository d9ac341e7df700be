//! Reserved memory that is not memory.

use core::fmt;

use linmap_fdt::{Fdt, RegEntries};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};

use crate::memory::long_lists::REGIONS;

/// Ranges of `/reserved-memory` that have no byte of memory. They change nothing: many boards name
/// memory there that their memory nodes leave out.
#[derive(Clone, Copy, Debug)]
pub struct ReservedOutside<'a> {
    /// The node of the first, and the range.
    first: (&'a str, PaRange),
    /// How many there are.
    count: usize,
}

impl<'a> ReservedOutside<'a> {
    /// Those of `fdt`, if there is any. `memblock` has all memory of the tree.
    pub fn find(fdt: Fdt<'a>, memblock: &Memblock<REGIONS>) -> Option<Self> {
        let parent = fdt.reserved_memory()?;
        let mut found: Option<Self> = None;
        for (node, [reg]) in parent.children_with(["reg"]) {
            let entries = RegEntries::new(reg.unwrap_or_default(), parent.cells()).into_iter().flatten();
            let ranges = entries.filter_map(|entry| PaRange::from_len(Pa(entry.address()?), entry.size()?));
            for range in ranges.filter(|range| !range.is_empty()) {
                if memblock.regions().any(|region| region.range.overlaps(range)) {
                    continue;
                }
                let found = found.get_or_insert(Self { first: (node.name(), range), count: 0 });
                found.count += 1;
            }
        }
        found
    }
}

impl fmt::Display for ReservedOutside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first: (node, range), count } = self;
        write!(f, "reserved-memory: {range} of node {node} is not memory")?;
        if *count > 1 { write!(f, "; {} more are not", count - 1) } else { Ok(()) }
    }
}
