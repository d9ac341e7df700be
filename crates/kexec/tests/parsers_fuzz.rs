//! Random input: move lists, archives, command lines, device trees and what a core file is made of.
//! Nothing panics, nothing is endless, and what is accepted follows the rules.
//!
//! `LINMAP_FUZZ_CASES` is the number of cases of each; the default is 2000, or 20 000 with
//! `LINMAP_SOAK`.

use arrayvec::ArrayVec;
use linmap_fdt::{parse_dtb, string};
use linmap_kexec::{
    Archive, CoreNotes, CpuRegisters, CrashMemory, Direction, ElfCore, Extent, ExtentSource, IndEntry,
    KIND_MASK, LIST_FRAME_WORDS, ListFrame, MoveList, MovePlan, Moves, NextTree, Pending, PreservedRange,
    RECORDS_PER_FRAME, Record, Seeds, Segments, VmcoreInfo, WireError, crash_line, payload_line,
};
use linmap_memblock::Memblock;
use linmap_platform::{COMMAND_LINE_MAX, CommandLine, CommandLineError, Word};
use linmap_vmsa::{Granule, Pa, PaRange, Va};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::num::NonZeroUsize;

const PAGE: u64 = 0x1000;
/// Where list frames are.
const FRAMES_AT: u64 = 0x4000_0000;

type Frame = [u64; LIST_FRAME_WORDS];

fn cases() -> ProptestConfig {
    let cases = std::env::var("LINMAP_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { 20_000 } else { 2_000 };
    ProptestConfig::with_cases(cases.unwrap_or(unset))
}

fn is_ours(word: &Word<'_>) -> bool {
    word.key().starts_with("linmap.")
}

/// The words of a line that a kernel does not pass on when it loads itself.
const REPLACED: [&str; 3] = ["linmap.generation", "linmap.cpus", "linmap.crashkernel"];

/// A line as a kernel writes it that loads itself as its crash kernel.
fn crash_generation<'b>(
    own: CommandLine<'_>,
    generation: u64,
    buffer: &'b mut [u8],
) -> Result<&'b str, CommandLineError> {
    own.edited(&REPLACED, &["linmap.cpus=1", &format!("linmap.generation={generation}")], buffer)
}

/// A word as lists have them, or any.
fn word() -> impl Strategy<Value = u64> {
    let frame = (0..5u64).prop_map(|nth| FRAMES_AT + nth * PAGE);
    prop_oneof![
        4 => frame,
        4 => (0..64u64).prop_map(|page| page * PAGE),
        3 => (0..64u64, 0..8u64).prop_map(|(pages, kind)| (pages * PAGE) | kind),
        2 => Just(0),
        1 => (0..64u64).prop_map(|page| 0u64.wrapping_sub(page * PAGE)),
        1 => any::<u64>(),
    ]
}

fn frame_at<'f>(frames: &'f [Frame]) -> impl Fn(Pa) -> Option<&'f Frame> {
    |pa| {
        let nth = pa.0.checked_sub(FRAMES_AT)?;
        frames.get((nth / PAGE) as usize).filter(|_| nth.is_multiple_of(PAGE))
    }
}

/// Reads lists as whatever they are, and checks what is read.
fn survive(moves: &Moves, frames: &[Frame]) -> Result<(), TestCaseError> {
    let most = moves.frames as usize * RECORDS_PER_FRAME;
    let mut count = 0;
    for record in moves.records(frame_at(frames)) {
        count += 1;
        let Ok(record) = record else { break };
        let whole = |pa: Pa, len: u64| pa.0.is_multiple_of(PAGE) && pa.0.checked_add(len).is_some();
        match record {
            Record::Copy { source, destination, len, direction } => {
                prop_assert!(
                    len != 0 && len & KIND_MASK == 0 && whole(source, len) && whole(destination, len)
                );
                let apart = source.0.abs_diff(destination.0) >= len;
                let right = match direction {
                    Direction::Upwards => destination < source,
                    Direction::Downwards => destination > source,
                };
                prop_assert!(apart || right, "{record}");
            }
            Record::Clear { destination, len } => {
                prop_assert!(len != 0 && len & KIND_MASK == 0 && whole(destination, len));
            }
            Record::Go => {}
        }
    }
    prop_assert!(count <= most + 1, "{count} records in {} frames", moves.frames);
    if let Ok(()) = moves.check(&mut [Pa(0); 4], frame_at(frames)) {
        prop_assert!(moves.records(frame_at(frames)).all(|record| record.is_ok()));
    }
    // A record may name any number of pages.
    let mut pages = vec![[0; LIST_FRAME_WORDS]; 20];
    let pages = pages.iter_mut().map(|words| ListFrame { pa: Pa(0), words });
    let mut list = moves.ind_list(Pa(0), pages, frame_at(frames));
    let done = list.by_ref().find(|entry| !matches!(entry, Ok(entry) if *entry != IndEntry::Done));
    prop_assert!(done.is_some() && list.next().is_none(), "nothing follows the end");
    Ok(())
}

