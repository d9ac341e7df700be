//! Moves that overwrite what is still to be moved: in order, and through the bounce buffer where
//! they go in a circle.
//!
//! The machine has just enough memory for linmap's own Image, a device tree and the archive, and
//! the archive lies where the Image has to go. So both are moved, one over the other.

use linmap_tests::ind_list::CarriedOut;
use linmap_tests::{PlacedBoot, RAM, Tree, archive, own_image};

const PAGE: u64 = 0x1000;
const BLOCK: u64 = 0x20_0000;
/// The running kernel is two blocks below. The device tree goes over it, so that no block after the
/// archive is taken for it.
const ARCHIVE_AT: u64 = RAM + 3 * BLOCK;
/// Memory for frames, too short for an image, an initrd or a device tree.
const FRAMES_AT: u64 = RAM + 8 * BLOCK;

/// linmap's own Image, with the length in memory that its header asks for: more than the running
/// kernel's block has.
fn image() -> (Vec<u8>, u64) {
    let mut image = own_image();
    let field = &mut image[16..24];
    let own = u64::from_le_bytes((&*field).try_into().expect("eight bytes"));
    let len = own.max(BLOCK).next_multiple_of(0x1_0000) + 0x1_0000;
    field.copy_from_slice(&len.to_le_bytes());
    (image, len)
}

/// An archive of whole pages whose Image begins `offset` bytes from its start.
fn archive_with_image_at(offset: u64, script: &str) -> Vec<u8> {
    let (image, _) = image();
    let members =
        |pad: usize| archive(&[("script", script.as_bytes()), ("pad", &vec![0x5a; pad]), ("Image", &image)]);
    let start = |bytes: &[u8]| bytes.windows(64).position(|at| at == &image[..64]).expect("the Image") as u64;
    let least = start(&members(0));
    assert!(offset.is_multiple_of(4) && offset >= least);
    let mut bytes = members((offset - least) as usize);
    assert_eq!(start(&bytes), offset);
    // Zeros after an archive are not part of it.
    bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
    bytes
}

/// What the plan has under these names, once the payload was entered and has found its archive.
fn moved(offset: u64, load: &str) -> [u64; 2] {
    let script = format!("kexec load --verify {load}; kexec plan; kexec list; kexec exec --verify");
    let archive = archive_with_image_at(offset, &script);
    let (image, room) = image();
    let tree = Tree {
        memory: vec![
            (RAM + BLOCK, ARCHIVE_AT + room + archive.len() as u64 + 0x2_0000 - (RAM + BLOCK)),
            (FRAMES_AT, 0x8_0000),
        ],
        // No room for an image over the running kernel.
        reserved: vec![(RAM + 2 * BLOCK, PAGE)],
        bootargs: "linmap.payload=self linmap.generations=2".to_owned(),
        initrd: Some((ARCHIVE_AT, archive.len() as u64)),
        ..Tree::default()
    };
    let console = PlacedBoot { tree: &tree, initrd: &archive }.run();
    assert!(
        console.contains(&format!(
            "linmap: segment=image source={:#x} destination={ARCHIVE_AT:#x} ",
            ARCHIVE_AT + offset
        )),
        "{console}"
    );
    assert!(
        console.contains(&format!("linmap: segment=initrd source={ARCHIVE_AT:#x} destination=")),
        "{console}"
    );
    // The list of pages has the order too, and ends with the same bytes at the same places.
    let list = CarriedOut::read(&console);
    let goes = |from: u64, to: u64, len: u64| {
        (0..len).step_by(PAGE as usize).all(|at| match list.content.get(&(to + at)) {
            Some(content) => *content == from + at || *content == list.zeros,
            None => from == to,
        })
    };
    let file = image.len() as u64;
    assert!(goes(ARCHIVE_AT + offset, ARCHIVE_AT, file), "{list:#x?}");
    let (_, initrd) = console
        .split_once(&format!("linmap: segment=initrd source={ARCHIVE_AT:#x} destination="))
        .expect("the initrd's segment");
    let to = initrd.split(' ').next().and_then(|to| u64::from_str_radix(to.strip_prefix("0x")?, 16).ok());
    assert!(goes(ARCHIVE_AT, to.expect("an address"), archive.len() as u64), "{list:#x?}");
    // It was right after the move, and the next kernel loads the archive once more.
    assert!(console.contains("linmap: state=done generation=2"), "{console}");
    let plan = console.lines().find(|line| line.starts_with("linmap: kexec=plan ")).expect("a plan");
    ["ordered", "bounced"].map(|name| {
        let (_, value) = plan.split_once(&format!(" {name}=")).expect(name);
        value.split(' ').next().and_then(|value| value.parse().ok()).expect(name)
    })
}

#[test]
fn a_payload_is_moved_over_the_archive_that_it_is_in() {
    for load in ["", "--mmu-off"] {
        let [ordered, bounced] = moved(PAGE, load);
        assert!(ordered >= 2 && bounced == 0, "{load}: {ordered} {bounced}");
    }
}

#[test]
fn image_and_initrd_that_change_places_go_through_the_bounce_buffer() {
    // The archive's start goes where the Image is, and the Image to the archive's start.
    let (_, offset) = image();
    for load in ["", "--mmu-off"] {
        let [ordered, bounced] = moved(offset, load);
        println!("{ordered} ordered extents, {bounced} bytes through the bounce buffer");
        assert!(ordered >= 2 && bounced >= PAGE, "{load}: {ordered} {bounced}");
    }
}
