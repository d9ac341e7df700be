//! Reading device trees and words: trees of QEMU's machines, whole and damaged, trees with random
//! contents, and random words. Nothing panics or runs for ever, and what is read satisfies the
//! rules that the crate documents.
//!
//! `LINMAP_FUZZ_CASES` is the number of cases of each property; the default is 500, or 20 000
//! with `LINMAP_SOAK`.
//!
//! The trees in `tests/trees` come from QEMU 10.0 (`-M virt,dumpdtb=…`), without the unused space
//! at their end: `virt-gicv2` with `-cpu max -m 1G -smp 4`, `virt-gicv3-200-cpus` with
//! `gic-version=3` and `-cpu max -m 4G -smp 200`, `virt-el2` with `virtualization=on` and
//! `-cpu cortex-a72 -m 2G -smp 2,clusters=2`.

mod memory_words;
mod trees;
mod uarts;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use linmap_fdt::parse_dtb;
use linmap_memblock::Memblock;
use linmap_platform::gic::{FRAME, RegistersError, V2, V3, Version};
use linmap_platform::{
    Affinity, Conduit, CrashReservation, CrashReservationError, Devices, EnableMethod, Identity, Psci,
    PsciFunctions, Uart, UartKind, UnusableCpu, chosen, parse_number,
};
use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use trees::{
    Bus, CELLS_2_2, Properties, RAM, cell, cells, gic_v3, memory, node, number_of_cells, on_a_bus, strings,
    tree, words_of_values,
};

const MAX_CPUS: usize = 256;
type Topology = linmap_platform::Topology<MAX_CPUS>;
type Map = Memblock<256>;

const PA_BITS: u8 = 48;
const BOOT: Affinity = Affinity::of_mpidr(0);

fn cases() -> ProptestConfig {
    let cases = std::env::var("LINMAP_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { 20_000 } else { 500 };
    ProptestConfig::with_cases(cases.unwrap_or(unset))
}

const fn range(start: u64, len: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(start + len))
}

/// Reads everything from `blob`, if it is a tree, and checks the results.
fn read(blob: &[u8], boot: Affinity) {
    let Ok(fdt) = parse_dtb(blob) else { return };
    let _ = (Uart::from_stdout_path(fdt), chosen::command_line(fdt).words().count());
    read_gic(blob);
    let mut topology = read_cpus(blob, boot);
    let mut memory = Map::new();
    if memory.fill_from_fdt(fdt).is_err() {
        return;
    }
    let initrd = chosen::initrd(fdt).unwrap_or_default();
    assert!(
        initrd.is_empty() || memory.is_reserved(initrd.start) && memory.is_reserved(Pa(initrd.end.0 - 1))
    );
    let before = topology.unusable_count;
    let ours = [range(RAM + 0x20_0000, 0x10_0000), initrd];
    topology.check_mailboxes(&memory, &ours);
    for cpu in &topology.cpus {
        if let EnableMethod::SpinTable { release } = cpu.method {
            let is_firmware =
                !memory.is_memory(release) || memory.is_no_map(release) || memory.is_reserved(release);
            assert!(is_firmware && !ours.iter().any(|ours| ours.contains(release)), "{release}");
        }
    }
    assert!(topology.unusable_count - before < MAX_CPUS + 1);
}

fn read_cpus(blob: &[u8], boot: Affinity) -> Topology {
    let topology = Topology::from_fdt(parse_dtb(blob).expect("a tree"), boot);
    assert_eq!(topology.cpus[0].affinity, boot);
    for (number, cpu) in topology.cpus.iter().enumerate() {
        let affinity = cpu.affinity;
        assert_eq!(affinity.bits() & !Affinity::MASK, 0);
        assert_eq!(u64::from(affinity.packed()), affinity.bits() >> 32 << 24 | affinity.bits() & 0xff_ffff);
        assert!(topology.cpus[..number].iter().all(|earlier| earlier.affinity != affinity), "{affinity}");
        if let EnableMethod::SpinTable { release } = cpu.method {
            assert!(release.0.is_multiple_of(8), "{release}");
        }
    }
    assert_eq!(topology.unusable.len(), topology.unusable_count.min(topology.unusable.capacity()));
    for unusable in &topology.unusable {
        assert!(!unusable.to_string().contains('\n'), "{unusable}");
    }
    topology
}

