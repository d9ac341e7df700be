//! Judges the trees of a machine: all findings, worst first.

use std::ops::Range;

use linmap::listing::Size;
use linmap_vmsa::Level;

use crate::dump::aliases::{self, Clash, Clashes, Mapped};
use crate::dump::counted::Counted;
use crate::dump::finding::{Finding, Findings, Place, Severity};
use crate::dump::frames::bytes_inside;
use crate::dump::guest::{AddressSpace, Root};
use crate::dump::meaning::{ACCESSED, AP2, CONTIGUOUS, Decoder, Sharing};
use crate::dump::runs;
use crate::dump::tree::{Contiguity, Entry, FLAWS_HELD, Flaw, Row, Tree};

/// A tree that was read, and its root.
#[derive(Debug)]
pub struct ReadTree {
    /// The root.
    pub root: Root,
    /// The tree.
    pub tree: Tree,
}

/// All findings in `trees` of a machine with memory in `ranges`.
pub fn findings(trees: &[ReadTree], ranges: &[Range<u64>]) -> Vec<Findings> {
    let mut all = Vec::new();
    for space in [AddressSpace::Physical, AddressSpace::Intermediate] {
        let of_space: Vec<_> = trees
            .iter()
            .enumerate()
            .filter(|(_, read)| read.root.addresses == space)
            .map(|(nth, read)| (nth as u32, Decoder::new(&read.root), &read.tree))
            .collect();
        clashing(trees, &aliases::clashes(&of_space), &mut all);
    }
    flaws(trees, &mut all);
    shared_tables(trees, &mut all);
    unpredictable(trees, &mut all);
    outside_memory(trees, ranges, &mut all);
    foldable(trees, &mut all);
    all.sort_by_key(|findings| findings.severity);
    all
}

fn place(read: &ReadTree, entry: &Entry) -> Place {
    Place {
        root: read.root.register.to_string(),
        va: format!("{:#018x}", entry.va),
        table: format!("{:#x}", entry.table),
        level: entry.level.number(),
        index: entry.index,
    }
}

fn push(all: &mut Vec<Findings>, kind: &'static str, severity: Severity, total: u64, findings: Vec<Finding>) {
    if total > 0 {
        all.push(Findings { kind, severity, total, sum: None, findings });
    }
}

/// Where the leaf `mapped` maps the physical address `pa`.
fn place_of(trees: &[ReadTree], mapped: Mapped, pa: u64) -> Option<Place> {
    let read = trees.get(mapped.tree as usize)?;
    let Row::Leaves { va, pa: first, .. } = *read.tree.rows.get(mapped.row as usize)? else { return None };
    let at = va.wrapping_add(pa.wrapping_sub(first));
    let entry = read.tree.entry_of(mapped.row as usize, at)?;
    Some(Place { va: format!("{at:#018x}"), ..place(read, &entry) })
}

fn clashing(trees: &[ReadTree], found: &Clashes, all: &mut Vec<Findings>) {
    let mut kinds: Vec<_> = found.bytes.iter().filter(|(_, bytes)| **bytes > 0).collect();
    kinds.sort();
    for (&clash, &bytes) in kinds {
        let held = found.held.iter().filter(|held| held.clash == clash);
        let findings: Vec<_> = held
            .map(|held| {
                let places = [held.one, held.other].map(|mapped| place_of(trees, mapped, held.start));
                let places: Vec<_> = places.into_iter().flatten().collect();
                let at = |nth: usize| places.get(nth).map(Place::to_string).unwrap_or_default();
                let memory = format!("{:#x}-{:#x}", held.start, held.end);
                let text = match clash {
                    Clash::WritableAndExecutable { writer, executor }
                    | Clash::WritableFromAbove { writer, executor } => format!(
                        "{memory} is writable by EL{writer} at {}, executable by EL{executor} at {}",
                        at(0),
                        at(1)
                    ),
                    Clash::MemoryType | Clash::Shareability => {
                        let named = [held.one, held.other].map(|mapped| memory_name(trees, mapped, clash));
                        format!("{memory} is {} at {}, {} at {}", named[0], at(0), named[1], at(1))
                    }
                };
                Finding { text, places }
            })
            .collect();
        let (kind, severity) = match clash {
            Clash::WritableAndExecutable { .. } => ("w+x", Severity::Problem),
            Clash::WritableFromAbove { .. } => ("code-writable-from-above", Severity::Note),
            Clash::MemoryType => ("memory-type-mismatch", Severity::Problem),
            Clash::Shareability => ("shareability-mismatch", Severity::Problem),
        };
        let total = findings.len() as u64 + found.not_held.get(&clash).copied().unwrap_or(0);
        let sum = Some(format!("{} of memory", Size(bytes)));
        all.push(Findings { kind, severity, total, sum, findings });
    }
}

