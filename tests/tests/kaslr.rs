//! Where the kernel image and the linear map lie: chosen by a seed, told to nobody.

use linmap::{ImageRegion, KaslrSeed};
use linmap_tests::{Boot, PlacedBoot, RAM, Tree, archive, own_image};
use linmap_vmsa::Va;

const LINKED: u64 = 0xffff_fff8_4000_0000;
const MEMORY: u64 = 0x2000_0000;
const INITRD_AT: u64 = RAM + 0x200_0000;

/// The Image header's image_size, in whole pages as the kernel maps it.
fn image_len() -> u64 {
    let size: [u8; 8] = own_image()[16..24].try_into().expect("a header");
    u64::from_le_bytes(size).next_multiple_of(4096)
}

/// Where the kernel may be: what ARCHITECTURE.md says of 4K pages.
fn region() -> ImageRegion {
    ImageRegion { start: Va(LINKED), len: 27 << 30, image_len: image_len(), align: 2 << 20, within: 1 << 30 }
}

/// The console of a boot with `seed` that runs `script`.
fn boot(seed: Option<u64>, bootargs: &str, script: &str, cpu: &str) -> (Tree, String) {
    let archive = archive(&[("script", script.as_bytes())]);
    let tree = Tree {
        bootargs: bootargs.to_owned(),
        kaslr_seed: seed,
        initrd: Some((INITRD_AT, archive.len() as u64)),
        ..Tree::with_memory(MEMORY)
    };
    let console = PlacedBoot { tree: &tree, initrd: &archive }.run_at(PlacedBoot::IMAGE_AT, "1G", cpu);
    (tree, console)
}

#[test]
fn boots_are_where_their_seeds_say() {
    let seeds = [1, 0x0123_4567_89ab_cdef, u64::MAX, 0xfeed_0000_0000_0001];
    let offsets = seeds.map(|seed| region().offset(KaslrSeed::new(seed).expect("a seed")));
    for (at, (seed, offset)) in seeds.into_iter().zip(offsets).enumerate() {
        assert!(!offsets[..at].contains(&offset), "{offsets:x?}");
        // The image is there, and nothing is where it is linked.
        let there = LINKED + offset;
        let script = format!("translate {there:#x}; translate {LINKED:#x}; verify");
        let (_, console) = boot(Some(seed), "", &script, "cortex-a72");
        let image = PlacedBoot::IMAGE_AT;
        assert!(console.contains(&format!("translate={there:#018x} pa={image:#x}")), "{seed:#x}: {console}");
        assert!(console.contains(&format!("translate={LINKED:#018x} fault=")), "{seed:#x}: {console}");
        assert!(console.contains("verify=ok") && console.contains(" kaslr=on "), "{seed:#x}: {console}");
    }
}

#[test]
fn without_a_seed_or_where_the_command_line_says_so_nothing_is_random() {
    let script = format!("translate {LINKED:#x}; map; verify");
    for (seed, line, cpu, kaslr) in [
        (None, "", "cortex-a72", "no-seed"),
        (Some(0), "", "cortex-a72", "no-seed"),
        (Some(7), "nokaslr", "cortex-a72", "off"),
        (Some(7), "quiet linmap.kaslr=off", "max", "off"),
        (None, "", "max", "on"),
    ] {
        let (_, console) = boot(seed, line, &script, cpu);
        let is_linked = console.contains(&format!("translate={LINKED:#018x} pa={:#x}", PlacedBoot::IMAGE_AT));
        let is_first = console.contains(&format!("\n  {:#018x} {RAM:#x}..", 0xffff_0000_0000_0000u64));
        assert!(console.contains(&format!(" kaslr={kaslr} ")), "{line} {cpu}: {console}");
        if kaslr != "on" {
            assert!(is_linked && is_first, "{line} {cpu}: {console}");
        }
        assert!(console.contains("verify=ok"), "{line} {cpu}: {console}");
    }
}

#[test]
fn a_word_that_means_nothing_is_an_error() {
    let (_, console) = boot(Some(7), "linmap.kaslr=no", "map", "cortex-a72");
    assert!(console.contains("linmap: error=kaslr what=\"linmap.kaslr= is on or off\""), "{console}");
}