fn read_gic(blob: &[u8]) {
    let Some((version, device)) = Devices::find(parse_dtb(blob).expect("a tree")).gic else { return };
    assert!(device.registers.iter().all(|range| range.start <= range.end));
    for pa_bits in [32, PA_BITS] {
        let is_unit = |at: Pa, unit: u64| at.0.is_multiple_of(unit) && (at.0 + (unit - 1)) >> pa_bits == 0;
        match version {
            Version::V2 => {
                let Ok(V2 { distributor, cpu_interface }) = V2::of(&device, pa_bits) else { continue };
                assert!(is_unit(distributor, 0x1000) && is_unit(cpu_interface, 0x1000));
            }
            Version::V3 => {
                let Ok(described) = V3::of(&device, pa_bits) else { continue };
                assert!(is_unit(described.distributor, FRAME));
                assert!((1..device.registers.len()).contains(&described.regions().count()));
                for region in described.regions() {
                    walk(&described, region, pa_bits);
                }
            }
        }
    }
}

/// Walks a region as a driver does, with redistributors of two sizes.
fn walk(described: &V3<'_>, region: PaRange, pa_bits: u8) {
    let mut next = V3::first(region);
    let mut behind = region.start;
    for own in [2, 4, 4, 2].into_iter().cycle().take(4 * MAX_CPUS) {
        let Some(at) = next else { return };
        assert!(at >= behind && at.0.is_multiple_of(FRAME) && at.0 + 2 * FRAME <= region.end.0, "{at}");
        assert_eq!((at.0 + 2 * FRAME - 1) >> pa_bits, 0);
        behind = Pa(at.0 + own * FRAME);
        next = described.next(region, at, own * FRAME);
    }
}

/// The trees that are damaged.
static WHOLE: LazyLock<[Vec<u8>; 5]> = LazyLock::new(|| {
    [
        include_bytes!("../trees/virt-gicv2.dtb").to_vec(),
        include_bytes!("../trees/virt-gicv3-200-cpus.dtb").to_vec(),
        include_bytes!("../trees/virt-el2.dtb").to_vec(),
        on_a_bus(),
        gic_v3(range(0x080a_0000, 0x10_0000), 0x4_0000),
    ]
});

/// A PL011 whose registers say what it is.
fn pl011(registers: u64) -> Uart {
    Uart { identity: Identity::InRegisters, ..Uart::new(UartKind::Pl011, Pa(registers)) }
}

#[test]
fn undamaged_trees_are_read_as_they_are_meant() {
    let [v2, v3, el2, bus, _] = &*WHOLE;
    for (blob, count, psci) in [(v2, 4, Conduit::Hvc), (v3, 200, Conduit::Hvc), (el2, 2, Conduit::Smc)] {
        let fdt = parse_dtb(blob).expect("a tree");
        let functions = PsciFunctions::Standard;
        assert_eq!(Devices::find(fdt).psci, Some(Psci { conduit: psci, functions }));
        assert_eq!(Uart::from_stdout_path(fdt), Some(pl011(0x0900_0000)));
        let topology = read_cpus(blob, BOOT);
        assert_eq!((topology.cpus.len(), topology.unusable_count), (count, 0));
        assert!(topology.cpus.iter().all(|cpu| cpu.method == EnableMethod::Psci));
    }
    for (blob, interface) in [(v2, 0x0801_0000), (el2, 0x0801_0000), (bus, 0xff84_2000)] {
        let (version, device) = Devices::find(parse_dtb(blob).expect("a tree")).gic.expect("a GIC");
        assert_eq!((version, version.number()), (Version::V2, 2));
        assert_eq!(V2::of(&device, PA_BITS).expect("its pages").cpu_interface, Pa(interface));
    }
    let (version, device) = Devices::find(parse_dtb(v3).expect("a tree")).gic.expect("a GIC");
    assert_eq!((version, version.number()), (Version::V3, 3));
    let described = V3::of(&device, PA_BITS).expect("its frames");
    assert_eq!(described.distributor, Pa(0x0800_0000));
    assert!(described.regions().eq([range(0x080a_0000, 0xf6_0000), range(0x40_0000_0000, 0x400_0000)]));
    assert_eq!(V3::of(&device, 32), Err(RegistersError { what: "redistributors", pa_bits: 32 }));

    let fdt = parse_dtb(bus).expect("a tree");
    assert_eq!(Uart::from_stdout_path(fdt), Some(pl011(0xfe20_1000)));
    assert_eq!(chosen::initrd(fdt), Some(range(0x4800_0000, 0x100_0000)));
    let topology = read_cpus(bus, BOOT);
    let release = |number: u64| EnableMethod::SpinTable { release: Pa(RAM + 0xd8 + 8 * number) };
    assert!((0..).zip(&topology.cpus).all(|(number, cpu)| cpu.method == release(number)));
    assert_eq!((topology.cpus.len(), topology.unusable_count), (4, 0));
}

