//! Findings, each with a tree that has it and one that just does not.

use linmap_vmsa::{
    Access, Attributes, Descriptor, Execute, Geometry, Granule, HardwareUpdates, Level, MemoryType, Pa,
    Regime, Shareability, Stage2, TablePermissions,
};

use super::machine::{Machine, RAM, root};
use crate::dump::guest::{Root, RootRegister};
use crate::dump::meaning::{ACCESSED, AP2, CONTIGUOUS, DIRTY_MODIFIER};

/// 1 GiB of addresses: a root at level 2.
fn small() -> Geometry {
    Geometry::new(Granule::K4, 30, 48).unwrap()
}

const LEAVES: u64 = RAM + 0x1000;
const SECOND: u64 = RAM + 0x2000;
/// Behind the tables. Memory is 8 MiB.
const DATA: u64 = RAM + 0x20_0000;

/// A root with one table of pages.
fn machine() -> (Machine, Root) {
    let mut machine = Machine::new(8 << 20);
    machine.set(RAM, Descriptor::table(small(), Pa(LEAVES)).0);
    (machine, root(small(), Pa(RAM)))
}

fn page(machine: &mut Machine, index: u64, pa: u64, attributes: Attributes) {
    machine.set(LEAVES + 8 * index, Descriptor::page(small(), Pa(pa), attributes).0);
}

fn kinds(machine: &mut Machine, roots: &[Root]) -> Vec<&'static str> {
    machine.findings(roots).into_iter().map(|(kind, _)| kind).collect()
}

const DATA_PAGE: Attributes = Attributes::KERNEL_DATA;

#[test]
fn a_page_that_one_alias_writes_and_another_executes_is_found() {
    let (mut machine, root) = machine();
    page(&mut machine, 3, DATA, DATA_PAGE);
    page(&mut machine, 9, DATA, Attributes::KERNEL_TEXT);
    let found = machine.findings(std::slice::from_ref(&root));
    let expected = "0x40200000-0x40201000 is writable by EL1 at TTBR0_EL1 0x0000000000003000 (L3 entry 3 \
                    of \
                    table 0x40001000), executable by EL1 at TTBR0_EL1 0x0000000000009000 (L3 entry 9 of \
                    table \
                    0x40001000)";
    assert_eq!(found, [("w+x", expected.to_owned())]);
    // The next page, or read-only: nothing.
    page(&mut machine, 9, DATA + 0x1000, Attributes::KERNEL_TEXT);
    assert_eq!(machine.findings(std::slice::from_ref(&root)), []);
    page(&mut machine, 9, DATA, Attributes::KERNEL_TEXT);
    page(&mut machine, 3, DATA, Attributes::KERNEL_RODATA);
    assert_eq!(machine.findings(&[root]), []);
}

#[test]
fn one_leaf_that_allows_both_is_found_unless_a_table_takes_one_away() {
    let (mut machine, root) = machine();
    page(&mut machine, 3, DATA, Attributes { execute: Execute::Kernel, ..DATA_PAGE });
    assert_eq!(kinds(&mut machine, std::slice::from_ref(&root)), ["w+x"]);
    let table = Descriptor::table(small(), Pa(LEAVES)).0;
    for permissions in [TablePermissions::NO_KERNEL_EXECUTE, TablePermissions::READ_ONLY] {
        machine.set(RAM, table | permissions.bits(Regime::El1And0));
        assert_eq!(kinds(&mut machine, std::slice::from_ref(&root)), [""; 0]);
    }
    // TCR.HPD: tables take nothing away.
    let hpd = Root { has_table_permissions: false, ..root.clone() };
    assert_eq!(kinds(&mut machine, &[hpd]), ["w+x"]);
    let wxn = Root { writable_never_executes: true, ..root };
    machine.set(RAM, table);
    assert_eq!(kinds(&mut machine, &[wxn]), [""; 0]);
}

