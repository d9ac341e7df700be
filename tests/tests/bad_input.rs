//! Hostile and broken input: each ends with one line for people, an `error=` line, exit code 1, and
//! no hang.

use std::path::PathBuf;

use linmap_tests::{Boot, Outcome, PlacedBoot, RAM, RawBoot, Tree, archive, file, own_image};

const GIB: u64 = 1 << 30;

fn boot_with(blob: &[u8]) -> Outcome {
    let file = file(blob);
    Boot::new("--memory 1G --payload none --timeout 30").with("--dtb", file.path()).run()
}

#[test]
fn a_tree_without_memory_is_refused() {
    boot_with(&Tree::default().blob()).expect_error("memory", &["memory"]);
}

#[test]
fn a_tree_that_is_none_is_refused() {
    let mut blob = Tree::with_memory(GIB).blob();
    blob[0] ^= 0xff;
    boot_with(&blob).expect_error("dtb", &["0x"]);
}

#[test]
fn a_truncated_tree_is_refused() {
    let blob = Tree::with_memory(GIB).blob();
    boot_with(&blob[..blob.len() / 2]).expect_error("dtb", &["0x"]);
}

#[test]
fn a_corrupt_tree_is_refused() {
    let mut blob = Tree::with_memory(GIB).blob();
    // The structure block's second token.
    let structure = u32::from_be_bytes(blob[8..12].try_into().expect("four bytes")) as usize;
    blob[structure + 8..structure + 12].fill(0x5a);
    boot_with(&blob).expect_error("dtb", &["0x"]);
}

#[test]
fn a_tree_of_more_than_2_mib_is_refused() {
    let mut blob = Tree::with_memory(GIB).blob();
    blob[4..8].copy_from_slice(&0x0030_0000u32.to_be_bytes());
    boot_with(&blob).expect_error("dtb", &["0x300000", "0x200000"]);
}

#[test]
fn memory_that_wraps_is_refused() {
    let tree = Tree { memory: vec![(RAM, GIB), (u64::MAX - 0xfff, 0x2000)], ..Tree::default() };
    boot_with(&tree.blob()).expect_error("memory", &["0xfffffffffffff000", "0x2000"]);
}

#[test]
fn memory_that_overlaps_is_merged_with_a_warning() {
    let tree = Tree { memory: vec![(RAM, GIB), (RAM + 0x1000_0000, 0x2000)], ..Tree::default() };
    expect_memory(&boot_with(&tree.blob()), &["0x50000000", "0x40000000"]);
}

#[test]
fn a_bank_of_no_size_is_left_out_with_a_warning() {
    let tree = Tree { memory: vec![(RAM, GIB), (0x9000_0000, 0)], ..Tree::default() };
    expect_memory(&boot_with(&tree.blob()), &["0x90000000", "size 0"]);
}

/// Expects the first GiB of RAM, and one warning that holds all of `parts`.
#[track_caller]
fn expect_memory(outcome: &Outcome, parts: &[&str]) {
    let phase = outcome.expect_success().phase("memblock");
    assert_eq!((&phase["regions"], &phase["bytes"]), (&1.into(), &GIB.into()), "{phase:?}");
    let is_of_memory = |warning: &serde_json::Value| warning == "memory";
    let warnings = outcome.records.iter().filter(|record| record.get("warning").is_some_and(is_of_memory));
    let warnings: Vec<_> = warnings.collect();
    let [warning] = warnings[..] else { panic!("{warnings:?}") };
    let what = warning["what"].as_str().expect("text");
    assert!(parts.iter().all(|part| what.contains(part)), "{warning:?}");
}

/// An archive that ends a boot by its script.
fn script(commands: &[u8]) -> Vec<u8> {
    archive(&[("script", commands)])
}

#[test]
fn a_command_line_that_its_loader_padded_is_read_and_passed_on_as_it_was_meant() {
    let archive = script(b"map");
    for padding in ["", "\0", "\0ab", "\0\0 linmap.leaf=block"] {
        let tree = Tree {
            bootargs: format!("linmap.leaf=page{padding}"),
            initrd: Some((RAM + 0x200_0000, archive.len() as u64)),
            ..Tree::with_memory(0x400_0000)
        };
        let console = PlacedBoot { tree: &tree, initrd: &archive }.run();
        assert!(console.contains("leaf=page") && console.contains("script=ok"), "{padding:?}: {console}");
        // The tree names no CPU; of that alone it warns.
        assert!(!console.replace("warning=cpu", "").contains("warning="), "{padding:?}: {console}");
    }
}

