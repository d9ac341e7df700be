//! The odd layouts of published boards, moved to where QEMU's `virt` has RAM (from 1 GiB on) and no
//! further apart than it reaches, and images in every kind of place. In each, all tables are right,
//! and Linux is entered.

use linmap_tests::{
    Boot, LayoutBoot, Tree, archive, file, linux_image, number, own_image, soak_or_first, virt_tree,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Memory of a board, where its loader puts the image, and how much RAM that takes of `virt`.
struct Board {
    name: &'static str,
    ram: &'static str,
    memory: &'static [(u64, u64)],
    image: u64,
}

const fn board(name: &'static str, ram: &'static str, image: u64, memory: &'static [(u64, u64)]) -> Board {
    Board { name, ram, memory, image }
}

/// Where `virt` has its RAM, which lies lower on some boards.
const UP: u64 = GIB;

/// The layouts of the thread of 2014 come first: there the kernel lost memory, or did not boot.
const BOARDS: [Board; 12] = [
    board(
        "2014: image in the second region",
        "2G",
        UP + 0x4020_0000,
        &[(UP + 0x10_0000, 0x2010_0000), (UP + 0x4000_0000, 0x4000_0000)],
    ),
    // The image ends near the end of the first region, at an odd 2 MiB, and what the tables need
    // does not fit after it.
    board(
        "2014: a small first region",
        "4G",
        0x40a0_0000,
        &[(0x4000_0000, 0xc0_0000), (0x6000_0000, 0x1f00_0000), (0x8000_0000, 0x4000_0000)],
    ),
    board(
        "HiKey",
        "2G",
        UP + 0x20_0000,
        &[
            (UP, 0x5e0_0000),
            (UP + 0x5f0_0000, 0x1000),
            (UP + 0x5f0_2000, 0xef_d000),
            (UP + 0x6e0_0000, 0x60_f000),
            (UP + 0x741_0000, 0x1aaf_0000),
            (UP + 0x2200_0000, 0x1c00_0000),
        ],
    ),
    board(
        "Exynos990",
        "64G",
        0xc140_0000,
        &[
            (0x8000_0000, 0x3ab0_0000),
            (0xc120_0000, 0x1ee0_0000),
            (0xe190_0000, 0x1e70_0000),
            (0x8_8000_0000, 0x1_7ec0_0000),
        ],
    ),
    board(
        "Realtek rtd1861b",
        "10G",
        UP + 0x20_0000,
        &[
            (UP + 0x5_0000, 0x7ffb_0000),
            (UP + 0x8a10_0000, 0xdef_0000),
            (UP + 0x9870_0000, 0x790_0000),
            (UP + 0xa060_0000, 0x5ea0_0000),
            (UP + 0x1_0000_0000, 0xa000_0000),
            (UP + 0x1_a060_0000, 0x5fa0_0000),
        ],
    ),
    board(
        "Renesas Salvator",
        "32G",
        0x4820_0000,
        &[(0x4800_0000, 0x7800_0000), (0x6_0000_0000, 0x8000_0000)],
    ),
    // A span of 514 times its memory, scaled to 33 times.
    board(
        "Zena CSS",
        "160G",
        0x20_8000_0000 + 0x1fe0_0000,
        &[(0x8000_0000, 0x1000_0000), (0x20_8000_0000, 0x3000_0000)],
    ),
    board(
        "Versal NET",
        "256G",
        0x30_0000_0000,
        &[(UP, 0x8000_0000), (0x8_0000_0000, 0x4000_0000), (0x30_0000_0000, 0x1_0000_0000)],
    ),
    board("Morello", "160G", 0x8020_0000, &[(0x8000_0000, 0x7f00_0000), (0x20_8000_0000, 0x7_8000_0000)]),
    board(
        "r8a78000",
        "128G",
        0x14_0000_0000,
        &[
            (0x4000_0000, 0x8000_0000),
            (0x10_8000_0000, 0x4000_0000),
            (0x12_0000_0000, 0x1000_0000),
            (0x14_0000_0000, 0x1000_0000),
            (0x16_0000_0000, 0x1000_0000),
            (0x18_0000_0000, 0x1000_0000),
            (0x1a_0000_0000, 0x1000_0000),
            (0x1c_0000_0000, 0x1000_0000),
            (0x1f_0000_0000, 0x1000_0000),
        ],
    ),
    board("Juno", "64G", 0x8000_0000, &[(0x8000_0000, 0x7f00_0000), (0x8_8000_0000, 0x1_8000_0000)]),
    board(
        "Raspberry Pi 4",
        "16G",
        UP + 0x20_0000,
        &[(UP, 0x3b40_0000), (UP + 0x4000_0000, 0xbc00_0000), (UP + 0x1_0000_0000, 0x1_0000_0000)],
    ),
];

/// An archive with Linux, and a script that verifies all tables before and after a load and enters
/// it.
fn archive_of_linux() -> tempfile::NamedTempFile {
    file(&archive(&[
        ("cmdline", b"earlycon=pl011,0x9000000"),
        ("script", b"verify; kexec load; verify; kexec exec"),
        ("Image", &linux_image()),
    ]))
}

/// An archive with a script that verifies all tables.
fn archive_that_verifies() -> tempfile::NamedTempFile {
    file(&archive(&[("script", b"verify; verify; mem")]))
}

/// Boots with the image at `image` and everything else wherever there is room.
fn boot(
    ram: &str,
    memory: &[(u64, u64)],
    image: u64,
    archive: &tempfile::NamedTempFile,
    last: &str,
) -> String {
    let len = archive.as_file().metadata().expect("the archive").len();
    let header = own_image();
    let image_len = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
    let mut taken = vec![(image, image_len)];
    let mut place = |len: u64| {
        let is_free = |at: u64, taken: &[(u64, u64)]| {
            taken.iter().all(|(start, len_taken)| at + len <= *start || *start + len_taken <= at)
        };
        let candidates = memory.iter().rev().flat_map(|(start, room)| {
            let last = (start + room).checked_sub(len).map(|last| last & !(2 * MIB - 1));
            let first = start.next_multiple_of(2 * MIB);
            let places = last.into_iter().flat_map(move |last| (0..16).map(move |nth| (last, nth)));
            places
                .filter_map(move |(last, nth)| last.checked_sub(nth * 2 * MIB))
                .filter(move |at| *at >= first)
        });
        let at = candidates.into_iter().find(|at| is_free(*at, &taken)).expect("room in memory");
        taken.push((at, len));
        at
    };
    let (initrd, dtb, stub) = (place(len), place(2 * MIB), place(0x1000));
    let boot = LayoutBoot {
        ram,
        cpu: "-cpu max",
        tree: Tree { memory: memory.to_vec(), ..Tree::default() },
        image,
        dtb,
        initrd: (initrd, archive.path()),
        stub,
    };
    boot.run_until(last)
}

#[track_caller]
fn expect_verified(name: &str, console: &str) {
    assert_eq!(console.matches("linmap: verify=ok").count(), 2, "{name}: {console}");
}

/// Where Linux begins to speak, and where a script ends.
const LINUX: &str = "Booting Linux on physical CPU";
const END: &str = "linmap: script=ok";

#[test]
fn published_layouts_are_mapped_right_and_lead_to_linux() {
    let (linux, verifies) = (archive_of_linux(), archive_that_verifies());
    let few = soak_or_first(4, &BOARDS).len();
    for (nth, Board { name, ram, memory, image }) in BOARDS.iter().enumerate() {
        let (archive, last) = if nth < few { (&linux, LINUX) } else { (&verifies, END) };
        expect_verified(name, &boot(ram, memory, *image, archive, last));
    }
}

#[test]
fn an_image_may_lie_low_high_in_the_last_region_and_at_an_odd_2_mib() {
    // QEMU puts a tree of its own at the start of RAM.
    let low = UP + 2 * MIB;
    let memory = [(low, GIB), (UP + 2 * GIB, GIB), (UP + 5 * GIB, 64 * MIB)];
    let high = UP + 3 * GIB - 4 * MIB;
    let last = UP + 5 * GIB + 60 * MIB;
    let (linux, verifies) = (archive_of_linux(), archive_that_verifies());
    let images = [last, low, high, low + 32 * 2 * MIB];
    let few = soak_or_first(1, &images).len();
    for (nth, image) in images.into_iter().enumerate() {
        let (archive, last) = if nth < few { (&linux, LINUX) } else { (&verifies, END) };
        expect_verified("", &boot("8G", &memory, image, archive, last));
    }
}

#[test]
fn machines_with_holes_and_with_two_nodes_are_mapped_right() {
    let numa = "-m 2G -smp 2 -object memory-backend-ram,id=a,size=1G -object memory-backend-ram,id=b,size=1G \
                -numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1";
    let nodes = file(&virt_tree("", numa));
    for (options, bytes) in
        [("--machine xlnx-versal-virt --memory 8G", 8 * GIB), ("--memory 2G --cpus 2", 2 * GIB)]
    {
        let boot = Boot::new(options).with("--script", "verify; kexec load; kexec exec");
        let boot = if options.contains("--machine") { boot } else { boot.with("--dtb", nodes.path()) };
        let outcome = boot.with("--payload", "linux").with("--until", "first-line").run();
        outcome.expect_success();
        assert!(outcome.console.contains("linmap: verify=ok"), "{options}: {}", outcome.console);
        let found = number(outcome.phase("memblock"), "bytes");
        assert!(found <= bytes && found > bytes - bytes / 16, "{options}: {found:#x}");
    }
}

#[test]
fn pages_that_are_partly_memory_are_in_no_leaf_of_larger_granules() {
    for (granule, page) in [("16k", 0x4000), ("64k", 0x1_0000)] {
        for Board { name, ram, memory, .. } in BOARDS.iter().filter(|board| board.name == "HiKey") {
            let tree = Tree { memory: memory.to_vec(), ..Tree::default() }.file();
            let options = format!("--granule {granule} --memory {ram} --payload none");
            let boot = Boot::new(&options).with("--dtb", tree.path());
            let outcome = boot.with("--script", "verify; mem; dump").run();
            assert!(outcome.expect_success().console.contains("verify=ok"), "{name}: {}", outcome.console);
            let whole = |(start, len): &(u64, u64)| {
                ((start + len) / page * page).saturating_sub(start.next_multiple_of(page))
            };
            let all: u64 = memory.iter().map(whole).sum();
            let mapped = outcome.linear_map("bytes");
            assert!(mapped < all && mapped > all - 4 * MIB, "{granule}: {mapped:#x} of {all:#x}");
        }
    }
}
