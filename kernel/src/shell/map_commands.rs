//! Commands that show memory and its map, and verify it.

use arrayvec::ArrayVec;
use linmap::Layout;
use linmap::listing::{Run, Runs, Size};
use linmap_table::{LeafIter, Walk, walk};
use linmap_vmsa::{Geometry, Level, PaRange, Va};

use crate::arch::cpu;
use crate::arch::image::{self, Image};
use crate::arch::layout::{DTB_WINDOW, FIXMAP, STACKS};
use crate::arch::print::Quoted;
use crate::memory::expected::KnownMappings;
use crate::memory::physical::Memory;
use crate::memory::table_memory::OwnedRanges;
use crate::memory::table_slots::TableSlots;
use crate::memory::verify::{self, Mismatch};
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;
use crate::smp::stacks;
use crate::{report, say};

/// Shows memblock: memory, no-map and reserved ranges.
pub fn mem(memory: &Memory) -> Result<(), CommandError> {
    let line = |kind: &str, range| say!("  {kind:<9} {range}  {}", Size(PaRange::len(range)));
    for region in memory.memblock.regions() {
        line(if region.no_map { "no-map" } else { "memory" }, region.range);
    }
    for range in memory.memblock.reserved() {
        line("reserved", *range);
    }
    let reserved: u64 = memory.memblock.reserved().iter().map(|range| range.len()).sum();
    let all = memory.memblock.memory_len();
    say!("{} of memory, {} of it reserved.", Size(all), Size(reserved));
    report!("memory={all} reserved={reserved}");
    Ok(())
}

/// The number of leaves of one kind, and their size.
#[derive(Clone, Copy, Default)]
struct LeafCount {
    entries: u64,
    bytes: u64,
}

/// Shows the linear map: ranges, leaf sizes, tables.
pub fn map(memory: &Memory, image: Image) -> Result<(), CommandError> {
    let geometry = memory.geometry();
    let base = Layout::base(geometry);
    let linear_end = base.0 + Layout::region_len(geometry);
    say!("linear map from {base}, memstart {}", memory.layout.memstart());
    for range in memory.mapped() {
        say!("  {} {range}  {}", memory.layout.linear(range.start), Size(range.len()));
    }
    // By level, 0 to 3, and by the contiguous bit.
    let mut counts = [[LeafCount::default(); 2]; 4];
    let mut window = memory.tables();
    // SAFETY: the live tree, whose tables the window reaches.
    let mut leaves =
        unsafe { LeafIter::new(geometry, image.swapper(), geometry.start_level(), base, &mut window) };
    let mut tables = 0;
    while let Some(leaf) = leaves.next() {
        if leaf.va.0 >= linear_end {
            break;
        }
        // All tables entered so far are the linear map's, except the root.
        tables = leaves.tables() - 1;
        let level = usize::try_from(leaf.level.number()).unwrap_or(0);
        let count = &mut counts[level][usize::from(leaf.descriptor.is_contiguous())];
        count.entries += 1;
        count.bytes += geometry.entry_bytes(leaf.level);
    }
    for (number, by_level) in (0..).zip(&counts) {
        let Some(level) = Level::new(number) else { continue };
        for (count, contiguous) in by_level.iter().zip(["", " contiguous"]) {
            if count.entries > 0 {
                let leaf = Size(geometry.entry_bytes(level));
                say!("  {leaf:>4}{contiguous:<11} {:>10} entries  {}", count.entries, Size(count.bytes));
            }
        }
    }
    let table_bytes = tables * geometry.granule().bytes();
    let [.., pages] = counts.map(|by_level| by_level[0].entries + by_level[1].entries);
    let blocks: u64 = counts.iter().flatten().map(|count| count.entries).sum::<u64>() - pages;
    say!(
        "The linear map has {blocks} blocks and {pages} pages in {tables} tables of {} together.",
        Size(table_bytes)
    );
    report!("map=ok tables={tables} table_bytes={table_bytes} blocks={blocks} pages={pages}");
    Ok(())
}

/// Shows all live mappings of TTBR1 with runs folded. Memory that is writable and executable, at
/// one address or at two, is an error.
pub fn dump(memory: &Memory, image: Image) -> Result<(), CommandError> {
    let geometry = memory.geometry();
    let mut runs = 0;
    let mut area = "";
    for_each_run(memory, image, |run| {
        let here = area_of(run, geometry);
        if here != area {
            say!("---[ {here} ]---");
            area = here;
        }
        say!("{run}");
        runs += 1;
    });
    let both = writable_and_executable(memory, image);
    report!("dump=ok runs={runs} wx={both}");
    if both > 0 {
        return Err(CommandError::WritableAndExecutable(both));
    }
    say!("{runs} runs, none of them both writable and executable.");
    Ok(())
}

/// Calls `what` with all runs of TTBR1, ascending.
fn for_each_run(memory: &Memory, image: Image, mut what: impl FnMut(&Run)) {
    let geometry = memory.geometry();
    let (start, base) = (geometry.start_level(), Layout::base(geometry));
    let mut window = memory.tables();
    // SAFETY: the live tree, whose tables the window reaches.
    let leaves = unsafe { LeafIter::new(geometry, image.swapper(), start, base, &mut window) };
    for run in Runs::new(geometry, leaves) {
        what(&run);
    }
}

