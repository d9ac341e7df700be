//! Device trees with what the memory map reads. vm-fdt writes them, so that reader and writer check
//! each other.

use linmap_fdt::parse_dtb;
use linmap_memblock::{FdtError, FdtWarnings, Memblock};
use linmap_vmsa::{Pa, PaRange};
use vm_fdt::{FdtReserveEntry, FdtWriter};

pub type Map = Memblock<32>;

pub fn range(start: u64, len: u64) -> PaRange {
    PaRange::from_len(Pa(start), len).unwrap()
}

/// A property: its name and its value.
pub type Property<'a> = (&'a str, Vec<u8>);

pub fn cells(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

pub fn wide(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

pub fn string(value: &str) -> Vec<u8> {
    [value.as_bytes(), &[0]].concat()
}

/// A device tree with what this crate reads; everything else is added by name and value.
pub struct Tree {
    writer: FdtWriter,
    root: vm_fdt::FdtWriterNode,
}

impl Tree {
    pub fn new(address_cells: u32, size_cells: u32, memreserve: &[(u64, u64)]) -> Self {
        let entries: Vec<_> =
            memreserve.iter().map(|&(start, len)| FdtReserveEntry::new(start, len).unwrap()).collect();
        let mut writer = FdtWriter::new_with_mem_reserv(&entries).unwrap();
        let root = writer.begin_node("").unwrap();
        writer.property_u32("#address-cells", address_cells).unwrap();
        writer.property_u32("#size-cells", size_cells).unwrap();
        Self { writer, root }
    }

    pub fn node(mut self, name: &str, properties: &[Property]) -> Self {
        let node = self.writer.begin_node(name).unwrap();
        for (name, value) in properties {
            self.writer.property(name, value).unwrap();
        }
        self.writer.end_node(node).unwrap();
        self
    }

    pub fn memory(self, name: &str, reg: Vec<u8>) -> Self {
        self.node(name, &[("device_type", string("memory")), ("reg", reg)])
    }

    /// `/reserved-memory` with two cells for addresses and sizes.
    pub fn reserved_memory(mut self, children: &[(&str, &[Property])]) -> Self {
        let parent = self.writer.begin_node("reserved-memory").unwrap();
        self.writer.property_u32("#address-cells", 2).unwrap();
        self.writer.property_u32("#size-cells", 2).unwrap();
        self.writer.property_null("ranges").unwrap();
        for &(name, properties) in children {
            self = self.node(name, properties);
        }
        self.writer.end_node(parent).unwrap();
        self
    }

    pub fn blob(mut self) -> Vec<u8> {
        self.writer.end_node(self.root).unwrap();
        self.writer.finish().unwrap()
    }
}

/// Two cells each, one gigabyte of RAM at 1 GiB.
pub fn one_gigabyte() -> Tree {
    Tree::new(2, 2, &[]).memory("memory@40000000", wide(&[0x4000_0000, 0x4000_0000]))
}

/// A tree in which every part that is read occurs.
pub fn everything() -> Vec<u8> {
    Tree::new(2, 2, &[(0x4800_0000, 0x1001)])
        .memory("memory@40000000", wide(&[0x4000_0000, 0x4000_0000, 0x8_0000_0000, 0x1_8000_0000]))
        .memory("memory@80000000", wide(&[0x8000_0000, 0x1000_0000]))
        .node("cpus", &[("device_type", string("cpu"))])
        .reserved_memory(&[
            ("secure@50000000", &[("reg", wide(&[0x5000_0000, 0x0020_0000])), ("no-map", vec![])]),
            ("ramoops@60000000", &[("reg", wide(&[0x6000_0000, 0x1000, 0x6000_4800, 0x1000]))]),
            ("off@61000000", &[("reg", wide(&[0x6100_0000, 0x1000])), ("status", string("disabled"))]),
            ("outside@10000000", &[("reg", wide(&[0x1000_0000, 0x1000])), ("no-map", vec![])]),
            ("cma", &[("size", wide(&[0x0400_0000])), ("reusable", vec![])]),
        ])
        .node(
            "chosen",
            &[("linux,initrd-start", cells(&[0x4400_0000])), ("linux,initrd-end", wide(&[0x4412_3456]))],
        )
        .blob()
}

pub fn fill(dtb: &[u8]) -> Result<Map, FdtError<'_>> {
    fill_and_warn(dtb).map(|(map, _)| map)
}

pub fn fill_and_warn(dtb: &[u8]) -> Result<(Map, FdtWarnings<'_>), FdtError<'_>> {
    let mut map = Map::new();
    map.fill_from_fdt(parse_dtb(dtb).unwrap()).map(|warnings| (map, warnings))
}

/// What filling a map from the tree ends in. The map held something before, and is empty
/// afterwards.
pub fn error(dtb: &[u8]) -> FdtError<'_> {
    let mut map = Map::new();
    map.add(range(0x1000, 0x1000)).unwrap();
    let error = map.fill_from_fdt(parse_dtb(dtb).unwrap()).unwrap_err();
    assert_eq!(map, Map::new());
    assert!(!error.to_string().contains('\n'));
    error
}