fn memory_name(trees: &[ReadTree], mapped: Mapped, clash: Clash) -> String {
    let Some(read) = trees.get(mapped.tree as usize) else { return String::new() };
    let Some(&Row::Leaves { bits, level, tables, .. }) = read.tree.rows.get(mapped.row as usize) else {
        return String::new();
    };
    let meaning = Decoder::new(&read.root).meaning(bits, level, tables);
    match (clash, meaning.sharing) {
        (Clash::MemoryType, _) => meaning.memory.to_string(),
        (_, Sharing::Known(shareability)) => format!("{shareability:?} shareable").to_lowercase(),
        (_, Sharing::Reserved) => "of reserved shareability".to_owned(),
        (_, Sharing::InTcr) => "shareable by TCR".to_owned(),
    }
}

fn flaws(trees: &[ReadTree], all: &mut Vec<Findings>) {
    let kinds = ["table-outside-memory", "table-cycle", "uneven-run", "reserved-encoding"];
    for (nth, kind) in kinds.into_iter().enumerate() {
        let mut findings = Vec::new();
        for read in trees {
            let held = read.tree.flaws.held.iter().filter(|flaw| flaw.kind() == nth);
            findings.extend(held.map(|flaw| flaw_finding(read, flaw)));
        }
        let total = trees.iter().filter_map(|read| read.tree.flaws.counts.get(nth)).sum();
        push(all, kind, Severity::Problem, total, findings);
    }
}

fn flaw_finding(read: &ReadTree, flaw: &Flaw) -> Finding {
    let (entry, text) = match flaw {
        Flaw::OutsideMemory { entry, frame } => {
            (entry, format!("{} leads to {frame:#x}, which is no memory", place(read, entry)))
        }
        Flaw::Cycle { entry, frame, above } => (
            entry,
            format!("{} leads to {frame:#x}, the L{above} table on the way to it", place(read, entry)),
        ),
        Flaw::Reserved { entry, value } => {
            (entry, format!("{} is {value:#018x}, a reserved encoding: it faults", place(read, entry)))
        }
        Flaw::Run { entry, entries, what } => {
            let bytes = u64::from(*entries) << read.tree.shift(entry.level);
            let run = format!("{}: the contiguous run of {entries} entries", place(read, entry));
            let what = match what {
                Contiguity::NotConsecutive => "maps addresses that are not consecutive".to_owned(),
                Contiguity::Misaligned => {
                    format!("is misaligned: it starts at no multiple of {} of memory", Size(bytes))
                }
                Contiguity::Incomplete { without } => {
                    format!("is incomplete: the bit is missing in {without} of them")
                }
                Contiguity::Differs { bits } => {
                    format!("is uneven: its entries differ in {}", BitNames(*bits))
                }
            };
            (entry, format!("{run} {what}"))
        }
    };
    Finding { text, places: vec![place(read, entry)] }
}

/// Bits of leaves by name.
struct BitNames(u64);

impl std::fmt::Display for BitNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [(u64, &str); 10] = [
            (0b1111 << 2, "memory type"),
            (1 << 6 | AP2, "AP"),
            (0b11 << 8, "SH"),
            (ACCESSED, "AF"),
            (1 << 11, "nG"),
            (1 << 16, "nT"),
            (1 << 50, "GP"),
            (1 << 51, "DBM"),
            (0b11 << 53, "XN"),
            (CONTIGUOUS, "the contiguous bit"),
        ];
        let (mut left, mut separator) = (self.0, "");
        for (bits, name) in NAMES {
            if left & bits != 0 {
                write!(f, "{separator}{name}")?;
                (left, separator) = (left & !bits, ", ");
            }
        }
        if left != 0 { write!(f, "{separator}{left:#x}") } else { Ok(()) }
    }
}

