//! The device trees of all boards in Debian's arm64 kernel: read as a boot reads them, and the
//! linear map of their memory built and compared with what the rules say.
//!
//! Where a tree leaves its memory to the boot loader, `boot_loader` fills it in. What is expected
//! comes from another reader of device trees and from `rules`. Each tree chooses a geometry, leaves
//! and a builder by its name. `docs/corpus.md` has the sums; `LINMAP_WRITE_CORPUS=1` writes it.

mod boot_loader;
mod cases;
mod machine;
mod mapping;
mod other_reader;
#[path = "../../../crates/linmap/tests/rules/mod.rs"]
mod rules;
mod survey;

use std::fs;

use dtoolkit::fdt::Fdt;
use linmap::MappingLists;
use linmap_fdt::parse_dtb;
use linmap_memblock::{EarlyStorage, FdtError, FdtWarning, Memblock};
use linmap_vmsa::{Pa, PaRange};

use cases::{CASES, Case};
use other_reader::Memory;
use rules::host::Host;
use survey::{Board, Survey};

/// As many ranges as the kernel has room for.
type Map = Memblock<256>;

/// The pages by which a kernel of any granule reaches its first lists.
const LIST_ALIGN: u64 = 1 << 16;

/// The document with the sums. What follows the mark is written by this test.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/corpus.md");
const MARK: &str = "<!-- From here on: LINMAP_WRITE_CORPUS=1 cargo test -p linmap-tests --test corpus -->\n";

/// Reads a tree, builds the map of its memory, and checks both. Adds what can't be used to `found`.
fn survey_board(
    name: &str,
    blob: &[u8],
    host: &mut Host,
    lists: &mut MappingLists,
    found: &mut Vec<String>,
) -> Result<Board, String> {
    let mut memblock = Map::new();
    let theirs = Memory::read(Fdt::new_unchecked(blob));
    let filled = theirs.ram.is_empty().then(|| boot_loader::banks_of(name));
    let expected = match theirs.entries.len() {
        0 => Some(FdtError::NoMemoryNode),
        _ => filled.map(|_| FdtError::NothingMappable { memory: 0 }),
    };
    let ours = memblock.fill_from_fdt(parse_dtb(blob).map_err(|error| error.to_string())?);
    if ours.as_ref().err() != expected.as_ref() {
        return Err(format!("{ours:?}, should be {expected:?}"));
    }
    let with_memory = filled.map(|(_, banks)| boot_loader::filled(blob, banks));
    let blob = with_memory.as_deref().unwrap_or(blob);
    let mut theirs = Memory::read(Fdt::new_unchecked(blob));
    let fdt = parse_dtb(blob).map_err(|error| error.to_string())?;
    let warnings = memblock.fill_from_fdt(fdt).map_err(|error| error.to_string())?;
    let is_zero = |warning: &&FdtWarning<'_>| matches!(warning, FdtWarning::ZeroSized { .. });
    let zeros = theirs.entries.iter().filter(|(_, len)| *len == 0).count();
    if warnings.first.iter().filter(is_zero).count() != zeros || warnings.count != warnings.first.len() {
        return Err(format!("{warnings:?}, but {zeros} empty entries"));
    }
    found.extend(warnings.first.iter().map(|warning| warning.to_string()));
    if memblock.reserved() != theirs.reserved {
        return Err(format!("reserved {:x?}, should be {:x?}", memblock.reserved(), theirs.reserved));
    }
    check_short_lists(blob, &memblock, &theirs)?;
    let machine = machine::read(blob, &memblock)?;
    found.extend(machine.cases.iter().cloned());
    let (holes, hole_bytes) = theirs.holes();
    let ram_bytes = theirs.ram.iter().map(|ram| ram.len()).sum();
    let (ram_regions, reserved) = (theirs.ram.len() as u64, theirs.reserved.len() as u64);
    for round in 1..rounds() {
        let mut memblock = memblock.copy().map_err(|error| error.to_string())?;
        mapping::map(name, round, &mut memblock, &mut theirs.clone(), host, lists)?;
    }
    let mapped = mapping::map(name, 0, &mut memblock, &mut theirs, host, lists)?;
    let filled = filled.map(|(start, _)| start);
    Ok(Board { filled, ram_regions, ram_bytes, holes, hole_bytes, reserved, machine, mapped })
}

/// How often each tree is mapped.
fn rounds() -> u64 {
    if linmap_tests::is_soak() { 20 } else { 1 }
}