#[test]
fn reservations_of_the_old_tree_and_initrd_do_not_reach_the_next_kernel() {
    let image = std::fs::read(patched_image(0, &[]).path()).expect("the Image");
    let archive = archive(&[("Image", &image)]);
    let initrd = (RAM + 0x200_0000, archive.len() as u64);
    let tree = Tree {
        bootargs: "linmap.payload=self".to_owned(),
        initrd: Some(initrd),
        ..Tree::with_memory(0x400_0000)
    };
    let reserved = |tree: &Tree| {
        let console = PlacedBoot { tree, initrd: &archive }.run();
        assert!(console.contains("linmap: state=done generation=1"), "{console}");
        let bytes =
            console.lines().filter_map(|line| line.split_once("reserved_bytes=")?.1.trim().parse().ok());
        bytes.collect::<Vec<u64>>()
    };
    let plain = reserved(&tree);
    // As U-Boot lists both, and firmware of its own beside.
    let tree_len = tree.blob().len() as u64 + 2 * 16;
    let firmware = (RAM + 0x3f0_0000, 0x1000);
    let listed = Tree { listed: vec![(PlacedBoot::DTB_AT, tree_len), initrd, firmware], ..tree.clone() };
    assert_eq!(listed.blob().len() as u64, tree_len + 16);
    let listed = Tree { listed: vec![(PlacedBoot::DTB_AT, tree_len + 16), initrd, firmware], ..tree };
    assert_eq!(reserved(&listed), plain.iter().map(|bytes| bytes + 0x1000).collect::<Vec<_>>());
}

#[test]
fn memory_beyond_the_cpus_reach_is_refused() {
    // A Cortex-A72 has 44 bits.
    let tree = Tree { memory: vec![(RAM, GIB), (1 << 45, GIB)], ..Tree::default() }.file();
    let boot = Boot::new("--memory 1G --payload none --timeout 30 --cpu cortex-a72");
    boot.with("--dtb", tree.path()).run().expect_error("linear-map", &["0x200000000000", "44"]);
}

#[test]
fn no_room_for_tables_is_an_error() {
    for builder in ["identity", "base"] {
        // The firmware reserves all but half a MiB of RAM, and what is loaded lies in that rest.
        let tree = Tree {
            memory: vec![(RAM, GIB)],
            reserved: vec![(RAM + 0x0200_0000, GIB - 0x0200_0000)],
            ..Tree::default()
        };
        let mut full = tree.clone();
        // Everything that nothing was loaded to is reserved: the loader leaves no single free page
        // in the rest.
        full.reserved.push((RAM, 0x0200_0000));
        let file = full.file();
        let outcome = Boot::new("--memory 1G --payload none --timeout 30")
            .with("--append", format!("linmap.leaf=page linmap.build={builder}"))
            .with("--dtb", file.path())
            .run();
        outcome.expect_error("linear-map", &["no frame for a translation table", "0x1000"]);
    }
}

#[test]
fn an_unknown_builder_or_leaf_is_an_error_that_lists_the_known() {
    let boot = |append| Boot::new("--memory 1G --payload none --timeout 30").with("--append", append).run();
    boot("linmap.build=magic").expect_error("linear-map", &["linmap.build", "identity"]);
    boot("linmap.leaf=huge").expect_error("linear-map", &["linmap.leaf", "auto"]);
    let outcome = boot("linmap.leafs=block");
    assert_eq!(outcome.expect_success().with("warning").expect("a warning")["word"], "linmap.leafs=block");
}

#[test]
fn reserved_words_are_refused_by_name_and_wrong_ones_of_another_boot_loader_are_errors() {
    for word in ["linmap.generation=5", "linmap.payload=none", "linmap.shell", "linmap.icount"] {
        let outcome = Boot::new("--memory 1G").with("--append", word).with("--script", "mem").run();
        assert_eq!(outcome.code, Some(2), "{}", outcome.console);
        let name = word.split('=').next().expect("a name");
        assert!(outcome.errors.contains(&format!("{name} is reserved")), "{}", outcome.errors);
    }
    let archive = archive(&[("cmdline", b"quiet"), ("Image", &own_image())]);
    for (words, says) in [
        ("linmap.payload=none linmap.generation=first", ["linmap.generation", "number"]),
        ("linmap.payload=windows", ["linmap.payload", "linux"]),
    ] {
        expect_raw_error(&archive, words, "kexec");
        let console = RawBoot { initrd: &archive, command_line: words }.run();
        assert!(says.iter().all(|says| console.contains(says)), "{console}");
    }
}

