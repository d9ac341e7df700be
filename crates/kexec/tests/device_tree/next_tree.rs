//! The next kernel's device tree has the changes, and everything else as before.

use crate::preserved::read_all;
use crate::tree::{Node, Property, full, memory, reserved_memory, root, waiting_cpu, wide};
use linmap_fdt::{DeviceTree, Token, WriteError, parse_dtb};
use linmap_kexec::{
    CrashMemory, MAX_PENNED, MAX_PRESERVED, NextTree, PreservedRange, Seeds, SpinTable, TreeError,
};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};

const INITRD: PaRange = PaRange::new(Pa(0x9000_0000), Pa(0x9fff_f123));
const NEW: NextTree<'static> = NextTree {
    bootargs: "console=ttyAMA0 quiet",
    initrd: Some(INITRD),
    seeds: Seeds::Removed,
    crash: None,
    spin_table: None,
    vacated: &[],
    preserved: &[],
};
const SPIN_TABLE: SpinTable<'static> =
    SpinTable { pen: PaRange::new(Pa(0x8900_0000), Pa(0x8900_1000)), release: Pa(0x8900_0ff8), cpus: &[] };
/// With two CPUs of [`full`], and without a third that could be in it.
const PENNED: SpinTable<'static> = SpinTable { cpus: &[2, 0], ..SPIN_TABLE };
const PRESERVED: [PreservedRange<'static>; 2] = [
    PreservedRange { label: "pages of the guest", range: PaRange::new(Pa(0x8a00_0000), Pa(0x8e00_0000)) },
    PreservedRange { label: "log", range: PaRange::new(Pa(0x8900_1000), Pa(0x8900_2000)) },
];
pub const USABLE: [PaRange; 2] =
    [PaRange::new(Pa(0x8f00_0000), Pa(0xa000_0000)), PaRange::new(Pa(0x8100_0000), Pa(0x8101_0000))];
pub const CRASH: CrashMemory<'static> =
    CrashMemory { usable: &USABLE, elf_core_header: PaRange::new(Pa(0x8100_f000), Pa(0x8100_f158)) };
pub const ALL: NextTree<'static> = NextTree {
    seeds: Seeds::New { kaslr: 0x0123_4567_89ab_cdef, rng: [0x5a; 32] },
    crash: Some(CRASH),
    spin_table: Some(SPIN_TABLE),
    preserved: &PRESERVED,
    ..NEW
};

pub fn rewritten(next: &NextTree<'_>, source: &[u8]) -> Vec<u8> {
    let mut output = vec![0xaa; next.measure(source).unwrap()];
    assert_eq!(next.rewrite(source, &mut output), Ok(output.len()));
    output
}

