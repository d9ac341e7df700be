//! What can't be loaded is refused: memory is as before, the map is right, and the system stays in
//! use.

use std::io::Write;

use linmap_tests::{Boot, Outcome, PlacedBoot, RAM, Tree, archive, file, own_image};

const MIB: usize = 1 << 20;

/// Loads in both ways, and looks at memory after each; then uses memory that was free. The frames
/// that changes of the map need are taken first.
const SCRIPT: &str = "reserve 0x41400000 4K; protect ro 0x41400000 4K; free 0x41400000 4K; mem; !kexec load; \
                      mem; \
                      !kexec load --scattered; mem; !kexec exec; verify; \
                      reserve 0x41400000 4K; protect ro 0x41400000 4K; free 0x41400000 4K; mem";

#[track_caller]
fn is_refused(options: &str, kernel: &[u8], initrd: &[u8], says: &str) {
    let (kernel, initrd) = (file(kernel), file(initrd));
    let outcome = Boot::new(options)
        .with("--kernel", kernel.path())
        .with("--initrd", initrd.path())
        .with("--script", SCRIPT)
        .run();
    outcome.expect_success();
    check(&outcome.console, says);
    let refused = refusals(&outcome);
    assert!(refused.iter().take(2).all(|what| what.contains(says)), "{refused:?} do not say {says:?}");
    assert!(refused[2].contains("no payload is loaded"), "{refused:?}");
}

fn refusals(outcome: &Outcome) -> Vec<&str> {
    outcome.records.iter().filter(|r| r.contains_key("refused")).filter_map(|r| r["what"].as_str()).collect()
}