#[test]
fn files_that_are_not_regular_or_too_large_are_refused_before_they_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (fifo, large) = (folder.path().join("fifo"), folder.path().join("large"));
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    std::fs::File::create(&large).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    for (option, path, says) in [
        ("--kernel", "/dev/zero".as_ref(), "a character device"),
        ("--initrd", fifo.as_path(), "a FIFO"),
        ("--dtb", &fifo, "a FIFO"),
        ("--dtb", &large, "at most 2097152 fit"),
        ("--kernel", &large, "at most 1073741824 fit"),
    ] {
        let outcome = Boot::new("--memory 1G").with(option, path).run();
        assert_eq!(outcome.code, Some(2), "{option}: {}", outcome.errors);
        assert!(outcome.errors.contains(option) && outcome.errors.contains(says), "{}", outcome.errors);
    }
}

/// linmap's own Image, with the bytes at `at` replaced.
fn patched_image(at: usize, bytes: &[u8]) -> tempfile::NamedTempFile {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    let mut image =
        std::fs::read(target.join("linmap/Image")).expect("the kernel is built before these tests");
    image[at..at + bytes.len()].copy_from_slice(bytes);
    file(&image)
}

fn boot_payload(at: usize, bytes: &[u8]) -> Outcome {
    let image = patched_image(at, bytes);
    Boot::new("--memory 1G --cpu cortex-a72 --timeout 30").with("--kernel", image.path()).run()
}

#[test]
fn an_image_with_the_wrong_magic_is_refused() {
    boot_payload(56, b"ELF!").expect_error("image", &["Image"]);
}

#[test]
fn a_big_endian_image_is_refused() {
    boot_payload(24, &0b1011u64.to_le_bytes()).expect_error("image", &["endian"]);
}

#[test]
fn an_image_for_pages_that_the_cpu_lacks_is_refused() {
    // 16K, which a Cortex-A72 does not have.
    boot_payload(24, &0b1100u64.to_le_bytes()).expect_error("image", &["16"]);
}

#[test]
fn an_image_that_is_longer_than_it_says_is_loaded_as_a_whole() {
    // The payload is linmap, which is entered and then misses a payload of its own.
    boot_payload(16, &0x1000u64.to_le_bytes()).expect_error("kexec", &["the archive has no Image"]);
}

#[test]
fn an_image_that_does_not_fit_memory_is_refused() {
    boot_payload(16, &(1u64 << 40).to_le_bytes()).expect_error("placement", &["0x10000000000"]);
}

#[track_caller]
fn expect_raw_error(initrd: &[u8], command_line: &str, kind: &str) {
    let console = RawBoot { initrd, command_line }.run();
    assert!(console.contains(&format!("linmap: error={kind} what=")), "{console}");
    assert!(console.contains("linmap cannot continue: "), "{console}");
}

#[test]
fn an_archive_that_is_cut_short_is_refused() {
    let whole = archive(&[("cmdline", b"quiet"), ("Image", &[0x5a; 0x1234])]);
    for len in [1, 50, 109, 200, whole.len() / 2, whole.len() - 20] {
        expect_raw_error(&whole[..len], "", "archive");
    }
}

#[test]
fn an_initrd_that_is_no_archive_is_refused() {
    expect_raw_error(&[0x5a; 4096], "", "archive");
}

#[test]
fn an_archive_without_an_image_is_refused() {
    expect_raw_error(&archive(&[("cmdline", b"quiet")]), "", "kexec");
}

#[test]
fn a_command_line_that_is_no_text_is_refused() {
    let image = std::fs::read(patched_image(0, &[]).path()).expect("the Image");
    expect_raw_error(&archive(&[("cmdline", b"a\xffb"), ("Image", &image)]), "", "kexec");
}

#[test]
fn a_label_that_no_tree_can_say_is_refused() {
    let script =
        b"reserve 0x60000000 4K; !preserve 0x60000000 4K a\0b; preserve 0x60000000 4K ab; release ab";
    let console = RawBoot { initrd: &archive(&[("script", script)]), command_line: "" }.run();
    assert!(console.contains("has a NUL in it"), "{console}");
    assert!(console.contains("linmap: script=ok commands=4"), "{console}");
}