#[test]
fn the_linear_map_begins_where_the_seed_says_with_the_same_leaves() {
    let leaves = |console: &str| {
        let lines = console.lines().skip_while(|line| !line.starts_with("linear map from"));
        lines.skip(2).take_while(|line| line.starts_with("    ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let start = |console: &str| {
        let line = console.lines().skip_while(|line| !line.starts_with("linear map from")).nth(1);
        line.expect("a range").split_whitespace().next().expect("an address").to_owned()
    };
    let fixed = boot(None, "", "map", "cortex-a72").1;
    let random = [3, 4].map(|seed| boot(Some(seed), "", "map; verify", "cortex-a72").1);
    assert!(leaves(&fixed).len() > 2, "{fixed}");
    assert!(random.iter().all(|random| leaves(random) == leaves(&fixed)), "{random:?}");
    assert_ne!(start(&random[0]), start(&random[1]));
    assert_ne!(start(&random[0]), start(&fixed));
}

/// Every address on the console that lies in the image's part of the space.
fn image_addresses(console: &str) -> Vec<&str> {
    let words = console.split(|c: char| !c.is_ascii_alphanumeric());
    let is_there = |word: &&str| {
        let digits = word.strip_prefix("0x").unwrap_or(word);
        u64::from_str_radix(digits, 16).is_ok_and(|value| (LINKED..LINKED + (27 << 30)).contains(&value))
    };
    words.filter(is_there).collect()
}

#[test]
fn an_ordinary_boot_tells_no_address_of_the_image_and_a_panic_tells_the_offset() {
    let script = "mem; map; verify; cpus; stress 5; kexec load; kexec plan; kexec exec";
    let outcome = Boot::new("--payload self --cpus 2 --cpu max").with("--script", script).run();
    outcome.expect_success();
    assert_eq!(image_addresses(&outcome.console), Vec::<&str>::new(), "{}", outcome.console);
    // A crash kernel ends the run.
    let panic = |append: &str| {
        let append = format!("linmap.crashkernel=128M {append}");
        let boot = Boot::new("--payload self --cpu max").with("--append", append);
        boot.with("--script", "kexec load --crash; panic").run()
    };
    let panicked = panic("");
    let line = panicked.console.lines().find_map(|line| line.strip_prefix("Kernel Offset: "));
    let (offset, linked) = line.and_then(|line| line.trim_end().split_once(" from ")).expect("the offset");
    assert_eq!(linked, format!("{LINKED:#018x}"));
    let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16).expect("a number");
    assert!(offset.is_multiple_of(2 << 20) && offset < 27 << 30, "{offset:#x}");
    let fixed = panic("linmap.kaslr=off");
    assert!(fixed.console.contains("Kernel Offset: disabled"), "{}", fixed.console);
}

#[test]
fn the_image_may_lie_at_any_2_mib_in_any_region() {
    // Below the end of a table of pages of 16K, in the last bytes of a region, and far up.
    let regions = [(RAM, MEMORY), (RAM + 0x4000_0000, 0x5fe0_0000), (0x2ff_0000_0000, 0xfe0_0000)];
    let last = |(start, len): (u64, u64)| (start + len - image_len()) >> 21 << 21;
    for image_at in [RAM + 0x9e0_0000, last(regions[1]), last(regions[2])] {
        let archive = archive(&[("script", b"verify; stress 5; verify")]);
        let tree = Tree {
            memory: regions.to_vec(),
            kaslr_seed: Some(image_at),
            initrd: Some((INITRD_AT, archive.len() as u64)),
            ..Tree::default()
        };
        let console = PlacedBoot { tree: &tree, initrd: &archive }.run_at(image_at, "3T", "max");
        assert!(console.contains(&format!("image={image_at:#x} ")), "{image_at:#x}: {console}");
        assert_eq!(console.matches("verify=ok").count(), 2, "{image_at:#x}: {console}");
        assert!(console.contains("script=ok"), "{image_at:#x}: {console}");
    }
}
