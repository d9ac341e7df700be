//! The seeds that a payload's device tree has: never those that linmap was booted with, and never
//! the same twice.

use std::io::{Read, Seek, SeekFrom};

use linmap_fdt::{DeviceTree, Token};
use linmap_tests::{RAM, RawBoot, archive, own_image};

/// `kaslr-seed` and `rng-seed`.
type Seeds = [Option<Vec<u8>>; 2];

/// The seeds of each generation's tree, read from memory when all is over, and whether the kernel
/// had one.
fn seeds(machine: &str, cpu: &str) -> (Vec<Seeds>, Vec<String>) {
    let archive = archive(&[("Image", &own_image())]);
    let command_line = "linmap.payload=self linmap.generations=2";
    let boot = RawBoot { initrd: &archive, command_line };
    let (console, mut memory) = boot.run_and_read_memory(machine, cpu);
    let trees: Vec<u64> = console
        .lines()
        .filter(|line| line.starts_with("linmap: generation="))
        .filter_map(|line| line.trim_end().rsplit_once(" dtb=0x"))
        .map(|(_, address)| u64::from_str_radix(address, 16).expect("an address"))
        .collect();
    assert_eq!(trees.len(), 3, "{console}");
    let mut read = |address: u64| {
        // The most that a tree may have (booting.rst).
        let mut blob = Vec::new();
        memory.as_file_mut().seek(SeekFrom::Start(address - RAM)).expect("a place in memory");
        memory.as_file().take(2 << 20).read_to_end(&mut blob).expect("a tree");
        seeds_of(&blob)
    };
    let words = console.lines().filter(|line| line.starts_with("linmap: generation=")).filter_map(|line| {
        let (_, rest) = line.split_once(" kaslr=")?;
        rest.split_whitespace().next().map(str::to_owned)
    });
    (trees.into_iter().map(&mut read).collect(), words.collect())
}

fn seeds_of(blob: &[u8]) -> Seeds {
    let tree = DeviceTree::parse(blob).expect("a tree");
    let mut found = [None, None];
    for piece in tree.tokens() {
        if let Token::Property { name, value } = piece.expect("a token").token {
            for (seed, wanted) in found.iter_mut().zip(["kaslr-seed", "rng-seed"]) {
                if name == wanted {
                    assert!(seed.is_none(), "{name} stands twice");
                    *seed = Some(value.to_vec());
                }
            }
        }
    }
    found
}

/// Every kernel has used the `kaslr-seed` that it found and overwritten it; the `rng-seed`s are
/// there, of the length that Linux takes, and no eight bytes of them stand anywhere else in `all`.
#[track_caller]
fn expect_new(all: &[&Seeds]) {
    let mut pieces = Vec::new();
    for [kaslr, rng] in all {
        let (kaslr, rng) = (kaslr.as_ref().expect("a kaslr-seed"), rng.as_ref().expect("an rng-seed"));
        assert_eq!((&kaslr[..], rng.len()), (&[0; 8][..], 32));
        pieces.extend(rng.chunks(8).map(<[u8]>::to_vec));
    }
    assert!(pieces.iter().all(|piece| piece.iter().any(|byte| *byte != 0)));
    let count = pieces.len();
    pieces.sort();
    pieces.dedup();
    assert_eq!(pieces.len(), count, "a seed stands twice");
}

#[test]
fn seeds_of_the_boot_loader_become_others_in_each_generation() {
    // Without random numbers of the CPU's own.
    let (trees, kaslr) = seeds("virt,dtb-randomness=on", "cortex-a72");
    expect_new(&trees.iter().collect::<Vec<_>>());
    assert_eq!(kaslr, ["on"; 3]);
}

#[test]
fn the_cpus_random_numbers_make_seeds_where_the_tree_has_none() {
    let boots = [(); 2].map(|()| seeds("virt,dtb-randomness=off", "max"));
    assert!(boots.iter().all(|(trees, kaslr)| trees[0] == [None, None] && *kaslr == ["on"; 3]));
    let [first, second] = &boots;
    expect_new(&[&first.0[1], &first.0[2], &second.0[1], &second.0[2]]);
}

#[test]
fn where_nothing_is_random_there_are_no_seeds() {
    let (all, kaslr) = seeds("virt,dtb-randomness=off", "cortex-a72");
    assert!(all.iter().all(|seeds| *seeds == [None, None]), "{all:?}");
    assert_eq!(kaslr, ["no-seed"; 3]);
}