#[test]
fn redistributors_far_apart_end_with_their_region_whatever_the_stride() {
    let region = range(0x080a_0000, 0x10_0000);
    let farthest = !(FRAME - 1);
    // Such that the next one ends after the last address, begins at it, and begins after it.
    for stride in [farthest - region.start.0 - FRAME, farthest - region.start.0, farthest] {
        let blob = gic_v3(region, stride);
        let (_, device) = Devices::find(parse_dtb(&blob).expect("a tree")).gic.expect("a GIC");
        let described = V3::of(&device, PA_BITS).expect("its frames");
        assert_eq!(V3::first(region), Some(region.start));
        assert_eq!(described.next(region, region.start, 2 * FRAME), None, "{stride:#x}");
        read(&blob, BOOT);
    }
}

#[test]
fn no_cells_are_no_address() {
    let none: Properties<'_> = &[("#address-cells", &[0]), ("#size-cells", &[1])];
    let blob = tree(CELLS_2_2, |fdt| {
        node(fdt, "cpus", none, |fdt| node(fdt, "cpu", &[("reg", &[0])], |_| ()));
        let bus: Properties<'_> = &[none[0], none[1], ("ranges", &[])];
        node(fdt, "soc", bus, |fdt| {
            let reg: Properties<'_> = &[("reg", &[0x1000, 0x1000])];
            node(fdt, "gic", reg, |fdt| strings(fdt, &[("compatible", "arm,gic-400")]));
        });
    });
    let unusable = read_cpus(&blob, BOOT).unusable;
    assert!(
        matches!(unusable[..], [UnusableCpu::NoReg { .. }, UnusableCpu::NoBootCpu { .. }]),
        "{unusable:?}"
    );
    let (_, device) = Devices::find(parse_dtb(&blob).expect("a tree")).gic.expect("a GIC");
    assert!(device.registers.is_empty());
}

#[test]
fn mailboxes_in_memory_of_ours_are_not_the_firmwares() {
    let blob = on_a_bus();
    let fdt = parse_dtb(&blob).expect("a tree");
    let mut memory = Map::new();
    memory.fill_from_fdt(fdt).expect("memory");
    let mut topology = Topology::from_fdt(fdt, BOOT);
    topology.check_mailboxes(&memory, &[]);
    assert_eq!(topology.unusable_count, 0);
    topology.check_mailboxes(&memory, &[range(RAM, 0x1000)]);
    assert!(matches!(topology.unusable[..], [UnusableCpu::UnreservedMailbox { .. }, ..]));
    assert_eq!(topology.unusable_count, 4);
}