fn moves(frames: impl IntoIterator<Item = (u64, u64)>) -> Moves {
    let lists: ArrayVec<MoveList, 16> = frames
        .into_iter()
        .map(|(first, frames)| MoveList { first: Pa(first), frames, extents: 0, bytes: 0 })
        .collect();
    let frames = lists.iter().map(|list| list.frames).sum();
    Moves { lists, extents: 0, ordered: 0, moved: 0, cleared: 0, in_place: 0, bounced: 0, frames }
}

/// A plan of one page after the other, over several frames and lists.
fn real_plan(pages: u64, shares: usize) -> (Moves, Vec<Frame>) {
    let destinations = [PaRange::new(Pa(0x100_0000), Pa(0x100_0000 + pages * PAGE))];
    let segments = Segments::new(&destinations).unwrap();
    let mut workspace = [Pending::UNUSED; 8];
    let shares = NonZeroUsize::new(shares).unwrap();
    let mut frames = vec![[0; LIST_FRAME_WORDS]; 16];
    let moves = {
        let addresses = (0..).map(|nth| Pa(FRAMES_AT + nth * PAGE));
        let mut free = addresses.zip(&mut frames).map(|(pa, words)| ListFrame { pa, words });
        let mut plan = MovePlan::new(segments, &mut workspace, None, shares).unwrap();
        for nth in 0..pages {
            let from = if nth % 7 == 0 {
                ExtentSource::Zeros
            } else {
                ExtentSource::At(Pa(0x200_0000 + nth * 2 * PAGE))
            };
            let extent = Extent { source: from, destination: Pa(0x100_0000 + nth * PAGE), len: PAGE };
            plan.push(extent, &mut free).unwrap();
        }
        plan.finish(&mut free).unwrap()
    };
    (moves, frames)
}

