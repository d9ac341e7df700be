//! Trees beside walks: what was folded while reading is what the CPU finds.

use linmap::listing::Runs;
use linmap_table::{FirstMap, Leaf};
use linmap_vmsa::{Descriptor, Geometry, Pa, Va};
use proptest::prelude::*;

use super::machine::{Machine, RAM, attributes, geometries, range};
use crate::dump::described::Described;
use crate::dump::frames::{Frames, Through};
use crate::dump::guest::Root;
use crate::dump::listing::{self, Columns};
use crate::dump::meaning::Decoder;
use crate::dump::reading::Bounds;
use crate::dump::runs;
use crate::dump::tree::{Row, Tree};
use crate::dump::walk::{self, End};

const MEMORY: usize = 4 << 20;

/// A range of a map: start and length in pages, which attributes, which target.
type Part = (u64, u64, usize, u64);

fn part() -> impl Strategy<Value = Part> {
    let len = prop_oneof![1u64..40, 500u64..1500, Just(512), Just(1024), Just(16), Just(1 << 13)];
    (0u64..0x8_0000, len, 0usize..16, 0u64..4)
}

fn map_of(geometry: Geometry, parts: &[Part]) -> FirstMap<48> {
    let page = geometry.granule().bytes();
    let kinds = attributes(geometry);
    let mut map = FirstMap::<48>::new(geometry);
    for &(start, len, kind, target) in parts {
        // Some are aligned to everything, so that there are blocks.
        let start = if kind % 2 == 0 { start & !0x1ff } else { start };
        let pa = (start + (target << 9)) * page;
        let (va, pa) = (Va(start * page), range(pa, len * page));
        if (va.0 + len * page) >> geometry.va_bits() == 0 && pa.end.0 >> geometry.pa_bits() == 0 {
            map.at(va, pa, kinds[kind % kinds.len()]).unwrap();
        }
    }
    map
}

/// Compares the tree with a walk of each address.
fn check(machine: &mut Machine, root: &Root, tree: &Tree, addresses: impl Iterator<Item = u64>) {
    let decoder = Decoder::new(root);
    for va in addresses {
        let walk = walk::walk(root, va, &mut Frames::new(machine), Through::Nothing).unwrap();
        let found = tree.find(va);
        match (&walk.end, found) {
            (
                End::Leaf(pa, described),
                Some((&Row::Leaves { va: first, pa: to, bits, level, tables, .. }, at)),
            ) => {
                assert_eq!(pa.0, to + (at - first), "{va:#x}");
                assert_eq!(**described, Described::of(&decoder.meaning(bits, level, tables)), "{va:#x}");
            }
            (End::Invalid, None) => {}
            (End::Reserved, Some((Row::Reserved { .. }, _))) => {}
            (End::Outside(_), Some((Row::Outside { .. }, _))) => {}
            (End::BeyondPa(_), Some((Row::Outside { .. } | Row::Leaves { .. }, _))) => {}
            (end, found) => panic!("{va:#x}: {end:?}, {found:x?}"),
        }
    }
}

/// The lines that linmap's own kernel prints of the tree.
fn lines_of_the_kernel(geometry: Geometry, tree: &Tree) -> Vec<String> {
    let mut leaves = Vec::new();
    for row in &tree.rows {
        let &Row::Leaves { va, pa, bits, count, level, tables } = row else { panic!("{row:?}") };
        for nth in 0..u64::from(count) {
            let done = nth << geometry.shift(level);
            let pa = Pa(pa + done);
            let descriptor = Descriptor(bits).at(geometry, pa);
            leaves.push(Leaf { va: Va(va + done), pa, level, descriptor, tables });
        }
    }
    Runs::new(geometry, leaves.into_iter()).map(|run| run.to_string()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_address_translates_as_in_a_walk(
        nth in 0..geometries().len(),
        parts in prop::collection::vec(part(), 1..12),
        pokes in prop::collection::vec((0usize..MEMORY / 8, any::<u64>()), 0..4),
        addresses in prop::collection::vec(any::<u64>(), 64),
    ) {
        let geometry = geometries()[nth];
        let map = map_of(geometry, &parts);
        let (mut machine, root) = Machine::with(&map, MEMORY);
        let tree = machine.read_tree(&root);
        if !geometry.regime().has_user_space() || tree.rows.len() < 100 {
            let mut columns = Columns::new(&root);
            let ours: Vec<_> = runs::of(&tree)
                .map(|run| {
                    let mut line = String::new();
                    listing::line(&mut line, &run, &tree, &mut columns).unwrap();
                    line
                })
                .collect();
            let mut kernels = lines_of_the_kernel(geometry, &tree);
            if geometry.regime().is_stage_2() {
                // What of it is code the guest's own tables say.
                kernels.iter_mut().for_each(|line| *line = line.trim_end_matches(" W+X").to_owned());
            }
            prop_assert_eq!(ours, kernels);
        }
        for (nth, word) in &pokes {
            machine.set(RAM + 8 * *nth as u64 % 0x4_0000, *word);
        }
        let tree = machine.read_tree(&root);
        let page = geometry.granule().bytes();
        let near = parts.iter().flat_map(|(start, len, ..)| {
            [start * page, (start + len) * page, (start & !0x1ff) * page, (start + len / 2) * page + 8]
        });
        let mask = (1 << geometry.va_bits()) - 1;
        let all: Vec<_> = near.chain(addresses).map(|va| va & mask).collect();
        check(&mut machine, &root, &tree, all.iter().copied());
        // A part alone says the same of its addresses.
        let (first, last) = (all[0].min(all[1]), all[0].max(all[1]));
        let part = machine.read_in(&root, Bounds { range: (first, last), rows: 1 << 20 });
        check(&mut machine, &root, &part, all.into_iter().filter(|va| (first..=last).contains(va)));
    }
}
