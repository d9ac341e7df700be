//! Trees with long names, with bytes behind them, and corrupt ones.

use linmap_fdt::parse_dtb;
use proptest::prelude::*;

use crate::tree::{Map, everything, fill, one_gigabyte};

/// Offsets of fields in the header, in bytes.
const TOTAL_SIZE: usize = 4;
const STRINGS: usize = 12;
const STRINGS_SIZE: usize = 32;

fn get(dtb: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(dtb[at..at + 4].try_into().unwrap())
}

fn set(dtb: &[u8], at: usize, value: u32) -> Vec<u8> {
    let mut changed = dtb.to_vec();
    changed[at..at + 4].copy_from_slice(&value.to_be_bytes());
    changed
}

#[test]
fn names_longer_than_the_specification_allows_are_read() {
    // The Raspberry Pi 4's tree has such a name. The last name of the strings block grows.
    let dtb = one_gigabyte().node("cpus", &[("arm,cpu-registers", vec![])]).blob();
    let strings = get(&dtb, STRINGS) as usize + get(&dtb, STRINGS_SIZE) as usize;
    assert_eq!(dtb[strings - 18..strings], *b"arm,cpu-registers\0");
    let more = b"-not-fw-configured\0";
    let mut long = set(&dtb, TOTAL_SIZE, get(&dtb, TOTAL_SIZE) + more.len() as u32);
    long = set(&long, STRINGS_SIZE, get(&dtb, STRINGS_SIZE) + more.len() as u32 - 1);
    long.splice(strings - 1..strings, more.iter().copied());
    long.push(0);
    assert_eq!(fill(&long).unwrap(), fill(&dtb).unwrap());
}

#[test]
fn bytes_behind_the_tree_are_ignored() {
    let dtb = everything();
    let longer = [&dtb[..], &[0xff; 100]].concat();
    assert_eq!(fill(&longer).unwrap(), fill(&dtb).unwrap());
}

/// Reads all that can be read, as a kernel would.
fn read(dtb: &[u8]) {
    let mut map = Map::new();
    match parse_dtb(dtb) {
        Ok(fdt) => {
            if let Err(error) = map.fill_from_fdt(fdt) {
                assert_eq!(map, Map::new());
                assert!(!error.to_string().contains('\n'));
            }
            // Visits every node, property and string.
            fdt.root()
                .descendants()
                .for_each(|(_, node)| assert!(!node.name().is_empty() && node.properties().all(|_| true)));
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_corruption_makes_reading_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut dtb = everything();
        for (index, value) in flips {
            let index = index.index(dtb.len());
            dtb[index] = value;
        }
        if let Some(cut) = cut {
            dtb.truncate(cut.index(dtb.len()));
        }
        read(&dtb);
    }

    #[test]
    fn no_changed_word_makes_reading_panic(
        words in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![0..12_u32, Just(u32::MAX), 0..1024_u32, any::<u32>()]),
            1..4,
        ),
    ) {
        let mut dtb = everything();
        for (index, value) in words {
            dtb = set(&dtb, index.index(dtb.len() / 4) * 4, value);
        }
        read(&dtb);
    }
}

#[test]
fn no_single_word_and_no_length_makes_reading_panic() {
    let dtb = everything();
    for len in 0..dtb.len() {
        // Both with the size in the header left alone and with it made to fit.
        read(&dtb[..len]);
        if len >= 8 {
            read(&set(&dtb, TOTAL_SIZE, len as u32)[..len]);
        }
    }
    for at in (0..dtb.len() / 4).map(|word| word * 4) {
        for value in [0, 1, 2, 3, 4, 9, 0x10, 0x7fff_ffff, u32::MAX - 3, u32::MAX] {
            read(&set(&dtb, at, value));
        }
    }
}