/// Frames that are tables of two entries, or of two roots.
fn shared_tables(trees: &[ReadTree], all: &mut Vec<Findings>) {
    let (mut findings, mut total) = (Vec::new(), 0);
    for (nth, read) in trees.iter().enumerate() {
        let frames = &read.tree.frames;
        let mut shared: Vec<_> = frames.iter().filter(|(_, used)| used.times > 1).collect();
        shared.sort_by_key(|(frame, _)| **frame);
        total += shared.len() as u64;
        for (frame, used) in shared.into_iter().take(FLAWS_HELD as usize) {
            let entries = [used.first, used.second];
            let places: Vec<_> = entries.iter().flatten().map(|entry| place(read, entry)).collect();
            let root = if used.first.is_none() { "as the root, and " } else { "" };
            let named: Vec<_> = places.iter().map(Place::to_string).collect();
            let ways = used.times - u64::from(used.first.is_none());
            let more = if ways > named.len() as u64 { ", …" } else { "" };
            let text = format!(
                "table {frame:#x} is reached {root}through {}: {}{more}",
                Counted(ways, "entry"),
                named.join(", ")
            );
            findings.push(Finding { text, places });
        }
        for other in trees.iter().skip(nth + 1).filter(|other| other.root.addresses == read.root.addresses) {
            let mut both: Vec<_> = frames
                .iter()
                .filter_map(|(frame, used)| Some((frame, used, other.tree.frames.get(frame)?)))
                .collect();
            both.sort_by_key(|(frame, ..)| **frame);
            total += both.len() as u64;
            for (frame, one, two) in both.into_iter().take(FLAWS_HELD as usize) {
                let ways = [(read, one.first), (other, two.first)];
                let named = ways.map(|(read, entry)| match entry {
                    Some(entry) => place(read, &entry).to_string(),
                    None => format!("{} as its root", read.root.register),
                });
                let places =
                    ways.into_iter().filter_map(|(read, entry)| Some(place(read, &entry?))).collect();
                let text = format!("table {frame:#x} is reached from {} and from {}", named[0], named[1]);
                findings.push(Finding { text, places });
            }
        }
    }
    push(all, "shared-table", Severity::Note, total, findings);
}

/// Leaves whose encoding the architecture leaves open, or that fault whatever they say.
fn unpredictable(trees: &[ReadTree], all: &mut Vec<Findings>) {
    let (mut findings, mut total) = (Vec::new(), 0);
    for read in trees {
        let decoder = Decoder::new(&read.root);
        let pa_bits = read.root.geometry.pa_bits();
        for (nth, row) in read.tree.rows.iter().enumerate() {
            let Row::Leaves { va, pa, bits, level, tables, .. } = *row else { continue };
            let meaning = decoder.meaning(bits, level, tables);
            let last = pa.saturating_add(read.tree.bytes(row) - 1);
            let why = if last >> pa_bits != 0 {
                format!("maps {pa:#x}, beyond the {pa_bits} bits of PA: it faults")
            } else if meaning.reserved != 0 {
                format!("has RES0 bits set: {:#x}", meaning.reserved)
            } else if meaning.memory.is_reserved() {
                format!("has a memory type that is unpredictable: {}", meaning.memory)
            } else if meaning.sharing == Sharing::Reserved {
                "has the reserved shareability 0b01".to_owned()
            } else {
                continue;
            };
            total += 1;
            if findings.len() < FLAWS_HELD as usize
                && let Some(entry) = read.tree.entry_of(nth, va)
            {
                let place = place(read, &entry);
                findings.push(Finding { text: format!("{place} {why}"), places: vec![place] });
            }
        }
    }
    push(all, "unpredictable-leaf", Severity::Problem, total, findings);
}

