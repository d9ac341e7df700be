//! The seeds that a payload's device tree has: never those that linmap was booted with, and never
//! the same twice.

use std::io::{Read, Seek, SeekFrom};

use linmap_fdt::{DeviceTree, Token};
use linmap_tests::{RAM, RawBoot, archive, own_image};

/// `kaslr-seed` and `rng-seed`.
type Seeds = [Option<Vec<u8>>; 2];

/// The seeds of each generation's tree, read from memory when all is over.
fn seeds(machine: &str, cpu: &str) -> Vec<Seeds> {
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
    trees.into_iter().map(&mut read).collect()
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

/// The seeds are there, of the length that Linux takes, and no eight bytes of them stand anywhere
/// else in `all`.
#[track_caller]
fn expect_new(all: &[&Seeds]) {
    let mut pieces = Vec::new();
    for [kaslr, rng] in all {
        let (kaslr, rng) = (kaslr.as_ref().expect("a kaslr-seed"), rng.as_ref().expect("an rng-seed"));
        assert_eq!((kaslr.len(), rng.len()), (8, 32));
        pieces.extend(kaslr.chunks(8).chain(rng.chunks(8)).map(<[u8]>::to_vec));
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
    let [loader, first, second] = &seeds("virt,dtb-randomness=on", "cortex-a72")[..] else { unreachable!() };
    assert!(loader.iter().all(Option::is_some));
    expect_new(&[loader, first, second]);
}

#[test]
fn the_cpus_random_numbers_make_seeds_where_the_tree_has_none() {
    let boots = [(); 2].map(|()| seeds("virt,dtb-randomness=off", "max"));
    assert!(boots.iter().all(|boot| boot[0] == [None, None]));
    expect_new(&[&boots[0][1], &boots[0][2], &boots[1][1], &boots[1][2]]);
}

#[test]
fn where_nothing_is_random_there_are_no_seeds() {
    let all = seeds("virt,dtb-randomness=off", "cortex-a72");
    assert!(all.iter().all(|seeds| *seeds == [None, None]), "{all:?}");
}