#[test]
fn a_tree_of_the_most_bytes_is_read_soon_and_names_the_first_cpu_too_many() {
    const MOST: usize = 2 << 20;
    let cells: Properties<'_> = &[("#address-cells", &[1]), ("#size-cells", &[0])];
    let cpus = tree(CELLS_2_2, |fdt| {
        node(fdt, "cpus", cells, |fdt| {
            for number in 0..30_000 {
                node(fdt, &format!("cpu@{number:x}"), &[("reg", &[number])], |_| ());
            }
        });
    });
    let deep = [1, 0x6100_0000u32].map(u32::to_be_bytes).concat().repeat(100_000);
    let mut nested = on_a_bus();
    let word = |blob: &[u8], at: usize| u32::from_be_bytes(*blob[at..].first_chunk().expect("a word"));
    // Where the root's properties begin and its first node may stand.
    let structure = word(&nested, 8) as usize;
    let first = structure
        + nested[structure + 8..].windows(8).position(|w| w == b"\0\0\0\x01memo").expect("a node")
        + 8;
    let more = [deep, [2u32.to_be_bytes()].concat().repeat(100_000)].concat();
    let len = more.len() as u32;
    nested.splice(first..first, more);
    for (field, by) in [(4, len), (12, len), (36, len)] {
        let value = word(&nested, field) + by;
        nested[field..field + 4].copy_from_slice(&value.to_be_bytes());
    }
    parse_dtb(&nested).expect("a tree");
    for blob in [&cpus, &nested] {
        assert!((MOST / 3..MOST).contains(&blob.len()), "{}", blob.len());
        let started = Instant::now();
        read(blob, BOOT);
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
    let topology = read_cpus(&cpus, BOOT);
    assert_eq!(topology.cpus.len(), MAX_CPUS);
    assert_eq!(topology.unusable_count, 0);
    let left_out = topology.left_out.expect("no room for all");
    assert_eq!((&*left_out.first, &*left_out.last), ("cpu@100", "cpu@752f"));
    assert_eq!((left_out.count, left_out.max), (30_000 - MAX_CPUS, MAX_CPUS));
}

#[test]
fn what_trees_made_by_chance_are_made_of_is_encoded_in_cells() {
    let entry = (0x0800_0000, FRAME);
    let bus = Bus { address: 1, size: 1, windows: Some(vec![[0, 1 << 40, 1 << 31]]) };
    assert_eq!(bus.reg(&[entry]), [0x0800_0000, 0x1_0000]);
    assert_eq!(bus.ranges(&Bus::ROOT), Some(vec![0, 0x100, 0, 0x8000_0000]));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_damage_to_a_tree_makes_reading_panic_or_break_a_rule(
        which in 0..5usize,
        values in prop::collection::vec((any::<Index>(), cell()), 0..5),
        bytes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..3),
        cut in prop::option::weighted(0.05, any::<Index>()),
        boot in any::<u64>(),
    ) {
        let mut blob = WHOLE[which].clone();
        let words = words_of_values(&blob);
        for (nth, value) in values {
            let at = *nth.get(&words);
            blob[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        for (at, value) in bytes {
            *at.get_mut(&mut blob) ^= value;
        }
        if let Some(cut) = cut {
            blob.truncate(cut.index(blob.len()));
        }
        read(&blob, BOOT);
        read(&blob, Affinity::of_mpidr(boot));
    }

    #[test]
    fn whatever_stands_in_a_tree_reading_keeps_the_rules(
        above in Bus::any(),
        cpus in prop::collection::vec(
            (
                prop_oneof![3 => 0..4u64, 1 => number_of_cells()],
                select(vec!["psci", "spin-table", "", "psci\0"]),
                cells(),
                any::<bool>(),
            ),
            0..6,
        ),
        buses in prop_oneof![
            3 => prop::collection::vec(Bus::any(), 0..3),
            1 => prop::collection::vec(Bus::any(), 0..8),
        ],
        compatible in select(vec!["arm,gic-400", "arm,gic-v3", "arm,gic-v3\0arm,gic-400", ""]),
        entries in prop::collection::vec((number_of_cells(), number_of_cells()), 0..5),
        regions in prop::option::of(cells()),
        stride in prop::option::of(cells()),
        path in select(vec!["", "/", "serial", "serial:9600", "/bus/bus/serial", "/bus//bus/bus/", ":", "é"]),
    ) {
        let blob = tree(CELLS_2_2, |fdt| {
            memory(fdt);
            let (address, size) = ([above.address], [above.size]);
            node(fdt, "cpus", &[("#address-cells", &address), ("#size-cells", &size)], |fdt| {
                for (number, (reg, method, release, enabled)) in cpus.iter().enumerate() {
                    let reg = above.reg(&[(*reg, 0)]);
                    let properties: Properties<'_> = &[("reg", &reg), ("cpu-release-addr", release)];
                    let status = if *enabled { "okay" } else { "disabled" };
                    node(fdt, &format!("cpu@{number}"), properties, |fdt| {
                        strings(fdt, &[("enable-method", method), ("status", status)]);
                    });
                }
            });
            Bus::ROOT.nest(fdt, &buses, &|fdt, bus| {
                let reg = bus.reg(&entries);
                let mut properties = vec![("reg", &reg[..])];
                properties.extend(regions.as_ref().map(|regions| ("#redistributor-regions", &regions[..])));
                properties.extend(stride.as_ref().map(|stride| ("redistributor-stride", &stride[..])));
                node(fdt, "gic", &properties, |fdt| strings(fdt, &[("compatible", compatible)]));
                node(fdt, "serial", &[("reg", &reg)], |fdt| strings(fdt, &[("compatible", "arm,pl011")]));
            });
            node(fdt, "aliases", &[], |fdt| strings(fdt, &[("serial", "/bus/serial")]));
            node(fdt, "chosen", &[], |fdt| strings(fdt, &[("stdout-path", path)]));
        });
        parse_dtb(&blob).expect("a tree");
        read(&blob, BOOT);
    }

    #[test]
    fn no_word_makes_reading_panic_and_numbers_are_what_was_written(
        word in prop::collection::vec(
            select(vec![
                "0x", "1", "9", "f", "K", "M", "G", "@", "+", "-", ",", "pl011", "mmio32", "é",
                "18446744073709551615",
            ]),
            0..7,
        ),
        value in any::<u64>(),
    ) {
        let word = word.concat();
        let _ = (parse_number(&word), Uart::from_earlycon(&word));
        prop_assert!(!word.contains(['+', '-']) || parse_number(&word).is_none());
        prop_assert_eq!(parse_number(&format!("{value}")), Some(value));
        prop_assert_eq!(parse_number(&format!("{value:#x}")), Some(value));
        prop_assert_eq!(parse_number(&format!("{value}G")), value.checked_mul(1 << 30));
        let uart = Uart::new(UartKind::Pl011, Pa(value));
        prop_assert_eq!(Uart::from_earlycon(&format!("pl011,mmio32,{value:#x}")), Some(uart));
    }

    #[test]
    fn what_is_reserved_for_a_crash_kernel_was_free_and_an_error_changes_nothing(
        size in prop_oneof![(0..64u64).prop_map(|n| n << 20), cell().prop_map(u64::from), any::<u64>()],
        start in prop::option::of(prop_oneof![(500..1600u64).prop_map(|n| n << 21), any::<u64>()]),
        text in prop::option::weighted(0.1, "[0-9x@KMG]{0,8}"),
        taken in prop::collection::vec((0..0x4000_0000u64, 1..0x400_0000u64), 0..4),
    ) {
        let mut memory = Map::new();
        memory.add(range(RAM, 0x4000_0000)).unwrap();
        memory.add(range(4 * RAM, 0x4000_0000)).unwrap();
        for (start, len) in taken {
            memory.reserve(range(RAM + start, len)).unwrap();
        }
        let before = memory.copy().unwrap();
        let written = start.map_or(format!("{size:#x}"), |start| format!("{size:#x}@{start}"));
        let wanted = text.as_ref().unwrap_or(&written).parse::<CrashReservation>();
        match wanted.and_then(|wanted| wanted.reserve(&mut memory)) {
            Ok(reserved) => {
                prop_assert!(!reserved.is_empty());
                prop_assert!((reserved.start.0 | reserved.end.0).is_multiple_of(0x20_0000));
                prop_assert!(before.free_ranges(reserved).eq([reserved]));
                prop_assert_eq!(memory.free_ranges(reserved).next(), None);
                if text.is_none() {
                    prop_assert_eq!(reserved.len(), size);
                    prop_assert!(start.is_none_or(|start| reserved.start == Pa(start)));
                }
                memory.free(reserved).unwrap();
            }
            Err(error) => prop_assert!(text.is_some() || error != CrashReservationError::Syntax),
        }
        prop_assert_eq!(memory, before);
    }
}