/// Normal memory where there is none.
fn outside_memory(trees: &[ReadTree], ranges: &[Range<u64>], all: &mut Vec<Findings>) {
    let (mut findings, mut total, mut bytes) = (Vec::new(), 0, 0u64);
    for read in trees.iter().filter(|read| read.root.addresses == AddressSpace::Physical) {
        let decoder = Decoder::new(&read.root);
        for run in runs::of(&read.tree) {
            let Row::Leaves { va, pa, bits, level, tables, .. } = run.row else { continue };
            let outside = run.bytes - bytes_inside(ranges, pa, run.bytes);
            if outside == 0 || !decoder.meaning(bits, level, tables).memory.is_normal() {
                continue;
            }
            total += 1;
            bytes = bytes.saturating_add(outside);
            if findings.len() < FLAWS_HELD as usize
                && let Ok(nth) = read.tree.rows.binary_search_by_key(&va, Row::va)
                && let Some(entry) = read.tree.entry_of(nth, va)
            {
                let place = place(read, &entry);
                let end = pa.saturating_add(run.bytes);
                let text = format!(
                    "{place} maps {pa:#x}-{end:#x} as normal memory; {} of it are none",
                    Size(outside)
                );
                findings.push(Finding { text, places: vec![place] });
            }
        }
    }
    let sum = Some(Size(bytes).to_string());
    if total > 0 {
        let (kind, severity) = ("normal-outside-memory", Severity::Note);
        all.push(Findings { kind, severity, total, sum, findings });
    }
}

/// What fewer leaves could replace, and what that saves.
fn foldable(trees: &[ReadTree], all: &mut Vec<Findings>) {
    for (is_run, kind) in [(false, "larger-leaves"), (true, "contiguous-runs")] {
        let (mut findings, mut total) = (Vec::new(), 0);
        let (mut tables, mut table_bytes, mut entries, mut leaves) = (0, 0, 0, 0);
        for read in trees {
            let granule = read.root.geometry.granule().bytes();
            for fold in read.tree.foldable.iter().filter(|fold| fold.is_run == is_run) {
                total += 1;
                tables += fold.tables;
                table_bytes += fold.tables * granule;
                entries += fold.entries;
                leaves += fold.leaves;
                if findings.len() >= FLAWS_HELD as usize {
                    continue;
                }
                let (root, va) = (read.root.register, fold.va);
                let end = va.wrapping_add(fold.bytes);
                let size = Size(read.root.geometry.entry_bytes(fold.level));
                let now = Counted(fold.entries, "leaf");
                let text = if is_run {
                    format!(
                        "{root} {va:#018x}-{end:#018x}: {now} of {size} could be {}",
                        Counted(fold.leaves, "contiguous run")
                    )
                } else {
                    format!(
                        "{root} {va:#018x}-{end:#018x}: {now} could be {} of {size}, which frees {} ({}) \
                         and {}",
                        fold.leaves,
                        Counted(fold.tables, "table"),
                        Size(fold.tables * granule),
                        Counted(fold.entries.saturating_sub(fold.leaves), "entry")
                    )
                };
                let entry = entry_at(read, va, fold.level);
                let places = entry.iter().map(|entry| place(read, entry)).collect();
                findings.push(Finding { text, places });
            }
        }
        let sum = Some(if is_run {
            format!("{} in {}", Counted(entries, "leaf"), Counted(leaves, "run"))
        } else {
            let (tables, entries) = (Counted(tables, "table"), Counted(entries - leaves, "entry"));
            format!("saves {tables} ({}), {entries}", Size(table_bytes))
        });
        if total > 0 {
            all.push(Findings { kind, severity: Severity::Note, total, sum, findings });
        }
    }
}

/// The entry of the table at `level` that translates `va`.
fn entry_at(read: &ReadTree, va: u64, level: Level) -> Option<Entry> {
    let shift = read.tree.shift(level);
    let before = read.tree.tables.partition_point(|table| table.va <= va);
    let table = read.tree.tables.get(..before)?.iter().rev().find(|table| table.level == level)?;
    Some(Entry { table: table.frame, index: ((va - table.va) >> shift) as u32, va, level })
}