/// Shows all pairs of a writable and an executable run that share memory, and returns how many
/// there are. A run that allows both is a pair with itself.
fn writable_and_executable(memory: &Memory, image: Image) -> u64 {
    let mut pairs = 0;
    let mut done = 0;
    loop {
        // Few runs are executable: a pass for each handful of them.
        let mut executable = ArrayVec::<Run, 32>::new();
        let mut nth = 0;
        for_each_run(memory, image, |run| {
            if run.executable() {
                if nth >= done && !executable.is_full() {
                    executable.push(*run);
                }
                nth += 1;
            }
        });
        for_each_run(memory, image, |run| {
            for other in executable.iter().filter(|_| run.writable()) {
                let shared = run.shared_memory(other);
                if !shared.is_empty() {
                    say!("W+X: {shared} is writable from {} on and executable from {} on", run.va, other.va);
                    pairs += 1;
                }
            }
        });
        done += executable.len();
        if done >= nth {
            return pairs;
        }
    }
}

fn area_of(run: &Run, geometry: Geometry) -> &'static str {
    if run.va.0 < Layout::base(geometry).0 + Layout::region_len(geometry) {
        "linear map"
    } else if run.va < STACKS {
        "kernel image"
    } else if run.va < DTB_WINDOW {
        "stacks of CPUs"
    } else if run.va < FIXMAP {
        "device tree"
    } else {
        "fixmap"
    }
}

/// The words of `translate`.
pub const TRANSLATE: &str = "translate VA";

/// Shows how the tables and the MMU translate an address.
pub fn translate(memory: &Memory, image: Image, word: &str) -> Result<(), CommandError> {
    const WRONG: CommandError = CommandError::Usage("translate VA (hexadecimal)");
    let va = Va(u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).map_err(|_| WRONG)?);
    let in_ttbr1 = va.0 >= Layout::base(memory.geometry()).0;
    // SAFETY: as for `map`.
    match unsafe { walk(memory.geometry(), image.swapper(), va, &mut memory.tables()) } {
        _ if !in_ttbr1 => say!("  tables: not an address of TTBR1"),
        Walk::Leaf { pa, level, descriptor, tables } if tables.is_all() => {
            say!("  tables: {pa}, level {level}, {descriptor:?}");
        }
        Walk::Leaf { pa, level, descriptor, tables } => {
            say!("  tables: {pa}, level {level}, {descriptor:?}, restricted by tables: {tables}");
        }
        Walk::Fault { level } => say!("  tables: translation fault, level {level}"),
    }
    match cpu::translate(va) {
        Ok(pa) => {
            say!("  AT:     {pa}");
            say!("The MMU translates {va} to {pa}.");
            report!("translate={va} pa={pa}");
        }
        Err(status) => {
            say!("  AT:     fault, status {status:#x}");
            say!("The MMU does not translate {va}.");
            report!("translate={va} fault={status:#x}");
        }
    }
    Ok(())
}

/// Verifies all mappings.
pub fn verify(owners: &mut Owners) -> Result<(), CommandError> {
    let started = cpu::counter();
    let Owners { platform, memory, map, cpus, reservations, preserved, payloads } = owners;
    let Memory { memblock, fixmap, changed, .. } = memory;
    let known = KnownMappings {
        image: platform.image,
        memblock,
        changed,
        map: &map.map,
        dtb: platform.dtb.at,
        console: platform.console,
        gic: cpus.mapped_gic(),
    };
    let owned = reservations.ranges().iter().copied().chain(preserved.ranges());
    let owned: OwnedRanges = owned.chain([payloads.crash_memory.range]).collect();
    let stacks = || cpus.stack_memory().expected(map.map.global());
    let guards = image::guards().into_iter().chain((1..cpus.with_stacks()).flat_map(stacks::guards));
    let mut table_ticks = 0;
    let verified = TableSlots::new(fixmap, platform.image)
        .map_err(|slot| Mismatch::Slot { slot })
        .and_then(|mut window| verify::verify_tables(known, map, stacks, &owned, &mut window))
        .and_then(|compared| {
            table_ticks = cpu::ticks_since(started);
            Ok((compared, verify::probe(known, guards)?))
        });
    let (compared, probed) = verified.inspect_err(|mismatch| {
        report!("verify=failed what={}", Quoted(mismatch));
    })?;
    let (entries, ranges, holes) = (compared.entries, probed.ranges, probed.holes);
    say!("All mappings are right. Entries: {entries}, ranges of memory: {ranges}, holes: {holes}.");
    report!(
        "verify=ok tables={} entries={} table_ticks={table_ticks} mapped={} faults={} ranges={} holes={} \
         ticks={}",
        compared.tables,
        compared.entries,
        probed.mapped,
        probed.faults,
        probed.ranges,
        probed.holes,
        cpu::ticks_since(started)
    );
    Ok(())
}