/// What must hold for the console after [`SCRIPT`].
#[track_caller]
fn check(console: &str, says: &str) {
    assert_eq!(console.matches("linmap: refused=").count(), 3, "{console}");
    assert!(console.contains(says), "{console}");
    assert!(console.contains("linmap: verify=ok"), "{console}");
    let lists: Vec<Vec<&str>> = console
        .split("linmap> mem")
        .skip(1)
        .map(|section| section.lines().skip(1).take_while(|line| line.starts_with("  ")).collect())
        .collect();
    assert_eq!(lists.len(), 4, "{console}");
    assert!(lists[0].len() > 2 && lists.iter().all(|list| *list == lists[0]), "{console}");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// With a checksum, as zstd(1) packs files: without one, a wrong byte may yield another valid file.
fn zstd(content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.include_checksum(true).expect("memory");
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// An EFI zboot image whose header has these numbers.
fn zboot(payload: &[u8], offset: u32, len: u32, name: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x400];
    file[..2].copy_from_slice(b"MZ");
    file[4..8].copy_from_slice(b"zimg");
    file[8..12].copy_from_slice(&offset.to_le_bytes());
    file[12..16].copy_from_slice(&len.to_le_bytes());
    file[24..24 + name.len()].copy_from_slice(name);
    file[0x38..0x3c].copy_from_slice(&0x8182_23cd_u32.to_le_bytes());
    file.extend_from_slice(payload);
    file
}

/// linmap's own Image with a word of its header replaced.
fn with_header(at: usize, word: u64) -> Vec<u8> {
    let mut image = own_image();
    image[at..at + 8].copy_from_slice(&word.to_le_bytes());
    image
}

const IMAGE_SIZE: usize = 16;
const FLAGS: usize = 24;
const SMALL: &str = "--memory 512M";

#[test]
fn a_kernel_that_is_cut_short_is_refused() {
    let image = own_image();
    let initrd = [0x5a; 4096];
    is_refused(SMALL, &image[..63], &initrd, "Image");
    for packed in [gzip(&image), zstd(&image)] {
        is_refused(SMALL, &packed[..packed.len() / 2], &initrd, "cut short");
    }
}

#[test]
fn a_packed_kernel_with_a_wrong_byte_is_refused() {
    for mut packed in [gzip(&own_image()), zstd(&own_image())] {
        let middle = packed.len() / 2;
        packed[middle] ^= 0x10;
        is_refused(SMALL, &packed, &[0x5a; 4096], "corrupt");
    }
    // The content is whole, its checksum is not.
    let mut packed = gzip(&own_image());
    let checksum = packed.len() - 8;
    packed[checksum] ^= 1;
    is_refused(SMALL, &packed, &[0x5a; 4096], "checksum");
}

#[test]
fn a_decompression_bomb_is_bounded_by_memory() {
    let mut image = with_header(IMAGE_SIZE, MIB as u64);
    image.resize(160 * MIB, 0);
    is_refused("--memory 128M", &gzip(&image), &[0x5a; 4096], "more than 0x8000000 bytes");
    let mut endless = with_header(IMAGE_SIZE, 1 << 40);
    endless.resize(64 * MIB, 0);
    is_refused(SMALL, &gzip(&endless), &[0x5a; 4096], "no room for the image: 0x10000000000 bytes");
}

#[test]
fn a_zstd_stream_that_takes_more_memory_than_there_is_is_refused() {
    let mut image = with_header(IMAGE_SIZE, 1 << 40);
    image.resize(300 * MIB, 0);
    for (window_log, says) in
        [(27, "the largest free range there has"), (28, "needs a window of 0x10000000 bytes")]
    {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
        encoder.include_contentsize(false).expect("memory");
        encoder.window_log(window_log).expect("memory");
        encoder.write_all(&image).expect("memory");
        is_refused("--memory 128M", &encoder.finish().expect("memory"), &[0x5a; 4096], says);
    }
}

#[test]
fn a_zboot_whose_numbers_lie_is_refused() {
    let payload = gzip(&own_image());
    let len = payload.len() as u32;
    let refused = |offset, len, name: &[u8], says| {
        is_refused(SMALL, &zboot(&payload, offset, len, name), &[0x5a; 4096], says);
    };
    refused(0x400, len + 1, b"gzip", "a payload of");
    refused(u32::MAX, u32::MAX, b"gzip", "a payload of");
    refused(0x400, len - 9, b"gzip", "cut short");
    refused(0x400, len, b"zstd", "looks like");
    refused(0x400, len, b"lzma", "lzma");
}

#[test]
fn a_kernel_that_can_not_run_here_is_refused() {
    let initrd = [0x5a; 4096];
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into(), std::path::PathBuf::from);
    let elf = std::fs::read(target.join("linmap/linmap-kernel.elf")).expect("the kernel's ELF file");
    is_refused(SMALL, &elf, &initrd, "objcopy -O binary");
    is_refused(SMALL, &with_header(FLAGS, 0b1011), &initrd, "big-endian");
    is_refused("--memory 512M --cpu cortex-a72", &with_header(FLAGS, 0b1100), &initrd, "K16");
    is_refused(SMALL, &with_header(IMAGE_SIZE, 1 << 30), &initrd, "no room for the image: 0x40000000 bytes");
}

#[test]
fn an_initrd_for_which_there_is_no_room_is_refused() {
    // The initrd lies in memory once, where it could stay. Memory is too small for the copies that
    // the script asks for.
    let (kernel, initrd) = (file(&own_image()), file(&vec![0x5a; 110 * MIB]));
    let outcome = Boot::new("--memory 256M")
        .with("--kernel", kernel.path())
        .with("--initrd", initrd.path())
        .with(
            "--script",
            "mem; !kexec load --scattered; mem; kexec load; kexec unload; mem; !kexec exec; \
                           verify; !kexec unload; mem",
        )
        .run();
    outcome.expect_success();
    check(&outcome.console, "");
    let what = refusals(&outcome)[0];
    assert!(what.contains("the largest free range"), "{what}");
}

#[test]
fn a_device_tree_without_room_to_grow_is_refused() {
    let archive = archive(&[
        ("cmdline", &[b'x'; 1000]),
        ("script", SCRIPT.as_bytes()),
        ("Image", &own_image()),
        ("initrd", &[0x5a; 4096]),
    ]);
    let tree = Tree {
        initrd: Some((RAM + 0x200_0000, archive.len() as u64)),
        // With this the tree has close to the 2 MiB that the protocol allows.
        padding: 2 * MIB - 1500,
        ..Tree::with_memory(0x1000_0000)
    };
    let len = tree.blob().len();
    assert!((2 * MIB - 1000..=2 * MIB).contains(&len), "{len}");
    check(&PlacedBoot { tree: &tree, initrd: &archive }.run(), "0x200000");
}