/// Reads the tree into lists of two ranges. They move to memory that the tree leaves free, and hold
/// the same as `whole` apart from that.
fn check_short_lists(blob: &[u8], whole: &Map, theirs: &Memory) -> Result<(), String> {
    let in_use = [theirs.mappable(LIST_ALIGN).first().map_or(PaRange::default(), |first| {
        // An image at the start of memory.
        PaRange::new(first.start, first.end.min(Pa(first.start.0 + (4 << 20))))
    })];
    let mut lent = PaRange::default();
    let reach = |storage: PaRange| {
        lent = storage;
        let count = storage.len() as usize / size_of::<PaRange>();
        Some(Box::leak(vec![PaRange::default(); count].into_boxed_slice()))
    };
    let early = EarlyStorage { in_use: &in_use, align: LIST_ALIGN, reach };
    let mut short = Memblock::<2>::new();
    let fdt = parse_dtb(blob).map_err(|error| error.to_string())?;
    short.fill_from_fdt_of_any_length(fdt, early).map_err(|error| error.to_string())?;
    let longest = theirs.ram.len().max(theirs.no_map.len()).max(theirs.reserved.len());
    // Ranges that touch can take more room until they are joined.
    let has_grown = !lent.is_empty();
    if short.storage().unwrap_or_default() != lent || longest > 2 && !has_grown {
        return Err(format!("lists of {longest} ranges, storage {:x?}", short.storage()));
    }
    let is_free = theirs.mappable(LIST_ALIGN).iter().any(|part| part.covers(lent))
        && !theirs.reserved.iter().chain(&in_use).any(|used| used.overlaps(lent));
    if has_grown && !is_free {
        return Err(format!("the lists are at {lent}, which is not free"));
    }
    let mut whole = whole.copy().map_err(|error| error.to_string())?;
    whole.reserve(lent).map_err(|error| error.to_string())?;
    let is_equal = short.regions().eq(whole.regions()) && short.reserved() == whole.reserved();
    if is_equal { Ok(()) } else { Err(format!("{short:x?}, should be {whole:x?}")) }
}

/// Surveys all trees of the package, whose name and version it returns.
///
/// # Panics
/// When a tree is not read as another reader reads it, when a map is not as the rules say, and when
/// a part of a tree can't be used without a reason in [`CASES`].
fn survey() -> (Survey, String) {
    let trees = linmap_tests::device_trees();
    let (mut host, mut lists) = (Host::new(), Box::new(MappingLists::new()));
    let (mut survey, mut faults) = (Survey::default(), Vec::new());
    for (name, blob) in &trees.trees {
        let mut found = Vec::new();
        match survey_board(name, blob, &mut host, &mut lists, &mut found) {
            Ok(board) => drop(survey.boards.insert(name.clone(), board)),
            Err(error) => faults.push(format!("{name}: {error}")),
        }
        for found in found {
            match Case::number(name, &found) {
                Some(nth) => drop(survey.cases.entry(nth).or_default().insert(name.clone())),
                None => faults.push(format!("{name}: {found}: a case without a name")),
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(survey.boards.len() > 1000, "only {} trees", survey.boards.len());
    (survey, trees.package)
}

#[test]
fn the_trees_of_all_boards_are_read_and_mapped_and_the_document_has_the_sums() {
    let (survey, package) = survey();
    let tables = survey.tables(&package);
    let document = fs::read_to_string(DOCUMENT).unwrap_or_else(|error| panic!("{DOCUMENT}: {error}"));
    let (prose, written) = document.split_once(MARK).expect("the document has the mark");
    if std::env::var_os("LINMAP_WRITE_CORPUS").is_some_and(|value| value == "1") {
        fs::write(DOCUMENT, format!("{prose}{MARK}{tables}")).expect("room for it");
        return;
    }
    // Debian replaces the package now and then; all else has to hold for each.
    if !written.contains(&format!("`{package}`")) {
        eprintln!("docs/corpus.md describes another package than {package}: it is not compared");
        return;
    }
    for (nth, case) in CASES.iter().enumerate() {
        assert!(survey.cases.contains_key(&nth), "no tree of {} has: {}", case.trees, case.found);
    }
    let differs = tables.lines().zip(written.lines()).find(|(now, written)| now != written);
    assert_eq!(differs, None, "docs/corpus.md is not true: {MARK}");
    assert_eq!(tables, written, "docs/corpus.md is not true: {MARK}");
}