#[test]
fn a_clean_page_counts_as_writable_where_hardware_makes_it_so() {
    let (mut machine, root) = machine();
    page(&mut machine, 3, DATA, Attributes::KERNEL_TEXT);
    machine.set(LEAVES + 24, machine.get(LEAVES + 24) | DIRTY_MODIFIER);
    assert_eq!(kinds(&mut machine, std::slice::from_ref(&root)), [""; 0]);
    let with = Root { updates: HardwareUpdates::AccessedAndDirty, ..root };
    assert_eq!(kinds(&mut machine, &[with]), ["w+x"]);
}

/// A second tree of one table, with one page.
fn other(machine: &mut Machine, geometry: Geometry, register: RootRegister, attributes: Attributes) -> Root {
    machine.set(SECOND, Descriptor::table(geometry, Pa(SECOND + 0x1000)).0);
    machine.set(SECOND + 0x1008, Descriptor::page(geometry, Pa(DATA), attributes).0);
    Root { register, ..root(geometry, Pa(SECOND)) }
}

#[test]
fn aliases_are_judged_over_all_roots_and_by_who_they_serve() {
    let (mut machine, lower) = machine();
    page(&mut machine, 3, DATA, Attributes::USER_TEXT);
    let upper = other(&mut machine, small(), RootRegister::Ttbr1El1, DATA_PAGE);
    // The kernel writes code of user space: every kernel does.
    assert_eq!(kinds(&mut machine, &[lower.clone(), upper.clone()]), ["code-writable-from-above"]);
    page(&mut machine, 3, DATA, Attributes::USER_DATA);
    let upper = other(&mut machine, small(), RootRegister::Ttbr1El1, Attributes::KERNEL_TEXT);
    let found = machine.findings(&[lower, upper]);
    assert_eq!(found[0].0, "w+x");
    assert!(found[0].1.contains("writable by EL0") && found[0].1.contains("executable by EL1"), "{found:?}");
}

#[test]
fn a_guest_that_may_write_what_el2_executes_is_found() {
    let mut machine = Machine::new(8 << 20);
    let stage_2 = Geometry::stage_2(Granule::K4, 33, 40, Stage2::Base).unwrap();
    // The root is eight tables.
    let (tables, leaves) = (RAM + 0x1_0000, RAM + 0x1_8000);
    machine.set(tables, Descriptor::table(stage_2, Pa(leaves)).0);
    machine.set(leaves, Descriptor::page(stage_2, Pa(DATA), Attributes::GUEST_RAM).0);
    let guest = root(stage_2, Pa(tables));
    let hypervisor = Geometry::new(Granule::K4, 30, 40).unwrap().in_regime(Regime::El2);
    let hypervisor = other(&mut machine, hypervisor, RootRegister::Ttbr0El2, Attributes::KERNEL_TEXT);
    assert_eq!((stage_2.start_level(), stage_2.root_tables()), (Level::L2, 8));
    assert!(kinds(&mut machine, std::slice::from_ref(&guest)).iter().all(|kind| *kind != "w+x"));
    let found = machine.findings(&[guest.clone(), hypervisor.clone()]);
    assert!(found.iter().any(|(kind, text)| *kind == "w+x" && text.contains("VTTBR_EL2")), "{found:?}");
    let read_only = Attributes { access: Access::GuestReadOnly, ..Attributes::GUEST_RAM };
    machine.set(leaves, Descriptor::page(stage_2, Pa(DATA), read_only).0);
    assert!(kinds(&mut machine, &[guest, hypervisor]).iter().all(|kind| *kind != "w+x"));
}