#[test]
fn an_initrd_outside_the_payloads_window_is_copied_into_it() {
    // The memory around the archive is too small for an image, and the 32 GiB window of an image in
    // low memory does not reach the archive.
    let image = std::fs::read(patched_image(0, &[]).path()).expect("the Image");
    let archive = archive(&[("Image", &image)]);
    let far = RAM + 40 * GIB;
    let tree = Tree {
        memory: vec![(RAM, 0x400_0000), (far, 0x20_0000)],
        bootargs: "linmap.payload=self".to_owned(),
        initrd: Some((far, archive.len() as u64)),
        ..Tree::default()
    };
    let console = PlacedBoot { tree: &tree, initrd: &archive }.run();
    assert!(console.contains("linmap: state=done generation=1"), "{console}");
}

#[test]
fn an_image_outside_memory_is_refused() {
    // What the tree calls memory begins above the image; or firmware claims the image's own place.
    let archive = archive(&[("cmdline", b"quiet")]);
    let initrd = Some((RAM + 0x200_0000, archive.len() as u64));
    let above = Tree { memory: vec![(RAM + 0x80_0000, 0x400_0000)], initrd, ..Tree::default() };
    let claimed = Tree { no_map: vec![(RAM + 0x20_0000, 0x1000)], initrd, ..Tree::with_memory(0x400_0000) };
    for tree in [above, claimed] {
        let console = PlacedBoot { tree: &tree, initrd: &archive }.run();
        assert!(
            console.contains("linmap: error=linear-map what=\"the kernel image at 0x40200000.."),
            "{console}"
        );
    }
}

#[test]
fn too_few_frames_for_the_map_or_its_1_to_1_map_are_an_error_and_no_panic() {
    let image = std::fs::read(patched_image(0, &[]).path()).expect("the Image");
    let len = u64::from_le_bytes(image[16..24].try_into().expect("eight bytes"));
    let archive = archive(&[("cmdline", b"quiet")]);
    for frames in 0..6 {
        let tree = Tree {
            memory: vec![(RAM + 0x20_0000, len + frames * 0x1000)],
            initrd: Some((RAM + 0x200_0000, archive.len() as u64)),
            ..Tree::default()
        };
        let console = PlacedBoot { tree: &tree, initrd: &archive }.run();
        assert!(
            !console.contains("error=panic") && !console.contains("error=exception"),
            "{frames}: {console}"
        );
        let wanted = if frames < 3 { "linmap: error=linear-map what=\"no frame" } else { "linmap: error=" };
        assert!(console.contains(wanted), "{frames}: {console}");
    }
}

#[test]
fn a_console_that_can_not_be_there_leaves_the_one_before() {
    for console in [0x900_0ffd, 0x900_0ff0, 1 << 50 | 0x900_0000] {
        let tree = Tree { console: Some(console), ..Tree::with_memory(GIB) };
        let file = tree.file();
        let outcome = Boot::new("--memory 1G --payload none --timeout 30").with("--dtb", file.path()).run();
        outcome.expect_success();
        assert!(outcome.console.contains("phase=linear-map"));
    }
}

#[test]
fn an_initrd_over_the_image_is_refused() {
    let tree = Tree { initrd: Some((RAM + 0x28_0000, 0x1000)), ..Tree::with_memory(0x400_0000) };
    let console = PlacedBoot { tree: &tree, initrd: &[] }.run();
    assert!(console.contains("linmap: error=initrd what="), "{console}");
}

#[test]
fn an_initrd_outside_memory_is_refused() {
    let archive = archive(&[("cmdline", b"quiet")]);
    let far = RAM + 40 * GIB;
    let tree = Tree { initrd: Some((far, archive.len() as u64)), ..Tree::with_memory(0x400_0000) };
    let console = PlacedBoot { tree: &tree, initrd: &archive }.run();
    assert!(console.contains("linmap: error=initrd what="), "{console}");
}

#[test]
fn usage_errors_exit_with_2() {
    for options in
        ["--memory lots", "--el 3", "--payload windows", "--kernel /no/such/file", "--no-such-option"]
    {
        let outcome = Boot::new(options).run();
        assert_eq!(outcome.code, Some(2), "{options}: {}", outcome.errors);
        assert!(!outcome.errors.is_empty());
    }
}
