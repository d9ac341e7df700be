//! Memory maps from UEFI and from the text of /proc/iomem, good and bad.
//!
//! `LINMAP_FUZZ_CASES` is the number of random cases of each; the default is 2000, or 20 000 with
//! `LINMAP_SOAK`.

use linmap_memblock::{
    IomemError, Memblock, MemoryRegion, PA_LIMIT, RegionError, UefiAttributes, UefiError, UefiMap, UefiType,
    UefiUse,
};
use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;
use proptest::sample::{Index, select};

type Map = Memblock<32>;

const WB: u64 = UefiAttributes::WB.0;
/// What firmware says of ordinary memory: UC, WC, WT and WB.
const ALL: u64 = 0xf;
const RUNTIME: u64 = 1 << 63;

fn range(start: u64, end: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(end))
}

/// Type, start, pages, attributes.
type Entry = (u32, u64, u64, u64);

/// A memory map with descriptors of `size` bytes, as EDK II makes them: what a descriptor does not
/// use has any content.
fn uefi(size: usize, entries: &[Entry]) -> Vec<u8> {
    let descriptor = |&(kind, start, pages, attributes): &Entry| {
        let mut bytes = vec![0xa5; size];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        for (at, word) in [(8, start), (24, pages), (32, attributes)] {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    };
    entries.iter().flat_map(descriptor).collect()
}

/// What QEMU's `virt` with 1 GiB gives, with fewer entries.
const VIRT: [Entry; 9] = [
    (11, 0x0400_0000, 0x4000, RUNTIME | 1),
    (7, 0x4000_0000, 0x2_0000, ALL),
    (2, 0x6000_0000, 0x1000, ALL),
    (4, 0x6100_0000, 0x1000, ALL),
    (9, 0x6200_0000, 0x10, ALL),
    (10, 0x6201_0000, 0x10, ALL),
    (5, 0x6202_0000, 0x20, RUNTIME | ALL),
    (7, 0x6204_0000, 0x1_dfc0, ALL),
    (0, 0x9000_0000, 0x10, 0),
];

fn filled(entries: &[Entry]) -> Result<Map, UefiError> {
    let mut map = Map::new();
    let bytes = uefi(48, entries);
    map.fill_from_uefi(UefiMap::new(&bytes, 48)?)?;
    Ok(map)
}

#[test]
fn a_uefi_map_is_read_with_descriptors_of_any_size() {
    for size in [40, 48, 64] {
        let bytes = uefi(size, &VIRT);
        let uefi = UefiMap::new(&bytes, size).unwrap();
        let mut map = Map::new();
        map.fill_from_uefi(uefi).unwrap();
        let region = |start, end, no_map| MemoryRegion { range: range(start, end), no_map };
        assert_eq!(
            map.regions().collect::<Vec<_>>(),
            [
                region(0x4000_0000, 0x6201_0000, false),
                region(0x6201_0000, 0x6204_0000, true),
                region(0x6204_0000, 0x8000_0000, false),
            ]
        );
        assert_eq!(map.reserved(), [range(0x6200_0000, 0x6201_0000)]);
        let runtime = uefi.at(Pa(0x6203_0123)).unwrap();
        assert_eq!((runtime.kind, runtime.attributes), (UefiType(5), UefiAttributes(RUNTIME | ALL)));
        assert_eq!(uefi.at(Pa(0x8000_0000)), None);
    }
}

#[test]
fn what_a_type_and_its_attributes_allow_is_what_linux_makes_of_them() {
    let special = UefiAttributes::SPECIAL_PURPOSE.0;
    for (kind, attributes, usage) in [
        (0, ALL, UefiUse::NoMap),
        (1, ALL, UefiUse::Free),
        (2, ALL, UefiUse::Free),
        (3, ALL, UefiUse::Free),
        (4, ALL, UefiUse::Free),
        (5, ALL, UefiUse::NoMap),
        (6, ALL, UefiUse::NoMap),
        (7, ALL, UefiUse::Free),
        (7, WB, UefiUse::Free),
        (7, UefiAttributes::WC.0, UefiUse::NoMap),
        (7, UefiAttributes::WT.0, UefiUse::NoMap),
        (7, 1, UefiUse::NotMemory),
        (7, ALL | special, UefiUse::NotMemory),
        (8, ALL, UefiUse::NoMap),
        (9, ALL, UefiUse::Reserved),
        (9, UefiAttributes::WC.0, UefiUse::NoMap),
        (10, ALL, UefiUse::NoMap),
        (11, 1, UefiUse::NotMemory),
        (14, ALL, UefiUse::Free),
        (15, ALL, UefiUse::NoMap),
        (0x7000_0001, ALL, UefiUse::NoMap),
    ] {
        let bytes = uefi(40, &[(kind, 0, 1, attributes)]);
        let descriptor = UefiMap::new(&bytes, 40).unwrap().descriptors().next().unwrap();
        assert_eq!(descriptor.usage(), usage, "{} {attributes:#x}", descriptor.kind);
    }
}

#[test]
fn a_wrong_descriptor_size_is_refused() {
    let bytes = uefi(48, &VIRT);
    for size in [0, 8, 39, 44] {
        assert_eq!(UefiMap::new(&bytes, size).unwrap_err(), UefiError::DescriptorSize { size });
    }
    let length = UefiError::Length { len: 432, size: 56 };
    assert_eq!(UefiMap::new(&bytes, 56).unwrap_err(), length);
    assert_eq!(UefiMap::new(&bytes[..431], 48).unwrap_err(), UefiError::Length { len: 431, size: 48 });
    // 432 bytes are a whole number of descriptors of 72 bytes, which then make no sense.
    assert!(UefiMap::new(&bytes, 72).is_err());
}

#[test]
fn descriptors_that_make_no_sense_are_refused_by_number() {
    let ram = (7, 0x4000_0000, 0x1000, ALL);
    let conventional = UefiType(7);
    let start = Pa(0x8000_0000);
    let nth = 1;
    for (entry, error) in [
        ((7, start.0, 0, ALL), UefiError::NoPages { nth, kind: conventional, start }),
        (
            (7, start.0 + 0x800, 1, ALL),
            UefiError::Unaligned { nth, kind: conventional, start: Pa(start.0 + 0x800) },
        ),
        ((7, start.0, 1 << 52, ALL), UefiError::Wraps { nth, kind: conventional, start, pages: 1 << 52 }),
        ((7, !0xfff, 1, ALL), UefiError::Wraps { nth, kind: conventional, start: Pa(!0xfff), pages: 1 }),
        (
            (7, PA_LIMIT.0 - 0x1000, 2, ALL),
            UefiError::Regions {
                nth,
                source: RegionError::AbovePaLimit { range: range(PA_LIMIT.0 - 0x1000, PA_LIMIT.0 + 0x1000) },
            },
        ),
        (
            (4, 0x4080_0000, 0x1000, ALL),
            UefiError::Overlap {
                nth,
                range: range(0x4080_0000, 0x4180_0000),
                other: 0,
                other_range: range(0x4000_0000, 0x4100_0000),
            },
        ),
        (
            (11, 0x40ff_f000, 1, 1),
            UefiError::Overlap {
                nth,
                range: range(0x40ff_f000, 0x4100_0000),
                other: 0,
                other_range: range(0x4000_0000, 0x4100_0000),
            },
        ),
    ] {
        assert_eq!(filled(&[ram, entry]).unwrap_err(), error);
    }
    assert_eq!(filled(&[]).unwrap_err(), UefiError::NothingMappable { memory: 0 });
    let no_map = (6, 0x4000_0000, 0x1000, ALL);
    assert_eq!(filled(&[no_map]).unwrap_err(), UefiError::NothingMappable { memory: 0x100_0000 });
    // Devices above the 52-bit address space are not memory.
    assert!(filled(&[ram, (11, 1 << 60, 1, 1)]).is_ok());
}

#[test]
fn more_descriptors_than_the_map_holds_are_an_error_and_leave_it_empty() {
    let entries: Vec<Entry> = (0..33).map(|nth| (7, nth * 0x2000, 1, ALL)).collect();
    let range = range(32 * 0x2000, 32 * 0x2000 + 0x1000);
    let source = RegionError::Full { list: "memory", range, capacity: 32 };
    assert_eq!(filled(&entries).unwrap_err(), UefiError::Regions { nth: 32, source });
    let mut map = filled(&VIRT).unwrap();
    let bytes = uefi(40, &entries);
    map.fill_from_uefi(UefiMap::new(&bytes, 40).unwrap()).unwrap_err();
    assert_eq!(map, Map::new());
}

/// A machine with no-map memory, a crash kernel and memory that a driver added.
const IOMEM: &str = "\
00000000-03ffffff : 0.flash flash@0
09000000-09000fff : pl011@9000000
  09000000-09000fff : 9000000.pl011 pl011@9000000
40000000-5fffffff : System RAM
  40210000-4161ffff : Kernel code
  41620000-41c8ffff : reserved
  41c90000-423a8fff : Kernel data
  48000000-48008fff : reserved
60000000-600fffff : reserved
60100000-7fffffff : System RAM
  70000000-77ffffff : Crash kernel
  7ff00800-7fffffff : reserved
100000000-13fffffff : Persistent Memory
  100000000-13fffffff : dax0.0
    100000000-13fffffff : System RAM (kmem)
8000000000-ffffffffff : PCI Bus 0000:00
";

#[test]
fn iomem_says_what_is_memory_what_is_in_use_and_what_stays_unmapped() {
    let mut map = Map::new();
    map.fill_from_iomem(IOMEM).unwrap();
    let region = |start, end, no_map| MemoryRegion { range: range(start, end), no_map };
    assert_eq!(
        map.regions().collect::<Vec<_>>(),
        [
            region(0x4000_0000, 0x6000_0000, false),
            region(0x6000_0000, 0x6010_0000, true),
            region(0x6010_0000, 0x8000_0000, false),
            region(0x1_0000_0000, 0x1_4000_0000, false),
        ]
    );
    assert_eq!(
        map.reserved(),
        [
            range(0x4021_0000, 0x423a_9000),
            range(0x4800_0000, 0x4800_9000),
            range(0x7000_0000, 0x7800_0000),
            range(0x7ff0_0000, 0x8000_0000),
        ]
    );
}

#[test]
fn iomem_that_makes_no_sense_is_refused_by_its_line() {
    let good = "40000000-5fffffff : System RAM\n";
    let above = RegionError::AbovePaLimit { range: range(0x8000_0000, u64::MAX) };
    for (text, error) in [
        (
            "50000000-6fffffff : System RAM",
            IomemError::Overlap { line: 2, range: range(0x5000_0000, 0x7000_0000) },
        ),
        ("  50000000 : Kernel code", IomemError::Syntax { line: 2 }),
        ("  +50000000-50001000 : Kernel code", IomemError::Syntax { line: 2 }),
        ("  50000000-50001000 Kernel code", IomemError::Syntax { line: 2 }),
        ("1ffffffffffffffff-50001000 : x", IomemError::Syntax { line: 2 }),
        (
            "\n  50000000-4fffffff : Kernel code",
            IomemError::Reversed { line: 3, first: Pa(0x5000_0000), last: Pa(0x4fff_ffff) },
        ),
        ("00000000-00000000 : System RAM", IomemError::Hidden { line: 2 }),
        ("80000000-ffffffffffffffff : System RAM", IomemError::Regions { line: 2, source: above }),
        ("  80000000-ffffffffffffffff : Kernel code", IomemError::Regions { line: 2, source: above }),
    ] {
        let mut map = Map::new();
        let text = format!("{good}{text}\n");
        assert_eq!(map.fill_from_iomem(&text), Err(error), "{text}");
        assert_eq!(map, Map::new());
    }
    for text in ["", "\n", "40000000-40000ffe : System RAM", "40000000-5fffffff : reserved"] {
        assert_eq!(Map::new().fill_from_iomem(text), Err(IomemError::NoMemory), "{text}");
    }
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("LINMAP_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { 20_000 } else { 2_000 };
    ProptestConfig::with_cases(cases.unwrap_or(unset))
}

/// Descriptors that mostly make sense, and some that do not.
fn entry() -> impl Strategy<Value = Entry> {
    let word = || prop_oneof![4 => 0..64u64, 1 => any::<u64>(), 1 => select(vec![0, 1 << 52, u64::MAX])];
    let start = prop_oneof![6 => (0..256u64).prop_map(|page| page << 12), 1 => any::<u64>()];
    let attributes = prop_oneof![4 => Just(ALL), 1 => any::<u64>(), 1 => 0..16u64];
    (prop_oneof![4 => 0..16u32, 1 => any::<u32>()], start, word(), attributes)
}

fn iomem_line() -> impl Strategy<Value = String> {
    let name = select(vec!["System RAM", "reserved", "Kernel code", "x"]);
    let line = ("( {0,6}[0-9a-f]{1,9}-[0-9a-f]{1,9})", name)
        .prop_map(|(addresses, name)| format!("{addresses} : {name}"));
    prop_oneof![4 => line, 1 => "[ -~]{0,20}"]
}

/// A line of iomem at the outermost level, and the lines that lie in it.
#[derive(Clone, Debug)]
struct Outer {
    range: PaRange,
    name: &'static str,
    inner: Vec<(PaRange, &'static str)>,
}

/// Lines that don't overlap, of any bytes.
fn outer_lines() -> impl Strategy<Value = Vec<Outer>> {
    let name = select(vec!["System RAM", "System RAM", "reserved", "Persistent Memory", "pl011@9000000"]);
    let inner = select(vec!["Kernel code", "reserved", "System RAM (kmem)", "x : y"]);
    let inner = prop::collection::vec((0..0x3000u64, 0..0x3000u64, inner), 0..3);
    let line = (0..0x3000u64, 1..0x6000u64, name, inner);
    prop::collection::vec(line, 1..8).prop_map(|lines| {
        let mut next = 0x4000_0000;
        let outer = |(gap, len, name, inner): (u64, u64, &'static str, Vec<(u64, u64, &'static str)>)| {
            let start = next + gap;
            next = start + len;
            let within = |(from, to, name)| (range(start + from, next.saturating_sub(to)), name);
            let inner = inner.into_iter().map(within).filter(|(range, _)| range.start < range.end);
            // Memory lies in no memory.
            let inner =
                inner.filter(|(_, inner)| !name.starts_with("System") || !inner.starts_with("System"));
            let mut memory = 0;
            let inner = inner.filter(|(_, name)| {
                memory += u32::from(name.starts_with("System"));
                memory < 2 || !name.starts_with("System")
            });
            Outer { range: range(start, next), name, inner: inner.collect() }
        };
        lines.into_iter().map(outer).collect()
    })
}

fn line(depth: usize, range: PaRange, name: &str) -> String {
    format!("{:width$}{:08x}-{:08x} : {name}\n", "", range.start.0, range.end.0 - 1, width = 2 * depth)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn each_byte_of_iomem_is_what_the_lines_around_it_say(outer in outer_lines()) {
        let mut text = String::new();
        let (mut memory, mut no_map, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        for Outer { range, name, inner } in &outer {
            text += &line(0, *range, name);
            let is_ram = *name == "System RAM";
            // No-map memory lies in nothing else.
            if *name == "reserved" {
                no_map.push(*range);
            }
            memory.extend((is_ram || *name == "reserved").then_some(*range));
            for (range, name) in inner {
                text += &line(1, *range, name);
                memory.extend((*name == "System RAM (kmem)").then_some(*range));
                reserved.extend(is_ram.then(|| range.align_outward(0x1000).unwrap()));
            }
        }
        let has = |ranges: &[PaRange], pa| ranges.iter().any(|range| range.contains(pa));
        let overlaps = |(nth, range): (usize, &PaRange)| memory[..nth].iter().any(|it| it.overlaps(*range));
        let is_overlap = memory.iter().enumerate().any(overlaps);
        let mut map = Memblock::<64>::new();
        match map.fill_from_iomem(&text) {
            Err(IomemError::Overlap { .. }) => prop_assert!(is_overlap, "{text}"),
            Err(IomemError::NoMemory) => prop_assert_eq!(map, Memblock::new()),
            Err(error) => prop_assert!(false, "{error}\n{text}"),
            Ok(()) => {
                let inner = outer.iter().flat_map(|outer| outer.inner.iter().map(|(range, _)| *range));
                for range in outer.iter().map(|outer| outer.range).chain(inner) {
                    let pages = range.align_outward(0x1000).unwrap();
                    for at in [range.start.0 - 1, range.start.0, range.end.0 - 1, range.end.0]
                        .into_iter()
                        .chain([pages.start.0, pages.end.0 - 1, pages.end.0])
                    {
                        let found = (map.is_memory(Pa(at)), map.is_no_map(Pa(at)), map.is_reserved(Pa(at)));
                        let said = (has(&memory, Pa(at)), has(&no_map, Pa(at)), has(&reserved, Pa(at)));
                        prop_assert_eq!(found, said, "{:#x}\n{}", at, text);
                    }
                }
                prop_assert_eq!(map.memory_len(), memory.iter().map(|range| range.len()).sum::<u64>());
            }
        }
    }

    #[test]
    fn no_uefi_map_panics_and_what_is_accepted_is_what_it_says(
        entries in prop::collection::vec(entry(), 0..12),
        size in prop_oneof![8 => select(vec![40usize, 48, 56]), 1 => 0..100usize],
        cut in prop::option::of(any::<Index>()),
    ) {
        let mut bytes = uefi(size.max(40), &entries);
        if let Some(cut) = cut.filter(|_| !bytes.is_empty()) {
            bytes.truncate(cut.index(bytes.len()));
        }
        let Ok(uefi) = UefiMap::new(&bytes, size) else { return Ok(()) };
        prop_assert_eq!(uefi.descriptors().count(), bytes.len() / size);
        let mut map = Memblock::<6>::new();
        if map.fill_from_uefi(uefi).is_err() {
            prop_assert_eq!(map, Memblock::new());
            return Ok(());
        }
        let mut memory = 0;
        for descriptor in uefi.descriptors() {
            let usage = descriptor.usage();
            memory += if usage == UefiUse::NotMemory { 0 } else { descriptor.range.len() };
            for pa in [descriptor.range.start, Pa(descriptor.range.end.0 - 1)] {
                prop_assert_eq!(map.is_memory(pa), usage != UefiUse::NotMemory);
                prop_assert_eq!(map.is_no_map(pa), usage == UefiUse::NoMap);
                prop_assert_eq!(map.is_reserved(pa), usage == UefiUse::Reserved);
                prop_assert_eq!(uefi.at(pa).map(|found| found.usage()), Some(usage));
            }
        }
        prop_assert_eq!(map.memory_len(), memory);
    }

    #[test]
    fn no_text_of_iomem_panics(
        lines in prop::collection::vec(iomem_line(), 0..12),
        noise in any::<String>(),
    ) {
        for text in [lines.join("\n"), noise] {
            let mut map = Memblock::<6>::new();
            match map.fill_from_iomem(&text) {
                Ok(()) => prop_assert!(map.mappable(0x1000).next().is_some()),
                Err(_) => prop_assert_eq!(map, Memblock::new()),
            }
        }
    }

    #[test]
    fn harmed_iomem_does_not_panic(at in any::<Index>(), byte in any::<u8>()) {
        let mut bytes = IOMEM.as_bytes().to_vec();
        *at.get_mut(&mut bytes) = byte;
        let mut map = Map::new();
        let _ = map.fill_from_iomem(&String::from_utf8_lossy(&bytes));
    }
}