#[test]
fn aliases_with_other_memory_types_are_found() {
    let (mut machine, root) = machine();
    let roots = [root];
    page(&mut machine, 3, DATA, DATA_PAGE);
    page(&mut machine, 4, DATA, Attributes { memory: MemoryType::NormalNonCacheable, ..DATA_PAGE });
    let found = machine.findings(&roots);
    assert_eq!(found[0].0, "memory-type-mismatch");
    assert!(found[0].1.contains("is MEM/NORMAL at") && found[0].1.contains("MEM/NORMAL-NC at"), "{found:?}");
    // Tags are no mismatch; nor is the next page.
    page(&mut machine, 4, DATA, Attributes { memory: MemoryType::NormalTagged, ..DATA_PAGE });
    assert_eq!(kinds(&mut machine, &roots), [""; 0]);
    page(&mut machine, 4, DATA + 0x1000, Attributes::DEVICE);
    assert_eq!(kinds(&mut machine, &roots), [""; 0]);
    page(&mut machine, 4, DATA, Attributes { shareability: Shareability::Non, ..DATA_PAGE });
    assert_eq!(kinds(&mut machine, &roots), ["shareability-mismatch"]);
    // Non-cacheable memory has no shareability of its own.
    let nc = Attributes { memory: MemoryType::NormalNonCacheable, ..DATA_PAGE };
    page(&mut machine, 3, DATA, nc);
    page(&mut machine, 4, DATA, Attributes { shareability: Shareability::Non, ..nc });
    assert_eq!(kinds(&mut machine, &roots), [""; 0]);
}

#[test]
fn blocks_of_64_tib_are_judged_by_their_ends() {
    // 128 tables of 1 GiB blocks, and one page that is executable within them.
    let g = Geometry::K4_48;
    let mut machine = Machine::new(1 << 20);
    for table in 0..128u64 {
        machine.set(RAM + 8 * table, Descriptor::table(g, Pa(RAM + ((table + 1) << 12))).0);
        for index in 0..512 {
            let pa = Pa(((table << 9) + index) << 30);
            let block = Descriptor::leaf(g, Level::L1, pa, DATA_PAGE).unwrap();
            machine.set(RAM + ((table + 1) << 12) + 8 * index, block.0);
        }
    }
    let pages = RAM + (129 << 12);
    machine.set(RAM + 8 * 200, Descriptor::table(g, Pa(pages)).0);
    machine.set(pages, Descriptor::table(g, Pa(pages + 0x1000)).0);
    machine.set(pages + 0x1000, Descriptor::table(g, Pa(pages + 0x2000)).0);
    let text = Descriptor::page(g, Pa(0x3123_4567_8000), Attributes::KERNEL_TEXT);
    machine.set(pages + 0x2000, text.0);
    let found = machine.findings(&[root(g, Pa(RAM))]);
    let both: Vec<_> = found.iter().filter(|(kind, _)| *kind == "w+x").collect();
    assert_eq!(both.len(), 1);
    assert!(both[0].1.starts_with("0x312345678000-0x312345679000 is writable"), "{both:?}");
    assert!(both[0].1.contains("0x0000312345678000 (L1 entry 141 of table 0x40063000)"), "{both:?}");
}

/// A run of 16 pages from `pa` on.
fn run(machine: &mut Machine, pa: u64) {
    for index in 0..16 {
        let attributes = Attributes { contiguous: true, ..DATA_PAGE };
        page(machine, index, pa + (index << 12), attributes);
    }
}

fn change(machine: &mut Machine, index: u64, bits: u64) {
    machine.set(LEAVES + 8 * index, machine.get(LEAVES + 8 * index) ^ bits);
}

#[test]
fn contiguous_runs_that_are_uneven_or_misaligned_are_found() {
    let (mut machine, root) = machine();
    let roots = [root.clone()];
    let found = |machine: &mut Machine, roots: &[Root]| machine.findings(roots).pop();
    run(&mut machine, DATA);
    assert_eq!(found(&mut machine, &roots), None);
    for (bits, name) in [
        (ACCESSED, "uneven: its entries differ in AF"),
        (AP2, "uneven: its entries differ in AP"),
        (0b100, "uneven: its entries differ in memory type"),
        (1 << 53, "uneven: its entries differ in XN"),
        (CONTIGUOUS, "incomplete: the bit is missing in 1 of them"),
        (1, "incomplete: the bit is missing in 1 of them"),
        (1 << 13, "maps addresses that are not consecutive"),
    ] {
        change(&mut machine, 5, bits);
        let (kind, text) = found(&mut machine, &roots).unwrap();
        assert_eq!(kind, "uneven-run");
        assert!(text.contains(name) && text.contains("L3 entry 0 of table 0x40001000"), "{name}: {text}");
        change(&mut machine, 5, bits);
    }
    run(&mut machine, DATA + 0x1000);
    let (_, text) = found(&mut machine, &roots).unwrap();
    assert!(text.contains("misaligned: it starts at no multiple of 64K"), "{text}");
    // Software's bits are ignored.
    run(&mut machine, DATA);
    change(&mut machine, 5, 1 << 55);
    assert_eq!(found(&mut machine, &roots), None);
}

