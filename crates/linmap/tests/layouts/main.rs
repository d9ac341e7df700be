//! Random layouts of memory, each in a random geometry, leaf policy and builder, on host memory:
//! every mapped byte translates to itself exactly once with the right attributes, nothing else is
//! mapped, every leaf is the largest that alignment allows, and no table is more than it takes.
//!
//! The tables are read by their bits and compared with what the rules say. Neither `linmap-table`
//! nor `linmap-vmsa` takes part in that. `LINMAP_SEQUENCES` sets how many layouts are tried,
//! `LINMAP_SEED` where the random numbers begin; `LINMAP_SOAK` tries many.

mod expected;
mod host;
mod memory;
#[path = "../machine/random.rs"]
mod random;

use std::io::Write as _;

use linmap::{Builder, BuilderSlots, ConfigError, Layout, LayoutError, LinearMapConfig, MappingLists};
use linmap_table::{Fixmap, Leaves, Reserved};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::{tcr, ttbr};
use linmap_vmsa::{Geometry, Granule, Pa, PaRange, Va};

use expected::{Leaf, Tables, leaves, parts, sizes};
use host::Host;
use memory::Setting;
use random::{Random, seed, sequences};

const SLOTS: BuilderSlots = BuilderSlots { tables: [1, 2, 3, 4, 5], leaf_tables: 8..24 };

/// What became of a layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// It was built, with this many leaves.
    Built(u64),
    /// It is wider than the linear region or the 1:1 map.
    TooWide,
}

/// Builds the linear map and compares it with what the rules say.
fn run(setting: &Setting, host: &mut Host, lists: &mut MappingLists<'_, 64>) -> Result<Outcome, String> {
    let geometry = setting.geometry;
    let page = geometry.granule().bytes();
    host.reset(page);
    let (root, empty, fixmap) = (host.cleared(), host.cleared(), host.cleared());
    let fixed = host.out();
    let config = LinearMapConfig {
        geometry,
        image: setting.image,
        leaves: setting.leaves,
        builder: setting.builder,
        slots: SLOTS,
        root,
        reserved: Reserved {
            ttbr0: ttbr(geometry, empty, 0).map_err(|error| error.to_string())?,
            tcr: tcr(geometry, geometry, true).map_err(|error| error.to_string())?,
        },
        bbm: BbmLevel::L0,
    };
    let (Some(first), Some(last)) = (setting.memory.first(), setting.memory.last()) else {
        let error = config.prepare([], lists).map(|_| ()).expect_err("no memory");
        return if error == ConfigError::NoMemory { Ok(Outcome::TooWide) } else { Err(error.to_string()) };
    };
    // The linear region begins at a multiple of what the layout promises to align.
    let align = if geometry.granule() == Granule::K64 { 1u64 << 29 } else { 1 << 30 };
    let memstart = first.start.0 / align * align;
    let is_too_wide = last.end.0 - memstart > 1 << (geometry.va_bits() - 1);
    // T0SZ has 48 bits, or the 52 that the kernel's half shows that the CPUs have.
    let reach = if geometry.lpa2() || geometry.va_bits() > 48 { 52 } else { 48 };
    let is_beyond_1_to_1 = setting.builder == Builder::Identity && last.end.0 > 1u64 << reach;
    let prepared = match config.prepare(setting.memory.iter().copied(), lists) {
        Ok(_) if is_too_wide || is_beyond_1_to_1 => return Err("it can't be in reach".into()),
        Ok(prepared) => prepared,
        Err(ConfigError::Layout(LayoutError::TooWide { .. })) if is_too_wide => return Ok(Outcome::TooWide),
        Err(ConfigError::Identity(_)) if is_beyond_1_to_1 => return Ok(Outcome::TooWide),
        Err(error) => return Err(error.to_string()),
    };
    let base = u64::MAX << geometry.va_bits();
    let fixmap_base = Va(u64::MAX << 29);
    let mut cpu = host.cpu(geometry, fixmap, fixmap_base);
    // SAFETY: a table of empty entries that nothing else changes.
    let mut slots = unsafe { Fixmap::new(geometry, host.pointer(fixmap), fixmap_base) };
    // SAFETY: nothing walks the tables, and all frames are host memory.
    let map = unsafe { prepared.build(&mut slots, &mut cpu, host) }.map_err(|error| error.to_string())?;
    let (built, offset) = (map.built(), base.wrapping_sub(memstart));
    if map.layout().offset() != offset {
        return Err(format!("memstart is {}, not {memstart:#x}", map.layout().memstart()));
    }
    let mut found = Vec::new();
    let top = sizes_of_tables(geometry);
    read(host, geometry, root, &top, base, &mut found)?;
    let mut tables = Tables::new(geometry);
    let (mut nth, mut wrong, mut bytes) = (0, None, 0);
    let parts = parts(&setting.memory, setting.image.range(), setting.leaves);
    leaves(&sizes(geometry), &parts, offset, |leaf| {
        if found.get(nth) != Some(&leaf) {
            wrong.get_or_insert((found.get(nth).copied(), leaf));
        }
        nth += 1;
        bytes += 1 << leaf.shift;
        tables.add(leaf);
    });
    if let Some((found, leaf)) = wrong {
        return Err(format!("found {found:x?}, should be {leaf:x?}"));
    }
    if let Some(more) = found.get(nth) {
        return Err(format!("{more:x?} is mapped besides"));
    }
    let counted = (built.tables, built.entries, built.bytes, host.out() - fixed);
    let least = (tables.count, nth as u64, bytes, tables.count);
    if counted != least {
        return Err(format!("tables, entries, bytes, frames: {counted:?}, should be {least:?}"));
    }
    let memory: u64 = setting.memory.iter().map(|range| range.len()).sum();
    if bytes != memory {
        return Err(format!("{bytes:#x} bytes are mapped of {memory:#x}"));
    }
    Ok(Outcome::Built(built.entries))
}

