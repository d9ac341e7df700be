//! `mem=`, `linmap.mem=` and `linmap.memmap=`: the words of the command line that change which
//! memory the kernel uses.

use linmap_tests::{Boot, RAM, RawBoot, archive, own_image};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The phases that found memory, in the order of the kernels on this console: bytes of each.
fn bytes_found(console: &str) -> Vec<u64> {
    let phases = console.lines().filter(|line| line.contains("phase=memblock "));
    let bytes = |line: &str| line.split(" bytes=").nth(1)?.split(' ').next()?.parse().ok();
    phases.map(|line| bytes(line).expect("a number of bytes")).collect()
}

/// Boots with this command line into linmap as if it were another kernel. It has no archive of its
/// own, so that it ends there.
fn enter_a_payload(command_line: &str) -> String {
    let archive = archive(&[("Image", &own_image())]);
    let console = RawBoot { initrd: &archive, command_line }.run();
    assert!(console.contains("state=done generation=0"), "{console}");
    console
}

#[test]
fn a_limit_of_our_own_hides_memory_from_us_and_not_from_the_payload() {
    let words = "linmap.mem=256M linmap.memmap=16M$0x4c000000,1M@0x52000000";
    let console = enter_a_payload(words);
    // The image lies below the limit. The archive, which QEMU put at 128 MiB, does too.
    assert_eq!(bytes_found(&console), [256 * MIB, GIB], "{console}");
    assert!(console.contains("memory-word=linmap.memmap entries=2"), "{console}");
    assert!(console.contains("memory-word=linmap.mem end=0x50000000"), "{console}");
}

#[test]
fn a_limit_for_everyone_is_obeyed_and_passed_on() {
    let console = enter_a_payload("mem=256M");
    assert_eq!(bytes_found(&console), [256 * MIB, 256 * MIB], "{console}");
}

#[test]
fn what_lies_above_a_limit_is_mapped_if_it_is_in_use_and_nothing_else_is() {
    // The initrd is at 128 MiB.
    let outcome = Boot::new("--memory 1G --payload none")
        .with("--append", "linmap.mem=64M linmap.memmap=4K$0x41fff000,8K$0x43001000 mem=512M")
        .with("--script", "verify; map; mem; reserve 0x43004000 4K; !reserve 0x43002000 4K")
        .run();
    let console = &outcome.expect_success().console;
    let bytes = outcome.phase("memblock")["bytes"].as_u64().expect("a number");
    assert!(bytes > 64 * MIB && bytes < 72 * MIB, "{console}");
    assert!(console.contains("verify=ok"), "{console}");
    let mapped = outcome.linear_map("bytes");
    let image_data = GIB - Boot::new("--memory 1G --payload none").run().linear_map("bytes");
    assert_eq!(mapped, bytes - 3 * 4096 - image_data, "{console}");
}

#[test]
fn words_that_make_no_sense_are_named() {
    for (word, says) in [
        ("mem=lots", "mem=lots: not a SIZE"),
        ("linmap.mem=4095", "linmap.mem=4095: 0xfff bytes are less than a page"),
        ("linmap.memmap=1M", "linmap.memmap=1M: not SIZE@ADDRESS or SIZE$ADDRESS"),
        ("linmap.memmap=1M@0x123", "linmap.memmap=1M@0x123: size 0x100000 and address 0x123"),
        ("linmap.memmap=1M$0xffffffffffe00000", "end above 0x10000000000000"),
        ("linmap.memmap=2M$0x40200000", "the kernel image at 0x40200000"),
    ] {
        let outcome = Boot::new("--memory 1G --payload none --timeout 30").with("--append", word).run();
        let kind = if says.contains("image") { "linear-map" } else { "memory" };
        outcome.expect_error(kind, &[says]);
    }
    // RAM is where the tests above say it is.
    assert_eq!(RAM, GIB);
}