fn measure(next: &NextTree<'_>, source: &Node) -> Result<usize, TreeError> {
    next.measure(&source.blob())
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `reg` of a CPU that can be in a pen.
pub fn pennable(cpu: &Node) -> Option<u64> {
    (cpu.value("enable-method") == Some(b"spin-table\0")).then(|| number(cpu.value("reg").unwrap()))
}

/// What the tree has to say afterwards, by plain edits of it.
fn expected(next: &NextTree<'_>, source: &Node) -> Node {
    let mut tree = source.clone();
    let cells = |node: &Node| node.value("#size-cells").map(<[u8]>::to_vec);
    let is_wide = cells(&tree) == Some(vec![0, 0, 0, 2]);
    let range = |range: PaRange| match is_wide {
        true => wide(range.start.0, range.len()).to_vec(),
        false => vec![range.start.0 as u32, range.len() as u32],
    };

    let mut said = vec![Property::string("bootargs", next.bootargs)];
    let mut replaced = vec!["bootargs", "linux,initrd-start", "linux,initrd-end", "kaslr-seed", "rng-seed"];
    if next.crash.is_some() {
        replaced.extend(["linux,usable-memory-range", "linux,elfcorehdr"]);
    }
    if let Some(initrd) = next.initrd {
        said.push(Property::new("linux,initrd-start", initrd.start.0.to_be_bytes()));
        said.push(Property::new("linux,initrd-end", initrd.end.0.to_be_bytes()));
    }
    if let Seeds::New { kaslr, rng } = next.seeds {
        said.push(Property::new("kaslr-seed", kaslr.to_be_bytes()));
        said.push(Property::new("rng-seed", rng));
    }
    if let Some(crash) = next.crash {
        let usable: Vec<u32> = crash.usable.iter().copied().flat_map(range).collect();
        said.push(Property::cells("linux,usable-memory-range", &usable));
        said.push(Property::cells("linux,elfcorehdr", &range(crash.elf_core_header)));
    }
    if tree.child("chosen").is_none() {
        tree.children.push(Node::new("chosen", vec![]));
    }
    let chosen = tree.child_mut("chosen").unwrap();
    chosen.properties.retain(|property| !replaced.contains(&property.name.as_str()));
    chosen.properties.splice(0..0, said);

    let mut in_use = Vec::new();
    if let (Some(spin_table), Some(cpus)) = (next.spin_table, tree.child_mut("cpus")) {
        for cpu in &mut cpus.children {
            let Some(reg) = pennable(cpu) else { continue };
            if !spin_table.cpus.contains(&reg) {
                in_use.push(number(cpu.value("cpu-release-addr").unwrap()));
            } else {
                for property in &mut cpu.properties {
                    if property.name == "cpu-release-addr" {
                        let address = spin_table.release.0.to_be_bytes();
                        *property = Property::new(&property.name, &address[8 - property.value.len()..]);
                    }
                }
            }
        }
    }

    let mut nodes = Vec::new();
    if let Some(SpinTable { pen, .. }) = next.spin_table {
        let properties =
            vec![Property::string("compatible", "linmap,pen"), Property::cells("reg", &range(pen))];
        nodes.push(Node::new(&format!("linmap-pen@{:x}", pen.start.0), properties));
    }
    for preserved in next.preserved {
        let properties = vec![
            Property::string("compatible", "linmap,preserved"),
            Property::cells("reg", &range(preserved.range)),
            Property::string("label", preserved.label),
        ];
        nodes.push(Node::new(&format!("linmap-preserved@{:x}", preserved.range.start.0), properties));
    }
    if !nodes.is_empty() && tree.child("reserved-memory").is_none() {
        let cells = if is_wide { 2 } else { 1 };
        let made = Node { children: vec![], ..reserved_memory(cells) };
        tree.children.push(made);
    }
    if let Some(parent) = tree.child_mut("reserved-memory") {
        parent.children.retain(|child| match child.value("compatible") {
            Some(b"linmap,preserved\0") => false,
            Some(b"linmap,pen\0") => {
                let (start, len) = child.value("reg").map(|reg| reg.split_at(reg.len() / 2)).unwrap();
                let (start, len) = (number(start), number(len));
                let has = |release: &u64| (start..start + len).contains(release);
                next.spin_table.is_none_or(|new| new.pen.start.0 != start && in_use.iter().any(has))
            }
            _ => true,
        });
        parent.children.extend(nodes);
    }
    tree
}

/// Checks a rewritten tree against [`expected`], and all else in the blob.
pub fn check(next: &NextTree<'_>, source: &[u8]) -> Vec<u8> {
    let result = rewritten(next, source);
    assert_eq!(Node::read(&result), expected(next, &Node::read(source)));
    let (before, after) = (DeviceTree::parse(source).unwrap(), DeviceTree::parse(&result).unwrap());
    assert_eq!(after.reservations, before.reservations);
    assert_eq!((after.boot_cpu, after.last_compatible), (before.boot_cpu, before.last_compatible));
    assert!(after.strings.starts_with(before.strings));
    result
}

#[test]
fn what_is_named_is_replaced_and_all_else_is_kept() {
    check(&NextTree { spin_table: Some(PENNED), ..ALL }, &full().blob());
    for next in [NEW, ALL] {
        for source in [full(), root(2), root(2).with([memory(), Node::new("chosen", vec![])])] {
            check(&next, &source.blob());
        }
    }
}

#[test]
fn without_an_initrd_the_old_one_is_forgotten() {
    let result = check(&NextTree { initrd: None, ..NEW }, &full().blob());
    assert_eq!(Node::read(&result).child("chosen").unwrap().value("linux,initrd-end"), None);
}

#[test]
fn a_kernel_that_a_crash_kernel_starts_finds_the_memory_and_the_core_file_of_that() {
    let crash = check(&ALL, &full().blob());
    let of_crash = |blob: &[u8]| {
        let chosen = Node::read(blob).child("chosen").unwrap().clone();
        ["linux,elfcorehdr", "linux,usable-memory-range"].map(|name| chosen.value(name).map(<[u8]>::to_vec))
    };
    let [header, usable] = of_crash(&crash);
    assert_eq!(header.as_ref().map(Vec::len), Some(16));
    assert!(usable.as_ref().is_some_and(|usable| !usable.is_empty()));
    let next = check(&NextTree { crash: None, ..ALL }, &crash);
    assert_eq!(of_crash(&next), [header, usable]);
    assert_eq!(of_crash(&check(&NextTree { crash: None, ..ALL }, &root(2).blob())), [None, None]);
}

#[test]
fn seeds_of_the_tree_are_never_passed_on() {
    let chosen = |seeds| {
        let tree = Node::read(&check(&NextTree { seeds, ..NEW }, &full().blob()));
        let chosen = tree.child("chosen").unwrap().clone();
        ["kaslr-seed", "rng-seed"].map(|name| chosen.value(name).map(<[u8]>::to_vec))
    };
    assert_eq!(chosen(Seeds::Removed), [None, None]);
    let new = Seeds::New { kaslr: 0x0102, rng: [9; 32] };
    assert_eq!(chosen(new), [Some(vec![0, 0, 0, 0, 0, 0, 1, 2]), Some(vec![9; 32])]);
}

#[test]
fn printing_seeds_does_not_tell_them() {
    let seeds = Seeds::New { kaslr: 0x1234_5678, rng: [0x77; 32] };
    assert_eq!(format!("{seeds:?}"), "New");
}

#[test]
fn cpus_in_the_pen_watch_its_word_and_others_stay() {
    let result = Node::read(&check(&NextTree { spin_table: Some(PENNED), ..NEW }, &full().blob()));
    let cpus = result.child("cpus").unwrap();
    let release = |cpu: usize| cpus.children[cpu].value("cpu-release-addr").unwrap().to_vec();
    assert_eq!(release(0), SPIN_TABLE.release.0.to_be_bytes());
    assert_eq!(release(1), 0x1234u64.to_be_bytes());
    assert_eq!(release(2), (SPIN_TABLE.release.0 as u32).to_be_bytes());
    assert_eq!(release(3), 0x8800_0008u64.to_be_bytes());
}

#[test]
fn a_cpu_in_the_pen_that_the_next_kernel_would_not_look_for_there_is_refused() {
    // An unknown CPU, one that PSCI starts, and too many.
    for reg in [1, 4, 0x1_0000_0000] {
        let spin_table = Some(SpinTable { cpus: &[2, reg], ..SPIN_TABLE });
        let next = NextTree { spin_table, ..NEW };
        assert_eq!(measure(&next, &full()), Err(TreeError::PennedUnknown { reg }));
    }
    let many: Vec<u64> = (0..=MAX_PENNED as u64).collect();
    let next = NextTree { spin_table: Some(SpinTable { cpus: &many, ..SPIN_TABLE }), ..NEW };
    assert_eq!(measure(&next, &full()), Err(TreeError::TooManyPenned { count: MAX_PENNED + 1 }));
    // As many as that, in nodes of any order.
    let cpus = many[1..].iter().rev().map(|&number| waiting_cpu(number, 0, 2));
    let source = root(2).with([Node::new("cpus", vec![]).with(cpus)]);
    check(
        &NextTree { spin_table: Some(SpinTable { cpus: &many[1..], ..SPIN_TABLE }), ..NEW },
        &source.blob(),
    );
}

#[test]
fn a_later_pen_replaces_the_earlier_one_and_no_pen_leaves_it() {
    let first = rewritten(&NextTree { spin_table: Some(PENNED), ..ALL }, &full().blob());
    let pen = PaRange::new(Pa(0x8e00_0000), Pa(0x8e00_2000));
    let second = SpinTable { pen, release: Pa(0x8e00_1000), cpus: &[0, 2, 3] };
    let pens = |tree: &[u8]| {
        let tree = Node::read(tree);
        let children = tree.child("reserved-memory").unwrap().children.clone();
        let names = children.into_iter().map(|child| child.name);
        names.filter(|name| name.starts_with("linmap-pen")).collect::<Vec<_>>()
    };
    assert_eq!(pens(&check(&NextTree { spin_table: Some(second), ..ALL }, &first)), ["linmap-pen@8e000000"]);
    assert_eq!(pens(&check(&NextTree { spin_table: None, ..ALL }, &first)), ["linmap-pen@89000000"]);
    // 2 was not called from the first, and is still there.
    let second = NextTree { spin_table: Some(SpinTable { cpus: &[0], ..second }), ..ALL };
    let both = ["linmap-pen@89000000", "linmap-pen@8e000000"];
    let tree = check(&second, &first);
    assert_eq!(pens(&tree), both);
    assert_eq!(rewritten(&second, &tree), tree);
}

#[test]
fn kept_ranges_replace_those_of_the_generation_before() {
    let first = rewritten(&ALL, &full().blob());
    let names = |tree: &[u8]| {
        let tree = Node::read(tree);
        let children = tree.child("reserved-memory").unwrap().children.clone();
        children.into_iter().map(|child| child.name).collect::<Vec<_>>()
    };
    let preserved =
        [PreservedRange { range: PaRange::new(Pa(0x8c00_0000), Pa(0x8c00_1000)), ..PRESERVED[0] }];
    let second = check(&NextTree { preserved: &preserved, ..NEW }, &first);
    assert_eq!(names(&second), ["firmware@88000000", "linmap-pen@89000000", "linmap-preserved@8c000000"]);
    assert_eq!(names(&check(&NEW, &second)), ["firmware@88000000", "linmap-pen@89000000"]);
}

#[test]
fn a_tree_of_one_cell_gets_ranges_of_one_cell() {
    for source in [root(1), root(1).with([reserved_memory(1)])] {
        let result = Node::read(&check(&ALL, &source.blob()));
        assert_eq!(result.child("chosen").unwrap().value("linux,elfcorehdr").map(<[u8]>::len), Some(8));
    }
    let range = PaRange::new(Pa(0x1_0000_0000), Pa(0x1_0000_1000));
    let preserved = [PreservedRange { label: "high", range }];
    let too_few = TreeError::Write(WriteError::TooFewCells {
        address: range.start.0,
        size: range.len(),
        address_cells: 1,
        size_cells: 1,
    });
    assert_eq!(measure(&NextTree { preserved: &preserved, ..NEW }, &root(1)), Err(too_few));
}

#[test]
fn a_root_without_cells_is_refused_only_when_a_range_is_written() {
    let source = Node::new("", vec![Property::cells("#address-cells", &[2])]);
    assert_eq!(measure(&ALL, &source), Err(TreeError::RootCells { property: "#size-cells" }));
    check(&NEW, &source.blob());
    let source = Node::new("", vec![Property::cells("#address-cells", &[3])]);
    assert_eq!(measure(&ALL, &source), Err(TreeError::RootCells { property: "#address-cells" }));
}

#[test]
fn of_a_property_that_is_there_twice_the_first_counts_as_for_readers() {
    let mut source = root(2).with([memory(), reserved_memory(2)]);
    let again = [Property::cells("#address-cells", &[1]), Property::cells("#size-cells", &[1])];
    source.properties.extend(again.clone());
    source.child_mut("reserved-memory").unwrap().properties.extend(again);
    // A crash kernel has no memory where something is preserved.
    let result = rewritten(&NextTree { crash: None, ..ALL }, &source.blob());
    let fdt = parse_dtb(&result).unwrap();
    let mut memory = Memblock::<64>::new();
    memory.fill_from_fdt(fdt).unwrap();
    let read = read_all(fdt, &memory, &[]).unwrap();
    assert_eq!(read[..], PRESERVED);
}

#[test]
fn nothing_is_reserved_where_linux_would_not_read_it() {
    let refused = |reserved: Node, wrong| {
        let source = root(2).with([reserved]);
        let error = measure(&ALL, &source).unwrap_err();
        assert!(matches!(error, TreeError::ReservedMemory { property, .. } if property == wrong), "{error}");
        check(&NEW, &source.blob());
    };
    refused(reserved_memory(1), "#address-cells");
    let mut without = reserved_memory(2);
    without.properties.remove(1);
    refused(without.clone(), "#size-cells");
    without.properties.insert(0, Property::cells("#size-cells", &[2]));
    without.properties.retain(|property| property.name != "ranges");
    refused(without, "ranges");
}

#[test]
fn rewriting_twice_is_rewriting_once() {
    let sources = [full(), root(2), root(2).with([Node::new("chosen", vec![])])];
    let others = [
        NextTree::default(),
        NextTree { preserved: &[], ..ALL },
        NextTree { spin_table: Some(SPIN_TABLE), ..NEW },
    ];
    for source in sources {
        let once = rewritten(&ALL, &source.blob());
        assert_eq!(rewritten(&ALL, &once), once);
        for other in others {
            assert_eq!(rewritten(&ALL, &rewritten(&other, &once)), once);
        }
    }
}

#[test]
fn where_initrd_and_core_header_are_and_what_the_seeds_are_changes_no_length() {
    let initrd = PaRange::new(Pa(0x8100_0000), Pa(0x8100_0001));
    let crash = CrashMemory { elf_core_header: USABLE[0], ..CRASH };
    let seeds = Seeds::New { kaslr: 0, rng: [0; 32] };
    let other = NextTree { initrd: Some(initrd), crash: Some(crash), seeds, ..ALL };
    assert_eq!(measure(&other, &full()), measure(&ALL, &full()));
}

#[test]
fn bytes_after_the_tree_are_ignored() {
    let mut padded = full().blob();
    padded.resize(0x1_0000, 0xee);
    assert_eq!(rewritten(&ALL, &padded), rewritten(&ALL, &full().blob()));
}

#[test]
fn a_buffer_that_is_too_small_is_left_as_it_was() {
    let needed = measure(&ALL, &full()).unwrap();
    let capacity = needed - 1;
    let mut output = vec![0xaa; capacity];
    assert_eq!(ALL.rewrite(&full().blob(), &mut output), Err(TreeError::NoRoom { needed, capacity }));
    assert!(output.iter().all(|&byte| byte == 0xaa));
}

#[test]
fn a_nul_in_a_string_is_refused() {
    let next = NextTree { bootargs: "quiet\0root=x", ..NEW };
    assert_eq!(measure(&next, &full()), Err(TreeError::Nul { property: "bootargs", at: 5 }));
    let preserved = [PreservedRange { label: "\0", ..PRESERVED[0] }];
    let next = NextTree { preserved: &preserved, ..NEW };
    assert_eq!(measure(&next, &full()), Err(TreeError::Nul { property: "label", at: 0 }));
}

#[test]
fn an_edited_node_that_is_there_twice_is_refused() {
    for node in ["chosen", "cpus", "reserved-memory"] {
        let source =
            Node::new("", vec![]).with([node, &format!("{node}@0")].map(|name| Node::new(name, vec![])));
        // Header, reservations, the root's beginning, the first child.
        let offset = 40 + 32 + 8 + 4 + (node.len() + 1).next_multiple_of(4) + 4;
        assert_eq!(measure(&NEW, &source), Err(TreeError::SecondNode { node, offset }));
    }
}

#[test]
fn a_pen_that_cpus_would_not_find_is_refused() {
    let with = |pen, release| {
        let next = NextTree { spin_table: Some(SpinTable { pen, release, cpus: &[0] }), ..NEW };
        measure(&next, &root(2).with([Node::new("cpus", vec![]).with([waiting_cpu(0, 0, 1)])]))
    };
    let pen = SPIN_TABLE.pen;
    for release in [pen.start.0 + 4, pen.end.0, pen.start.0 - 8, u64::MAX - 7].map(Pa) {
        assert_eq!(with(pen, release), Err(TreeError::ReleaseOutsidePen { release, pen }));
    }
    for len in [0, 0x800, 0x1800] {
        let pen = PaRange::new(pen.start, Pa(pen.start.0 + len));
        assert_eq!(with(pen, pen.start), Err(TreeError::PenUnaligned { pen }));
    }
    let high = PaRange::new(Pa(0x1_0000_0000), Pa(0x1_0000_1000));
    let error = with(high, high.start).unwrap_err();
    assert!(matches!(error, TreeError::ReleaseTooHigh { release, .. } if release == high.start), "{error}");
}

#[test]
fn a_cpu_whose_release_address_is_no_number_stays_as_it_is() {
    let mut cpu = waiting_cpu(0, 0, 2);
    cpu.properties[1].value = vec![0; 5];
    let source = root(2).with([Node::new("cpus", vec![]).with([cpu.clone()])]);
    let result = Node::read(&rewritten(&ALL, &source.blob()));
    assert_eq!(result.child("cpus").unwrap().children, [cpu]);
    let next = NextTree { spin_table: Some(SpinTable { cpus: &[0], ..SPIN_TABLE }), ..NEW };
    assert_eq!(measure(&next, &source), Err(TreeError::PennedUnknown { reg: 0 }));
}

#[test]
fn tokens_that_say_nothing_are_preserved_and_looked_past() {
    let filler = || Property::new("filler", []);
    let mut cpu = waiting_cpu(0, 0, 2);
    cpu.properties.insert(0, filler());
    let mut foreign = memory();
    foreign.properties.push(filler());
    let mut source = root(2).with([Node::new("cpus", vec![]).with([cpu]), reserved_memory(2), foreign]);
    let preserved = Property::string("compatible", "linmap,preserved");
    let removed =
        Node::new("linmap-preserved@0", vec![filler(), preserved]).with([Node::new("child", vec![filler()])]);
    source.child_mut("reserved-memory").unwrap().children.push(removed);
    let mut blob = source.blob();

    // A property without a value is three words. Three NOPs may replace it.
    let nops = [[0, 0, 0, 4]; 3].concat();
    let fillers: Vec<_> = DeviceTree::parse(&blob)
        .unwrap()
        .tokens()
        .map(Result::unwrap)
        .filter(|piece| matches!(piece.token, Token::Property { name: "filler", .. }))
        .map(|piece| (piece.offset, piece.bytes.len()))
        .collect();
    assert_eq!(fillers.len(), 4);
    for (at, len) in fillers {
        blob[at..at + len].copy_from_slice(&nops);
    }
    let spin_table = Some(SpinTable { cpus: &[0], ..SPIN_TABLE });
    let result = check(&NextTree { spin_table, ..ALL }, &blob);
    let tree = DeviceTree::parse(&result).unwrap();
    let left = tree.tokens().map(Result::unwrap).filter(|piece| piece.token == Token::Nop);
    assert_eq!(left.count(), 6);
}

#[test]
fn kept_ranges_that_the_next_kernel_would_refuse_are_not_written() {
    let with = |preserved: &[PreservedRange<'_>]| measure(&NextTree { preserved, ..ALL }, &full());
    let at = |start, end| PreservedRange { label: "", range: PaRange::new(Pa(start), Pa(end)) };
    for range in [at(0x8a00_0000, 0x8a00_0800), at(0x8a00_0010, 0x8a00_2000), at(0x8a00_0000, 0)] {
        assert_eq!(with(&[range]), Err(TreeError::PreservedUnaligned { range: range.range }));
    }
    let [first, second] = [at(0x8a00_0000, 0x8a00_2000), at(0x8a00_1000, 0x8a00_3000)];
    let overlap = TreeError::PreservedOverlap { range: second.range, other: first.range };
    assert_eq!(with(&[first, second]), Err(overlap));
    let range = SPIN_TABLE.pen;
    let overlap = TreeError::PreservedOverlap { range, other: range };
    assert_eq!(with(&[PreservedRange { label: "", range }]), Err(overlap));
    let many: Vec<_> = (0..MAX_PRESERVED as u64 + 1).map(|page| at(page << 12, (page + 1) << 12)).collect();
    assert_eq!(with(&many), Err(TreeError::TooManyPreserved { count: MAX_PRESERVED + 1 }));
    assert!(with(&many[1..]).is_ok());
}

#[test]
fn a_crash_kernel_that_would_not_find_its_parts_is_refused() {
    let with = |crash, initrd| measure(&NextTree { crash: Some(crash), initrd, ..NEW }, &full());
    let outside = PaRange::new(USABLE[1].start, Pa(USABLE[1].end.0 + 1));
    let error = TreeError::OutsideUsable { what: "ELF core header", range: outside };
    assert_eq!(with(CrashMemory { elf_core_header: outside, ..CRASH }, None), Err(error));
    let error = TreeError::OutsideUsable { what: "initrd", range: outside };
    assert_eq!(with(CRASH, Some(outside)), Err(error));
    for usable in [&[][..], &[USABLE[0]; 3]] {
        let error = TreeError::UsableCount { count: usable.len() };
        assert_eq!(with(CrashMemory { usable, ..CRASH }, None), Err(error));
    }
}

#[test]
fn a_property_name_longer_than_the_specification_allows_does_no_harm() {
    let long = "snps,a-property-name-of-more-than-thirty-one-characters";
    let mut source = Node::new("", vec![Property::new("a", [])]).blob();
    // vm-fdt checks names, so the test inserts the long name afterwards, at the end of the tree,
    // where the name is.
    assert!(source.ends_with(b"a\0"));
    source.truncate(source.len() - 2);
    source.extend(long.bytes().chain([0]));
    let total = source.len() as u32;
    source[4..8].copy_from_slice(&total.to_be_bytes());
    source[32..36].copy_from_slice(&(long.len() as u32 + 1).to_be_bytes());
    assert_eq!(Node::read(&check(&NEW, &source)).properties[0].name, long);
}