/// log2 of what an entry covers, from the root to pages.
fn sizes_of_tables(geometry: Geometry) -> Vec<u32> {
    let page = geometry.granule().bytes().trailing_zeros();
    let all = (0..).map(|level| page + level * (page - 3));
    let mut shifts: Vec<u32> = all.take_while(|shift| *shift < u32::from(geometry.va_bits())).collect();
    shifts.reverse();
    shifts
}

/// Reads the leaves below a table in ascending order (Arm ARM D8.3, the VMSAv8-64 descriptor
/// formats).
fn read(
    host: &Host,
    geometry: Geometry,
    table: Pa,
    shifts: &[u32],
    base: u64,
    found: &mut Vec<Leaf>,
) -> Result<(), String> {
    let [shift, below @ ..] = shifts else { return Err("a table below pages".into()) };
    let (granule, va_bits) = (geometry.granule(), u32::from(geometry.va_bits()));
    let page = granule.bytes().trailing_zeros();
    let is_root = va_bits - shift <= page - 3 && base == u64::MAX << va_bits;
    let entries = if is_root { va_bits - shift } else { page - 3 };
    let is_wide = va_bits > 48 || geometry.pa_bits() > 48;
    let lpa2 = is_wide && granule != Granule::K64;
    let lpa = geometry.pa_bits() == 52 && granule == Granule::K64;
    // SAFETY: the map is built; nothing changes it.
    for (index, &bits) in unsafe { host.entries(table, 1 << entries) }.iter().enumerate() {
        if bits & 1 == 0 {
            if bits != 0 {
                return Err(format!("the invalid entry {index} of {table} is {bits:#x}"));
            }
            continue;
        }
        let va = base + ((index as u64) << shift);
        let low = bits & ((1 << 48) - 1) & !((1 << page) - 1);
        let pa = match (lpa2, lpa) {
            (true, _) => bits & ((1 << 50) - 1) & !((1 << page) - 1) | (bits >> 8 & 3) << 50,
            (_, true) => low | (bits >> 12 & 0xf) << 48,
            _ => low,
        };
        let is_table_or_page = bits & 2 != 0;
        if is_table_or_page && !below.is_empty() {
            read(host, geometry, Pa(pa), below, va, found)?;
            continue;
        }
        if is_table_or_page != below.is_empty() {
            return Err(format!("{va:#x} is {bits:#x}, no page and no block"));
        }
        // AttrIndx 0, AP[1] clear, SH inner (a field of TCR with LPA2), AF set, nG clear, no DBM,
        // PXN and UXN set, everything software could use clear.
        let shareable = if lpa2 { 0 } else { 3 << 8 };
        let ignored = 3 | 1 << 7 | 1 << 52 | if lpa2 { 3 << 8 } else { 0 };
        let address = if lpa2 { (1 << 50) - 1 } else { (1 << 48) - 1 } & !((1u64 << page) - 1);
        let address = if lpa { address | 0xf << 12 } else { address };
        if bits & !ignored & !address != 1 << 10 | 3 << 53 | shareable {
            return Err(format!("{va:#x} is {bits:#x}: other attributes"));
        }
        let (contiguous, read_only) = (bits >> 52 & 1 == 1, bits >> 7 & 1 == 1);
        found.push(Leaf { va, pa, shift: *shift, contiguous, read_only });
    }
    Ok(())
}

#[test]
fn any_layout_is_mapped_once_by_the_largest_leaves_and_the_fewest_tables() {
    let seed = seed();
    let count = sequences(20_000, 1_000_000);
    let _ = writeln!(std::io::stderr(), "LINMAP_SEED={seed} LINMAP_SEQUENCES={count}");
    let (mut host, mut lists) = (Host::new(), Box::new(MappingLists::new()));
    let (mut entries, mut built) = (0, 0);
    for nth in 0..count {
        let own = seed.wrapping_add(nth);
        let setting = Setting::random(&mut Random::new(own));
        match run(&setting, &mut host, &mut lists) {
            Ok(Outcome::Built(leaves)) => {
                built += 1;
                entries += leaves;
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
    let _ = writeln!(std::io::stderr(), "{built} built, {entries} leaves");
    assert!(built * 2 > count, "most layouts have to be ones that can be built");
}

#[test]
fn memory_as_wide_as_the_linear_region_is_mapped_and_one_page_more_is_not() {
    let (mut host, mut lists) = (Host::new(), Box::new(MappingLists::new()));
    for (granule, va_bits) in [(Granule::K4, 39), (Granule::K4, 48), (Granule::K16, 36), (Granule::K64, 42)] {
        let geometry = Geometry::new(granule, va_bits, 48).expect("a shape that there is");
        let page = granule.bytes();
        for (more, is_built) in [(0, true), (page, false)] {
            let end = (1u64 << (va_bits - 1)) + more;
            let memory = vec![PaRange::new(Pa(0), Pa(2 * page)), PaRange::new(Pa(end - 3 * page), Pa(end))];
            let setting = Setting {
                geometry,
                leaves: Leaves::Blocks,
                builder: Builder::Identity,
                ram: memory.clone(),
                no_map: Vec::new(),
                memory,
                image: linmap::ImageParts::default(),
            };
            let outcome = run(&setting, &mut host, &mut lists);
            assert_eq!(outcome, Ok(if is_built { Outcome::Built(5) } else { Outcome::TooWide }));
            assert!(!is_built || Layout::base(geometry).0 == u64::MAX << va_bits);
        }
    }
}
