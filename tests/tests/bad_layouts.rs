//! Layouts of memory that make no sense, or in which something has no place: each says so in one
//! line, and nothing panics.

use linmap_tests::{Boot, Outcome, PlacedBoot, RAM, Tree, archive, number, own_image};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn boot_with(blob: &[u8]) -> Outcome {
    let file = linmap_tests::file(blob);
    Boot::new("--memory 2G --payload none --timeout 60").with("--dtb", file.path()).run()
}

#[test]
fn regions_in_any_order_are_the_same_memory() {
    let regions = [(RAM + GIB, MIB), (RAM, 512 * MIB), (RAM + 3 * GIB / 2, 4096), (RAM + 512 * MIB, MIB)];
    let tree = Tree { memory: regions.to_vec(), ..Tree::default() };
    let outcome = boot_with(&tree.blob());
    let phase = outcome.expect_success().phase("memblock");
    assert_eq!((number(phase, "regions"), number(phase, "bytes")), (3, 514 * MIB + 4096));
}

#[test]
fn memory_beyond_all_physical_addresses_is_refused() {
    for (start, len, says) in [
        (1 << 52, MIB, "0x10000000000000..0x10000000100000 ends above 0x10000000000000"),
        ((1 << 52) - MIB, 2 * MIB, "ends above 0x10000000000000"),
        (u64::MAX - 0xfff, 0x2000, "wrap around"),
    ] {
        let tree = Tree { memory: vec![(RAM, GIB), (start, len)], ..Tree::default() };
        boot_with(&tree.blob()).expect_error("memory", &["memory@40000000", says]);
    }
}

/// The tree with the value of the first property of these bytes changed.
fn with_cells(tree: &Tree, which: usize, value: u32) -> Vec<u8> {
    let mut blob = tree.blob();
    let structure = u32::from_be_bytes(blob[8..12].try_into().expect("four bytes")) as usize;
    // The root begins with `compatible`, then come the two properties, each of one cell: token,
    // length, name, value.
    let two = 2u32.to_be_bytes();
    let is_cells = |at: &usize| blob[*at..*at + 4] == 4u32.to_be_bytes() && blob[*at + 8..*at + 12] == two;
    let at = (structure..blob.len() - 12).step_by(4).filter(is_cells).nth(which).expect("a property");
    blob[at + 8..at + 12].copy_from_slice(&value.to_be_bytes());
    blob
}

#[test]
fn cells_that_lie_are_refused() {
    let tree = Tree { memory: vec![(RAM, GIB)], ..Tree::default() };
    let cells = |which, value| boot_with(&with_cells(&tree, which, value));
    cells(0, 3).expect_error("memory", &["#address-cells of / is malformed or not 1 or 2"]);
    cells(0, 0).expect_error("memory", &["#address-cells of /"]);
    cells(1, 0).expect_error("memory", &["#size-cells of /"]);
    // 16 bytes are no whole entries of 12.
    cells(1, 1).expect_error("memory", &["reg of node memory@40000000 has 16 bytes, not a multiple of 12"]);
    cells(0, 1).expect_error("memory", &["not a multiple of 12"]);
}

#[test]
fn reserved_memory_that_is_not_memory_is_named_and_changes_nothing() {
    let tree = Tree {
        reserved: vec![(RAM + 4 * GIB, MIB), (RAM + 64 * MIB, MIB)],
        no_map: vec![(RAM + 5 * GIB, MIB), (0x1000, 0x1000)],
        ..Tree::with_memory(GIB)
    };
    let outcome = boot_with(&tree.blob());
    let warning = outcome
        .expect_success()
        .records
        .iter()
        .find(|record| record.get("warning").is_some_and(|of| of == "memory"));
    let what = warning.expect("a warning")["what"].as_str().expect("text");
    assert_eq!(
        what,
        "reserved-memory: 0x140000000..0x140100000 of node firmware@140000000 is not memory; 2 more are not"
    );
    assert_eq!(number(outcome.phase("memblock"), "bytes"), GIB);
}

#[test]
fn an_image_in_memory_that_must_not_be_mapped_is_refused_by_the_first_such_byte() {
    let initrd = Some((RAM + 32 * MIB, 0x100));
    let inside = Tree { no_map: vec![(RAM, 16 * MIB)], initrd, ..Tree::with_memory(64 * MIB) };
    let partly = Tree { no_map: vec![(RAM + 0x24_5000, 0x1000)], initrd, ..Tree::with_memory(64 * MIB) };
    let above = Tree { memory: vec![(RAM + 0x30_0000, 64 * MIB)], initrd, ..Tree::default() };
    for (tree, says) in [
        (inside, "memory: 0x40200000 is no-map"),
        (partly, "memory: 0x40245000 is no-map"),
        (above, "memory: 0x40200000 is not memory"),
    ] {
        let console = PlacedBoot { tree: &tree, initrd: &[] }.run();
        assert!(
            console.contains("linmap: error=linear-map what=\"the kernel image at 0x40200000.."),
            "{console}"
        );
        assert!(console.contains(says), "{console}");
    }
}

#[test]
fn a_layout_without_a_window_for_the_payload_is_refused_by_name() {
    // The image says that it needs 12 MiB, for which there is room below alone. For the initrd
    // there is room 40 GiB above alone, and booting.rst has both in a window of 32 GiB.
    let mut image = own_image();
    image[16..24].copy_from_slice(&(12 * MIB).to_le_bytes());
    let archive = archive(&[("Image", &image), ("initrd", &[0x5a; 4 << 20])]);
    let far = RAM + 40 * GIB + 4096;
    let tree = Tree {
        memory: vec![(RAM + 2 * MIB, 15 * MIB), (far, 10 * MIB)],
        initrd: Some((far, archive.len() as u64)),
        ..Tree::default()
    };
    let console = PlacedBoot { tree: &tree, initrd: &archive }.run();
    assert!(
        console.contains("linmap: error=placement what=\"no room for the initrd: 0x400000 bytes"),
        "{console}"
    );
}