#[test]
fn flags_that_hardware_updates_may_differ_within_a_run() {
    let (mut machine, root) = machine();
    run(&mut machine, DATA);
    change(&mut machine, 5, ACCESSED);
    let with = |updates| [Root { updates, ..root.clone() }];
    let (none, ha) = (with(HardwareUpdates::Off), with(HardwareUpdates::Accessed));
    let hd = with(HardwareUpdates::AccessedAndDirty);
    assert_eq!(kinds(&mut machine, &none), ["uneven-run"]);
    assert_eq!(kinds(&mut machine, &ha), [""; 0]);
    for index in 0..16 {
        change(&mut machine, index, DIRTY_MODIFIER);
    }
    change(&mut machine, 6, AP2);
    assert_eq!(kinds(&mut machine, &ha), ["uneven-run"]);
    assert_eq!(kinds(&mut machine, &hd), [""; 0]);
    // Without DBM the permission is software's.
    for index in 0..16 {
        change(&mut machine, index, DIRTY_MODIFIER);
    }
    assert_eq!(kinds(&mut machine, &hd), ["uneven-run"]);
}

#[test]
fn a_table_that_two_entries_lead_to_is_named_with_both() {
    let (mut machine, root) = machine();
    page(&mut machine, 3, DATA, DATA_PAGE);
    machine.set(RAM + 8 * 7, machine.get(RAM));
    let expected = "table 0x40001000 is reached through 2 entries: TTBR0_EL1 0x0000000000000000 (L2 entry 0 \
                    of table 0x40000000), TTBR0_EL1 0x0000000000e00000 (L2 entry 7 of table 0x40000000)";
    assert_eq!(machine.findings(std::slice::from_ref(&root)), [("shared-table", expected.to_owned())]);
    machine.set(RAM + 8 * 7, Descriptor::table(small(), Pa(SECOND)).0);
    assert_eq!(machine.findings(&[root]), []);
}

#[test]
fn a_table_of_two_roots_is_named_with_both() {
    let (mut machine, lower) = machine();
    let mut upper = other(&mut machine, small(), RootRegister::Ttbr1El1, DATA_PAGE);
    assert_eq!(machine.findings(&[lower.clone(), upper.clone()]), []);
    machine.set(SECOND + 8, machine.get(RAM));
    let found = machine.findings(&[lower.clone(), upper.clone()]);
    assert_eq!(found[0].0, "shared-table");
    assert!(found[0].1.contains("from TTBR0_EL1") && found[0].1.contains("from TTBR1_EL1"), "{found:?}");
    upper.table = lower.table;
    let found = machine.findings(&[lower, upper]);
    assert!(found[0].1.contains("from TTBR0_EL1 as its root and from TTBR1_EL1 as its root"), "{found:?}");
}

#[test]
fn a_table_outside_memory_is_named() {
    let (mut machine, root) = machine();
    let roots = [root];
    machine.set(RAM + 8, Descriptor::table(small(), Pa(RAM + (8 << 20))).0);
    let expected = "TTBR0_EL1 0x0000000000200000 (L2 entry 1 of table 0x40000000) leads to 0x40800000, which \
                    is no memory";
    assert_eq!(machine.findings(&roots), [("table-outside-memory", expected.to_owned())]);
    machine.set(RAM + 8, Descriptor::table(small(), Pa(RAM + (8 << 20) - 0x1000)).0);
    assert_eq!(machine.findings(&roots), []);
}

