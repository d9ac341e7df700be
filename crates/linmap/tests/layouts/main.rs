//! Random layouts of memory, each in a random geometry, leaf policy and builder, on host memory,
//! compared with what the rules say: see `rules`.
//!
//! `LINMAP_SEQUENCES` sets how many layouts are tried,
//! `LINMAP_SEED` where the random numbers begin; `LINMAP_SOAK` tries many.

mod memory;
#[path = "../changes/machine/random.rs"]
mod random;
#[path = "../rules/mod.rs"]
mod rules;
mod wide;

use std::io::Write as _;

use linmap::{Builder, Layout, MappingLists};
use linmap_table::Leaves;
use linmap_vmsa::{Geometry, Granule, Pa, PaRange};

use memory::Setting;
use random::{Random, seed, sequences};
use rules::build::{Outcome, Wanted, build};
use rules::geometries::GEOMETRIES;
use rules::host::Host;

#[test]
fn any_layout_is_mapped_once_by_the_largest_leaves_and_the_fewest_tables() {
    let seed = seed();
    let count = sequences(20_000, 1_000_000);
    let _ = writeln!(std::io::stderr(), "LINMAP_SEED={seed} LINMAP_SEQUENCES={count}");
    let (mut host, mut lists) = (Host::new(), Box::new(MappingLists::new()));
    let (mut leaves, mut table_bytes, mut built) = (0, 0, 0);
    for nth in 0..count {
        let own = seed.wrapping_add(nth);
        let setting = Setting::random(&mut Random::new(own));
        match build(&setting.wanted(), &mut host, &mut lists) {
            Ok(Outcome::Built(of)) => {
                built += 1;
                let of_pages = of.leaves.pages + of.leaves.pages_in_runs;
                leaves += of_pages + of.leaves.blocks + of.leaves.blocks_in_runs;
                table_bytes += of.table_bytes;
            }
            Ok(Outcome::TooWide) => {}
            Err(reason) => panic!("LINMAP_SEED={own} LINMAP_SEQUENCES=1: {reason}\n{setting:#x?}"),
        }
        let is_firmwares = |pa: u64| setting.no_map.iter().any(|hole| hole.contains(Pa(pa)));
        for range in &setting.memory {
            assert!(setting.ram.iter().any(|ram| ram.covers(*range)) || setting.ram.len() > 1);
            assert!(!is_firmwares(range.start.0) && !is_firmwares(range.end.0 - 1));
        }
    }
    let _ = writeln!(std::io::stderr(), "{built} built, {leaves} leaves, {table_bytes} bytes of tables");
    assert!(built * 2 > count, "most layouts have to be ones that can be built");
}

#[test]
fn what_each_builder_costs_is_derived_without_building() {
    let seed = seed();
    let count = sequences(500, 20_000);
    let _ = writeln!(std::io::stderr(), "LINMAP_SEED={seed} LINMAP_SEQUENCES={count}");
    let (mut host, mut lists) = (Host::new(), Box::new(MappingLists::new()));
    let mut built = std::collections::BTreeMap::new();
    for nth in 0..count {
        let own = seed.wrapping_add(nth);
        let setting = Setting::random(&mut Random::new(own));
        for builder in Builder::ALL {
            let wanted = Wanted { builder, ..setting.wanted() };
            // It compares tables, leaves, TLBIs, barriers and frames with what was derived.
            match build(&wanted, &mut host, &mut lists) {
                Ok(Outcome::Built(_)) => {
                    let nth = GEOMETRIES.iter().position(|geometry| *geometry == setting.geometry);
                    *built.entry((nth, builder.name())).or_insert(0) += 1;
                }
                Ok(Outcome::TooWide) => {}
                Err(reason) => panic!("LINMAP_SEED={own} LINMAP_SEQUENCES=1: {reason}\n{setting:#x?}"),
            }
        }
    }
    assert!(count < 500 || built.len() == GEOMETRIES.len() * Builder::ALL.len(), "{built:?}");
}

#[test]
fn memory_as_wide_as_the_linear_region_is_mapped_and_one_page_more_is_not() {
    let (mut host, mut lists) = (Host::new(), Box::new(MappingLists::new()));
    for (granule, va_bits, pa_bits, region) in [
        (Granule::K4, 39, 48, 1u64 << 38),
        (Granule::K4, 48, 48, 1 << 47),
        (Granule::K16, 36, 48, 1 << 35),
        (Granule::K64, 42, 48, 1 << 41),
        (Granule::K4, 52, 52, (1 << 52) - (1 << 48)),
        (Granule::K16, 52, 52, (1 << 52) - (1 << 47)),
        (Granule::K64, 52, 52, (1 << 52) - (1 << 47)),
    ] {
        let geometry = Geometry::new(granule, va_bits, pa_bits).expect("a shape that there is");
        let page = granule.bytes();
        for (more, is_built) in [(0, true), (page, false)] {
            let end = region + more;
            let memory = vec![PaRange::new(Pa(0), Pa(2 * page)), PaRange::new(Pa(end - 3 * page), Pa(end))];
            let setting = Setting {
                pages: Vec::new(),
                geometry,
                leaves: Leaves::Blocks,
                builder: Builder::Identity,
                ram: memory.clone(),
                no_map: Vec::new(),
                memory,
                image: linmap::ImageParts::default(),
                seed: None,
            };
            match build(&setting.wanted(), &mut host, &mut lists) {
                Ok(Outcome::Built(of)) => assert!(is_built && of.bytes == 5 * page && of.leaves.pages == 5),
                outcome => assert!(!is_built && outcome == Ok(Outcome::TooWide), "{outcome:?}"),
            }
            assert!(!is_built || Layout::base(geometry).0 == u64::MAX << va_bits);
        }
    }
}