/// Text in which quotes, spaces and linmap's own words are likely.
fn line() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        select(vec![
            "linmap.",
            "generation=",
            "generation",
            "cpus=4",
            "crashkernel=",
            "crashkernel",
            "\"",
            " ",
            "\t",
            "=",
            "--",
            "a",
            "é",
            "\0",
            "\n"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn archive() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in
        [("cmdline", &b"quiet"[..]), ("Image", &[7; 99]), ("initrd", &[]), ("TRAILER!!!", &[])]
    {
        bytes.extend_from_slice(b"070701");
        for field in [1, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0] {
            bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A tree with what is read and edited, as linmap leaves it for the next kernel.
fn tree() -> Vec<u8> {
    let mut fdt = vm_fdt::FdtWriter::new().unwrap();
    let root = fdt.begin_node("").unwrap();
    fdt.property_u32("#address-cells", 2).unwrap();
    fdt.property_u32("#size-cells", 2).unwrap();
    let memory = fdt.begin_node("memory@40000000").unwrap();
    fdt.property_string("device_type", "memory").unwrap();
    fdt.property_array_u64("reg", &[0x4000_0000, 0x4000_0000]).unwrap();
    fdt.end_node(memory).unwrap();
    let reserved = fdt.begin_node("reserved-memory").unwrap();
    fdt.property_u32("#address-cells", 2).unwrap();
    fdt.property_u32("#size-cells", 2).unwrap();
    fdt.property_null("ranges").unwrap();
    for (at, label) in [(0x5000_0000u64, "log"), (0x5100_0000, "pages")] {
        let node = fdt.begin_node(&format!("linmap-preserved@{at:x}")).unwrap();
        fdt.property_string("compatible", "linmap,preserved").unwrap();
        fdt.property_array_u64("reg", &[at, 0x2000]).unwrap();
        fdt.property_string("label", label).unwrap();
        fdt.end_node(node).unwrap();
    }
    fdt.end_node(reserved).unwrap();
    let chosen = fdt.begin_node("chosen").unwrap();
    fdt.property_string("bootargs", "linmap.payload=self quiet").unwrap();
    fdt.property_u64("linux,initrd-start", 0x4800_0000).unwrap();
    fdt.property_u64("linux,initrd-end", 0x4900_0000).unwrap();
    fdt.property_u64("kaslr-seed", 7).unwrap();
    fdt.end_node(chosen).unwrap();
    fdt.end_node(root).unwrap();
    fdt.finish().unwrap()
}

/// The command line that a tree has, as the kernel reads it.
fn bootargs_of(blob: &[u8]) -> Option<&str> {
    string(parse_dtb(blob).ok()?.chosen()?.property("bootargs")?)
}

/// Rewrites `blob`, unless it is refused: to its measured length, a tree again, and nothing where
/// that has no room.
fn rewritten_or_refused(next: &NextTree<'_>, blob: &[u8]) -> Result<Option<Vec<u8>>, TestCaseError> {
    let Ok(len) = next.measure(blob) else { return Ok(None) };
    let mut output = vec![0xaa; len];
    prop_assert_eq!(next.rewrite(blob, &mut output), Ok(len));
    prop_assert!(parse_dtb(&output).is_ok());
    let mut short = vec![0xaa; len - 1];
    prop_assert!(next.rewrite(blob, &mut short).is_err());
    prop_assert!(short.iter().all(|byte| *byte == 0xaa), "no effect after an error");
    Ok(Some(output))
}

#[test]
fn what_the_harm_is_done_to_is_accepted() {
    for shares in [1, 3] {
        let (moves, frames) = real_plan(600, shares);
        moves.check(&mut [Pa(0); 4], frame_at(&frames)).unwrap();
        assert!(moves.frames > 2 && moves.lists.len() == shares);
    }
    assert_eq!(Archive::parse(&archive()).unwrap().members().count(), 3);
    let blob = tree();
    let fdt = parse_dtb(&blob).unwrap();
    let mut memory = Memblock::<16>::new();
    memory.fill_from_fdt(fdt).unwrap();
    assert_eq!(
        PreservedRange::read_all(fdt, memory.mappable(PAGE), memory.reserved(), &[]).unwrap().len(),
        2
    );
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_list_of_chance_words_is_believed_or_endless(
        words in prop::collection::vec(prop::collection::vec(word(), 0..40), 1..5),
        lists in prop::collection::vec((0..6u64, 1..6u64), 0..4),
        fill in word(),
    ) {
        let frames: Vec<Frame> = words
            .iter()
            .map(|words| {
                let mut frame = [fill; LIST_FRAME_WORDS];
                frame[..words.len()].copy_from_slice(words);
                frame.map(u64::to_le)
            })
            .collect();
        let lists = lists.into_iter().map(|(first, frames)| (FRAMES_AT + first * PAGE, frames));
        survive(&moves(lists), &frames)?;
    }

    #[test]
    fn a_harmed_list_is_an_error_or_keeps_the_rules(
        pages in 1..1200u64,
        shares in 1..5usize,
        harms in prop::collection::vec((0..8usize, 0..LIST_FRAME_WORDS, prop_oneof![
            (0..64u32).prop_map(Ok),
            word().prop_map(Err),
        ]), 1..6),
    ) {
        let (moves, mut frames) = real_plan(pages, shares);
        for (frame, word, harm) in harms {
            let word = &mut frames[frame % moves.frames as usize][word];
            match harm {
                Ok(bit) => *word ^= 1 << bit,
                Err(new) => *word = new,
            }
        }
        survive(&moves, &frames)?;
    }

    #[test]
    fn a_list_that_leads_nowhere_says_where(first in any::<u64>(), frames in 1..9u64) {
        let error = moves([(first, frames)]).check(&mut [Pa(0); 4], frame_at(&[]));
        prop_assert_eq!(error, Err(WireError::NoFrame { frame: Pa(first) }));
    }

    #[test]
    fn no_harmed_archive_panics_or_has_more_than_its_bytes(
        harms in prop::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        cut in any::<Index>(),
        name in "[a-zA-Z]{0,8}",
    ) {
        let mut bytes = archive();
        for (at, value) in harms {
            *at.get_mut(&mut bytes) ^= value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(archive) = Archive::parse(&bytes) {
            let _ = archive.find(&name);
            let sum: usize = archive.members().map(|member| member.data.len() + member.name.len()).sum();
            prop_assert!(sum <= bytes.len());
        }
    }

    #[test]
    fn no_command_line_panics_and_what_is_passed_on_has_no_word_of_ours(
        own in line(),
        theirs in line(),
        room in 0..120usize,
        generation in any::<u64>(),
    ) {
        let mut buffer = vec![0x5a; room];
        let passed_on = CommandLine::new(&own).words().filter(|word| !is_ours(word));
        if let Ok(line) = payload_line(CommandLine::new(&theirs), passed_on.clone(), &mut buffer) {
            let ours = |line: &str| CommandLine::new(line).words().filter(is_ours).count();
            prop_assert_eq!(ours(line), ours(&theirs));
        }
        if let Ok(line) = crash_line(CommandLine::new(&theirs), passed_on, &mut buffer) {
            let line = CommandLine::new(line);
            prop_assert!(line.words().map(Word::as_str).take(2).eq(["maxcpus=1", "reset_devices"]));
            prop_assert!(line.words().all(|word| word.key() != "crashkernel"));
            let ours = |line: CommandLine<'_>| line.words().filter(is_ours).count();
            prop_assert_eq!(ours(line), ours(CommandLine::new(&theirs)));
        }
        if let Ok(line) = crash_generation(CommandLine::new(&own), generation, &mut buffer) {
            let line = CommandLine::new(line);
            let generation = generation.to_string();
            prop_assert_eq!(line.get("linmap.generation"), Some(&*generation));
            prop_assert_eq!(line.get("linmap.cpus"), Some("1"));
            prop_assert_eq!(line.get("linmap.crashkernel"), None);
            let remaining = |line: CommandLine<'_>| {
                let words = line.words().filter(|word| !REPLACED.contains(&word.key()));
                words.map(|word| word.as_str().to_owned()).collect::<Vec<_>>()
            };
            prop_assert_eq!(remaining(line), remaining(CommandLine::new(&own)));
        }
        for word in CommandLine::new(&own).words() {
            let _ = (word.key(), word.value(), CommandLine::new(&own).get(word.key()));
        }
    }

    #[test]
    fn no_harmed_tree_panics_and_what_it_keeps_is_reserved_memory(
        harms in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        cut in any::<Index>(),
        whole in any::<bool>(),
        bootargs in "[ -~]{0,40}",
        initrd in prop::option::of((any::<u64>(), any::<u64>())),
        seeds in any::<bool>(),
        header in prop_oneof![
            (0x6000_0000..0x6100_0000u64, 0x6100_0000..0x6200_0000u64),
            (any::<u64>(), any::<u64>()),
        ],
    ) {
        let mut blob = tree();
        for (at, value) in harms {
            *at.get_mut(&mut blob) ^= value;
        }
        if !whole {
            blob.truncate(cut.index(blob.len() + 1));
        }
        let initrd = initrd.map(|(start, end)| PaRange::new(Pa(start), Pa(end)));
        let seeds = if seeds { Seeds::New { kaslr: 1, rng: [2; 32] } } else { Seeds::Removed };
        let range = PaRange::new(Pa(0x5000_0000), Pa(0x5000_2000));
        let preserved = [PreservedRange { label: "log", range }];
        let preserved = &preserved;
        let next = NextTree { bootargs: &bootargs, initrd, seeds, preserved, ..NextTree::default() };
        rewritten_or_refused(&next, &blob)?;
        // As for a crash kernel, whose command line is made from that of the damaged tree.
        let usable = [PaRange::new(Pa(0x6000_0000), Pa(0x7000_0000))];
        let header = PaRange::new(Pa(header.0), Pa(header.1));
        let crash = Some(CrashMemory { usable: &usable, elf_core_header: header });
        let own = CommandLine::new(bootargs_of(&blob).unwrap_or_default());
        let mut buffers = [[0; COMMAND_LINE_MAX]; 2];
        let [one, other] = &mut buffers;
        let passed_on = own.words().filter(|word| !is_ours(word));
        let archive = CommandLine::new(&bootargs);
        let lines = [crash_line(archive, passed_on, one), crash_generation(own, 7, other)];
        for bootargs in lines.into_iter().flatten() {
            for initrd in [None, initrd, Some(usable[0])] {
                let next = NextTree { bootargs, initrd, seeds, crash, ..NextTree::default() };
                if let Some(tree) = rewritten_or_refused(&next, &blob)? {
                    prop_assert!(usable[0].covers(header));
                    prop_assert!(initrd.is_none_or(|initrd| usable[0].covers(initrd)));
                    prop_assert_eq!(bootargs_of(&tree), Some(bootargs));
                }
            }
        }
        let Ok(fdt) = parse_dtb(&blob) else { return Ok(()) };
        let mut memory = Memblock::<16>::new();
        if memory.fill_from_fdt(fdt).is_err() {
            return Ok(());
        }
        let in_use = [PaRange::new(Pa(0x5100_1000), Pa(0x5100_3000))];
        let read = PreservedRange::read_all(fdt, memory.mappable(PAGE), memory.reserved(), &in_use);
        for preserved in read.into_iter().flatten() {
            prop_assert!(memory.mappable(PAGE).any(|mapped| mapped.covers(preserved.range)));
            prop_assert!(memory.is_reserved(preserved.range.start) && !preserved.range.overlaps(in_use[0]));
        }
    }

    #[test]
    fn a_core_file_of_chance_numbers_is_refused_or_fits_its_measure(
        memory in prop::collection::vec((any::<u64>(), any::<u64>()), 0..5),
        image in (any::<u64>(), any::<u64>()),
        notes in (any::<u64>(), any::<u64>()),
        offset in any::<u64>(),
        release in any::<String>(),
        cpus in 0..4u32,
        room in 0..2000usize,
    ) {
        let range = |(start, end)| PaRange::new(Pa(start), Pa(end));
        let mut memory: Vec<PaRange> = memory.into_iter().map(range).collect();
        memory.sort_by_key(|range| range.start);
        let inside = memory.first().copied().unwrap_or_default();
        for image in [range(image), inside] {
            let core = ElfCore {
                memory: &memory,
                linear_offset: offset,
                image,
                image_va: Va(offset),
                notes: range(notes),
            };
            let mut buffer = vec![0x5a; room];
            match (core.measure(), core.write(&mut buffer)) {
                (Ok(len), Ok(written)) => prop_assert!(len == written && len <= room),
                (Ok(len), Err(_)) => prop_assert!(len > room),
                (Err(error), written) => prop_assert_eq!(written, Err(error)),
            }
        }
        let info = VmcoreInfo {
            release: &release,
            granule: Granule::K4,
            va_bits: 48,
            root: Va(offset),
            memstart: Pa(offset),
            image_offset: offset,
            kaslr_offset: offset,
        };
        let registers: Vec<_> =
            (0..cpus)
                .map(|cpu| CpuRegisters { cpu, x: [offset; 31], sp: offset, pc: offset, pstate: 0 })
                .collect();
        let notes = CoreNotes { info };
        let mut buffer = vec![0x5a; room];
        let written = notes.write(registers.iter().copied(), &mut buffer);
        prop_assert_eq!(written.is_ok(), notes.measure(registers.len()) <= room);
        prop_assert!(written.is_ok() || buffer.iter().all(|byte| *byte == 0x5a));
    }
}