#[test]
fn encodings_that_are_reserved_or_unpredictable_are_named() {
    let (mut machine, root) = machine();
    let data = Descriptor::page(small(), Pa(DATA), DATA_PAGE).0;
    let names = |machine: &mut Machine, word, root: &Root| {
        machine.set(LEAVES + 8, word);
        machine.findings(std::slice::from_ref(root)).into_iter().next().unwrap_or_default()
    };
    assert_eq!(names(&mut machine, data, &root).0, "");
    assert_eq!(names(&mut machine, data & !2, &root).0, "reserved-encoding");
    for (word, what) in [
        (data | 1 << 48, "RES0 bits set: 0x1000000000000"),
        (data & !0x300 | 0x100, "reserved shareability"),
        (data | 7 << 2, "unpredictable: MEM/UNPREDICTABLE-MAIR-0x02"),
    ] {
        let root = Root { mair: Some(root.mair.unwrap() | 2 << 56), ..root.clone() };
        let (kind, text) = names(&mut machine, word, &root);
        assert_eq!(kind, "unpredictable-leaf", "{what}");
        assert!(text.contains(what), "{text}");
    }
    let narrow = Root { geometry: Geometry::new(Granule::K4, 30, 32).unwrap(), ..root };
    let (kind, text) = names(&mut machine, data | 1 << 40, &narrow);
    assert_eq!(kind, "unpredictable-leaf");
    assert!(text.contains("beyond the 32 bits of PA"), "{text}");
}

#[test]
fn normal_memory_where_there_is_none_is_noted() {
    let (mut machine, root) = machine();
    let roots = [root];
    page(&mut machine, 3, RAM + (8 << 20) - 0x1000, DATA_PAGE);
    page(&mut machine, 4, RAM + (8 << 20), DATA_PAGE);
    let found = machine.findings(&roots);
    assert_eq!(found[0].0, "normal-outside-memory");
    assert!(found[0].1.contains("0x407ff000-0x40801000 as normal memory; 4K of it are none"), "{found:?}");
    page(&mut machine, 4, RAM + (8 << 20), Attributes::DEVICE);
    assert_eq!(machine.findings(&roots), []);
}

#[test]
fn pages_that_a_block_could_replace_are_noted_with_what_it_saves() {
    let (mut machine, root) = machine();
    let roots = [root];
    for index in 0..512 {
        page(&mut machine, index, DATA + (index << 12), DATA_PAGE);
    }
    let expected = "TTBR0_EL1 0x0000000000000000-0x0000000000200000: 512 leaves could be 1 of 2M, which \
                    frees 1 table (4K) and 511 entries";
    assert_eq!(machine.findings(&roots), [("larger-leaves", expected.to_owned())]);
    // What the table takes away, the block would allow.
    let table = machine.get(RAM);
    machine.set(RAM, table | TablePermissions::READ_ONLY.bits(Regime::El1And0));
    assert!(!kinds(&mut machine, &roots).contains(&"larger-leaves"));
    machine.set(RAM, table | TablePermissions::NEVER_EXECUTE.bits(Regime::El1And0));
    assert!(kinds(&mut machine, &roots).contains(&"larger-leaves"), "the pages are not executable anyway");
    machine.set(RAM, table);
    // One page is another: runs of the rest could be contiguous.
    page(&mut machine, 100, DATA + (100 << 12), Attributes::KERNEL_RODATA);
    let found = machine.findings(&roots);
    let all: Vec<_> =
        found.iter().map(|(kind, text)| (*kind, text.contains("leaves of 4K could be"))).collect();
    assert_eq!(all, [("contiguous-runs", true), ("contiguous-runs", true)]);
    // Not aligned: neither.
    for index in 0..512 {
        page(&mut machine, index, DATA + 0x1000 + (index << 12), DATA_PAGE);
    }
    assert_eq!(machine.findings(&roots), []);
}
