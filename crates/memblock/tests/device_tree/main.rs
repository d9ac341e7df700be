//! Memory maps from device trees, good and bad.

mod any_length;
mod corrupt;
mod dynamic;
mod tree;

use linmap_fdt::parse_dtb;
use linmap_memblock::{FdtError, FdtWarning, MemoryRegion, PA_LIMIT, RegionError, covers_only};
use linmap_vmsa::{Pa, PaRange};

use tree::{
    Map, Property, Tree, cells, error, everything, fill, fill_and_warn, one_gigabyte, range, string, wide,
};

/// RAM in two places. `/chosen` names these ranges as usable.
fn usable(ranges: &[u64]) -> Vec<u8> {
    Tree::new(2, 2, &[])
        .memory("memory@40000000", wide(&[0x4000_0000, 0x4000_0000, 0x8_0000_0000, 0x1_8000_0000]))
        .node("chosen", &[("linux,usable-memory-range", wide(ranges))])
        .blob()
}

#[test]
fn a_crash_kernel_uses_the_memory_that_it_is_given_and_no_other() {
    let memory = |ranges: &[u64]| -> Vec<PaRange> {
        let dtb = usable(ranges);
        let map = fill(&dtb).unwrap();
        map.regions().map(|region| region.range).collect()
    };
    let all = [range(0x4000_0000, 0x4000_0000), range(0x8_0000_0000, 0x1_8000_0000)];
    assert_eq!(memory(&[]), all, "an empty property says nothing");
    assert_eq!(memory(&[0x5000_0000, 0x1000_0000]), [range(0x5000_0000, 0x1000_0000)]);
    // Out of order, and partly where there is no RAM.
    let two = [0x8_0000_1000, 0x2000, 0x7fff_0000, 0x1_0000_0000];
    assert_eq!(memory(&two), [range(0x7fff_0000, 0x1_0000), range(0x8_0000_1000, 0x2000)]);
    // Whole pages alone.
    assert_eq!(memory(&[0x5000_0800, 0x1800]), [range(0x5000_1000, 0x1000)]);
}

#[test]
fn the_header_of_a_crashed_kernels_core_file_is_reserved() {
    let reserved = |cells_in_root, header: Vec<u8>| {
        let reg = if cells_in_root == 2 {
            wide(&[0x4000_0000, 0x4000_0000])
        } else {
            cells(&[0x4000_0000, 0x4000_0000])
        };
        let tree = Tree::new(cells_in_root, cells_in_root, &[]).memory("memory@40000000", reg);
        let dtb = tree.node("chosen", &[("linux,elfcorehdr", header)]).blob();
        fill(&dtb).unwrap().reserved().to_vec()
    };
    assert_eq!(reserved(2, wide(&[0x5000_0800, 0x1800])), [range(0x5000_0000, 0x2000)]);
    assert_eq!(reserved(1, cells(&[0x5000_0000, 0x1000])), [range(0x5000_0000, 0x1000)]);
    for short in [vec![], wide(&[0x5000_0000]), vec![0; 15]] {
        assert_eq!(reserved(2, short), []);
    }
}

#[test]
fn usable_memory_that_makes_no_sense_is_refused() {
    let dtb = usable(&[0x5000_0000]);
    let property = "linux,usable-memory-range";
    assert_eq!(error(&dtb), FdtError::RegLength { node: "chosen", property, len: 8, entry: 16 });
    let dtb = usable(&[u64::MAX, 2]);
    assert_eq!(error(&dtb), FdtError::Wraps { node: "chosen", address: u64::MAX, size: 2 });
    let dtb = usable(&[0x1000_0000, 0x1000]);
    assert_eq!(error(&dtb), FdtError::NothingMappable { memory: 0 });
}

#[test]
fn every_source_of_the_tree_reaches_the_map() {
    let dtb = everything();
    let map = fill(&dtb).unwrap();
    let ram = |start, len| MemoryRegion { range: range(start, len), no_map: false };
    assert_eq!(
        map.regions().collect::<Vec<_>>(),
        [
            ram(0x4000_0000, 0x1000_0000),
            MemoryRegion { range: range(0x5000_0000, 0x0020_0000), no_map: true },
            ram(0x5020_0000, 0x3fe0_0000),
            ram(0x8_0000_0000, 0x1_8000_0000),
        ],
        "touching memory nodes are one region"
    );
    assert_eq!(
        map.reserved(),
        [
            range(0x4400_0000, 0x0012_4000),
            range(0x4800_0000, 0x2000),
            range(0x6000_0000, 0x1000),
            range(0x6000_4000, 0x2000),
        ],
        "reservations grow to whole pages"
    );
    assert!(map.is_no_map(Pa(0x1000_0000)), "a no-map range outside RAM is recorded");
}

#[test]
fn any_number_of_cells_from_one_to_two_is_read() {
    let wanted = [range(0x8000_0000, 0x1000_0000), range(0xa000_0000, 0x2000_0000)];
    for (address_cells, size_cells) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let number =
            |count: u32, value: u64| if count == 1 { cells(&[value as u32]) } else { wide(&[value]) };
        let entry = |r: &PaRange| [number(address_cells, r.start.0), number(size_cells, r.len())].concat();
        let reg = wanted.iter().flat_map(entry).collect();
        let dtb = Tree::new(address_cells, size_cells, &[]).memory("memory@80000000", reg).blob();
        assert_eq!(fill(&dtb).unwrap().mappable(0x1000).collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn ram_shrinks_to_whole_pages_after_touching_entries_were_joined() {
    let dtb = Tree::new(2, 2, &[])
        .memory("memory@0", wide(&[0x800, 0x3000, 0x3800, 0x1000, 0x9000, 0x0fff]))
        .blob();
    let map = fill(&dtb).unwrap();
    assert_eq!(map.mappable(0x1000).collect::<Vec<_>>(), [range(0x1000, 0x3000)]);
}

#[test]
fn only_enabled_nodes_with_the_device_type_are_memory() {
    let ram = ("device_type", string("memory"));
    let reg = |start| ("reg", wide(&[start, 0x1000_0000]));
    let status = |value| ("status", string(value));
    let dtb = Tree::new(2, 2, &[])
        .node("memory@0", &[reg(0)])
        .node("memory@40000000", &[ram.clone(), reg(0x4000_0000), status("okay")])
        .node("memory@60000000", &[ram.clone(), reg(0x6000_0000), status("disabled")])
        .node("memory@80000000", &[ram.clone(), reg(0x8000_0000), status("ok")])
        .node("memory@a0000000", &[ram, reg(0xa000_0000), ("status", vec![])])
        .blob();
    let map = fill(&dtb).unwrap();
    let wanted = [range(0x4000_0000, 0x1000_0000), range(0x8000_0000, 0x1000_0000)];
    assert_eq!(map.mappable(0x1000).collect::<Vec<_>>(), wanted);
}

#[test]
fn reservations_of_size_zero_say_nothing() {
    let dtb = one_gigabyte()
        .reserved_memory(&[("none@41000800", &[("reg", wide(&[0x4100_0800, 0]))])])
        .node("chosen", &[("linux,initrd-start", cells(&[0])), ("linux,initrd-end", cells(&[0]))])
        .blob();
    assert_eq!(fill(&dtb).unwrap().reserved(), []);
}

#[test]
fn a_tree_without_memory_is_an_error() {
    let dtb = Tree::new(2, 2, &[]).blob();
    assert_eq!(error(&dtb), FdtError::NoMemoryNode);
    let dtb = Tree::new(2, 2, &[]).memory("memory@0", wide(&[0x800, 0x1000])).blob();
    assert_eq!(error(&dtb), FdtError::NothingMappable { memory: 0 });
    let all = [("reg", wide(&[0x4000_0000, 0x4000_0000])), ("no-map", vec![])];
    let dtb = one_gigabyte().reserved_memory(&[("all@40000000", &all)]).blob();
    assert_eq!(error(&dtb), FdtError::NothingMappable { memory: 0x4000_0000 });
}

#[test]
fn a_memory_node_without_reg_entries_is_an_error() {
    for properties in
        [&[("device_type", string("memory"))][..], &[("device_type", string("memory")), ("reg", vec![])]]
    {
        let dtb = Tree::new(2, 2, &[]).node("memory@0", properties).blob();
        assert_eq!(error(&dtb), FdtError::NoReg { node: "memory@0" });
    }
}

#[test]
fn cells_other_than_one_or_two_are_an_error() {
    for (address_cells, size_cells, property) in [
        (0, 2, "#address-cells"),
        (3, 2, "#address-cells"),
        (2, 0, "#size-cells"),
        (1, u32::MAX, "#size-cells"),
    ] {
        let dtb = Tree::new(address_cells, size_cells, &[]).memory("memory@0", vec![]).blob();
        assert_eq!(error(&dtb), FdtError::Cells { node: "/", property });
    }
}

#[test]
fn a_reg_that_is_no_whole_number_of_entries_is_an_error() {
    let dtb = Tree::new(2, 2, &[]).memory("memory@0", cells(&[0, 0, 0, 1, 2])).blob();
    assert_eq!(error(&dtb), FdtError::RegLength { node: "memory@0", property: "reg", len: 20, entry: 16 });
    let dtb = one_gigabyte().reserved_memory(&[("odd@0", &[("reg", vec![1, 2, 3])])]).blob();
    assert_eq!(error(&dtb), FdtError::RegLength { node: "odd@0", property: "reg", len: 3, entry: 16 });
}

#[test]
fn a_bank_of_size_zero_is_left_out_with_a_warning() {
    let dtb = one_gigabyte().memory("memory@90000000", wide(&[0x9000_0000, 0])).blob();
    let (map, warnings) = fill_and_warn(&dtb).unwrap();
    assert_eq!(map, fill(&one_gigabyte().blob()).unwrap());
    let warning = FdtWarning::ZeroSized { node: "memory@90000000", address: 0x9000_0000 };
    assert_eq!((&warnings.first[..], warnings.count), (&[warning][..], 1));
    // A machine with nothing but an empty bank has no memory.
    let dtb = Tree::new(2, 2, &[]).memory("memory@0", wide(&[0, 0])).blob();
    assert_eq!(error(&dtb), FdtError::NothingMappable { memory: 0 });
}

#[test]
fn a_region_that_wraps_is_an_error_wherever_it_stands() {
    let (address, size) = (u64::MAX - 0xfff, 0x2000);
    let reg = wide(&[address, size]);
    let wraps = |node| FdtError::Wraps { node, address, size };
    let dtb = Tree::new(2, 2, &[]).memory("memory@f", reg.clone()).blob();
    assert_eq!(error(&dtb), wraps("memory@f"));
    let dtb = one_gigabyte().reserved_memory(&[("high@f", &[("reg", reg)])]).blob();
    assert_eq!(error(&dtb), wraps("high@f"));
}

#[test]
fn a_region_beyond_the_address_limit_is_an_error_wherever_it_stands() {
    let beyond = range(PA_LIMIT.0 - 0x1000, 0x2000);
    let reg = wide(&[beyond.start.0, beyond.len()]);
    let above = |node| FdtError::AbovePaLimit { node, range: beyond };
    let dtb = Tree::new(2, 2, &[]).memory("memory@f", reg.clone()).blob();
    assert_eq!(error(&dtb), above("memory@f"));
    let dtb = one_gigabyte().reserved_memory(&[("high@f", &[("reg", reg), ("no-map", vec![])])]).blob();
    assert_eq!(error(&dtb), above("high@f"));
    let dtb =
        Tree::new(2, 2, &[(beyond.start.0, beyond.len())]).memory("memory@0", wide(&[0, 0x1000])).blob();
    assert_eq!(error(&dtb), above("/memreserve/"));
}

#[test]
fn overlapping_memory_is_merged_with_a_warning_that_gives_both_regions() {
    // The second entry was joined with the first by the time the third comes: still the second is
    // named.
    let reg = wide(&[0x4000_0000, 0x1000_0000, 0x5000_0000, 0x1000_0000]);
    let dtb = Tree::new(2, 2, &[])
        .memory("memory@40000000", reg)
        .memory("memory@5ffff000", wide(&[0x5fff_f000, 0x2000]))
        .blob();
    let (map, warnings) = fill_and_warn(&dtb).unwrap();
    assert!(map.mappable(0x1000).eq([range(0x4000_0000, 0x2000_1000)]));
    let warning = FdtWarning::Overlap {
        node: "memory@5ffff000",
        range: range(0x5fff_f000, 0x2000),
        other_node: "memory@40000000",
        other: range(0x5000_0000, 0x1000_0000),
    };
    assert_eq!((&warnings.first[..], warnings.count), (&[warning][..], 1));
}

#[test]
fn many_warnings_are_counted_and_soon_done() {
    let twice = wide(&[0x4000_0000, 0x1000].repeat(20_000));
    let dtb = Tree::new(2, 2, &[]).memory("memory@40000000", twice).blob();
    let started = std::time::Instant::now();
    let (_, warnings) = fill_and_warn(&dtb).unwrap();
    assert_eq!((warnings.first.len(), warnings.count), (8, 19_999));
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn usable_memory_of_a_node_stands_for_its_reg() {
    let usable = |value: &[u64]| ("linux,usable-memory", wide(value));
    let ram = || ("device_type", string("memory"));
    let reg = ("reg", wide(&[0x8000_0000, 0x4000_0000]));
    let tree = |value: &[u64]| {
        let properties = [ram(), usable(value), reg.clone()];
        one_gigabyte().node("memory@80000000", &properties).blob()
    };
    let own = range(0x4000_0000, 0x4000_0000);
    let map = fill(&tree(&[0x9000_0000, 0x100_0000, 0xa000_0000, 0x1000])).unwrap_or_default();
    assert!(map.mappable(0x1000).eq([own, range(0x9000_0000, 0x100_0000), range(0xa000_0000, 0x1000)]));
    // None of the node's memory is usable.
    assert!(fill(&tree(&[])).unwrap_or_default().mappable(0x1000).eq([own]));
    let dtb = one_gigabyte().node("memory@80000000", &[ram(), usable(&[0x9000_0000])]).blob();
    let property = "linux,usable-memory";
    assert_eq!(error(&dtb), FdtError::RegLength { node: "memory@80000000", property, len: 8, entry: 16 });
    let dtb = one_gigabyte().node("memory@80000000", &[ram(), usable(&[u64::MAX, 2])]).blob();
    assert_eq!(error(&dtb), FdtError::Wraps { node: "memory@80000000", address: u64::MAX, size: 2 });
}

#[test]
fn strings_end_at_their_first_nul_whatever_follows() {
    let padded = |text: &[u8]| [text, b"\0\0\xff"].concat();
    let dtb = Tree::new(2, 2, &[])
        .node(
            "memory@40000000",
            &[
                ("device_type", padded(b"memory")),
                ("status", padded(b"okay")),
                ("reg", wide(&[0x4000_0000, 0x4000_0000])),
            ],
        )
        .blob();
    assert_eq!(fill(&dtb).unwrap(), fill(&one_gigabyte().blob()).unwrap());
}

#[test]
fn reservations_of_the_old_tree_and_initrd_are_not_the_firmwares() {
    let old = [range(0x4800_0000, 0x1_2345), range(0x4900_0000, 0x20_0001)];
    for (entry, vacated) in [
        (old[0], true),
        (range(0x4800_0000, 0x1_3000), true),
        (range(0x4900_0000, 0x20_1000), true),
        (range(0x4800_0000, 0x1_4000), false),
        (range(0x47ff_f000, 0x1_4000), false),
        (range(0x4900_1000, 0x1000), false),
        (range(0x4800_0000, 0), false),
        (range(0x4800_0000, 0x120_1000), false),
    ] {
        assert_eq!(covers_only(entry, &old), vacated, "{entry}");
    }
    assert!(!covers_only(range(0, 0x1000), &[PaRange::default()]));
    let firmware = (0x4700_0000, 0x1000);
    let reserved = [(0x4800_0000, 0x1_2345), firmware, (0x4900_0000, 0x20_0001)];
    let dtb = Tree::new(2, 2, &reserved)
        .memory("memory@40000000", wide(&[0x4000_0000, 0x4000_0000]))
        .reserved_memory(&[("tee@50000000", &[("reg", wide(&[0x5000_0000, 0x1000])), ("no-map", vec![])])])
        .blob();
    let mut of_firmware = Map::new();
    of_firmware.fill_from_reservations(parse_dtb(&dtb).unwrap(), &old).unwrap();
    assert_eq!(of_firmware.reserved(), [range(0x4700_0000, 0x1000)]);
    assert!(of_firmware.is_no_map(Pa(0x5000_0000)) && of_firmware.memory_len() == 0);
    let all = fill(&dtb).unwrap();
    assert!(all.is_reserved(Pa(0x4800_0000)) && all.is_reserved(Pa(0x4900_0000)));
}

#[test]
fn more_regions_than_the_map_holds_are_an_error() {
    let reg = wide(&(0..33).flat_map(|i| [i * 0x2000, 0x1000]).collect::<Vec<_>>());
    let dtb = Tree::new(2, 2, &[]).memory("memory@0", reg).blob();
    let source = RegionError::Full { list: "memory", range: range(32 * 0x2000, 0x1000), capacity: 32 };
    assert_eq!(error(&dtb), FdtError::Regions { node: "memory@0", source });
    let memreserve: Vec<_> = (0..33).map(|i| (0x4000_0000 + i * 0x2000, 0x1000)).collect();
    let dtb =
        Tree::new(2, 2, &memreserve).memory("memory@40000000", wide(&[0x4000_0000, 0x1000_0000])).blob();
    let source =
        RegionError::Full { list: "reserved", range: range(0x4000_0000 + 32 * 0x2000, 0x1000), capacity: 32 };
    assert_eq!(error(&dtb), FdtError::Regions { node: "/memreserve/", source });
}

#[test]
fn an_initrd_that_makes_no_sense_is_an_error() {
    let chosen = |properties: &[Property]| one_gigabyte().node("chosen", properties).blob();
    let start = ("linux,initrd-start", cells(&[0x4800_0000]));
    let end = ("linux,initrd-end", wide(&[0x47ff_ffff]));
    let dtb = chosen(&[start.clone(), end.clone()]);
    let reversed = FdtError::InitrdReversed { start: Pa(0x4800_0000), end: Pa(0x47ff_ffff) };
    assert_eq!(error(&dtb), reversed);
    assert_eq!(
        error(&chosen(std::slice::from_ref(&start))),
        FdtError::InitrdHalf { missing: "linux,initrd-end" }
    );
    assert_eq!(error(&chosen(&[end])), FdtError::InitrdHalf { missing: "linux,initrd-start" });
    let odd = ("linux,initrd-end", vec![0; 12]);
    let wrong = FdtError::InitrdLength { property: "linux,initrd-end", len: 12 };
    assert_eq!(error(&chosen(&[start, odd])), wrong);
}
