//! linmap's own trace format: what is written is read again, and errors name the place of what
//! can't be read.

use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};
use linmap_model::trace::text::{read, write};
use linmap_model::trace::{Problem, ReadError};
use linmap_model::{Config, ConfigError, Event, Trace};
use linmap_trace::{Malformed, Quote};
use proptest::prelude::*;
use proptest::sample::select;

/// Memory of the machines here: two ranges that touch, and one by itself.
const RAM: [(u64, u64); 3] = [(0x5000_0000, 0x1000), (0x4000_0000, 0x1000_0000), (0x8000_0000, 0x1_0000)];

const HEAD: &str = "machine cpus=2 bbm=3 granule=4K va=48 pa=48\nram 0x4000_0000 0x10_0000\n";

const SCOPES: [(TlbiScope, bool); 16] = [
    (TlbiScope::AllEl1, false),
    (TlbiScope::Asid, true),
    (TlbiScope::Va, true),
    (TlbiScope::VaLast, true),
    (TlbiScope::VaAnyAsid, true),
    (TlbiScope::VaAnyAsidLast, true),
    (TlbiScope::Range, true),
    (TlbiScope::RangeLast, true),
    (TlbiScope::RangeAnyAsid, true),
    (TlbiScope::RangeAnyAsidLast, true),
    (TlbiScope::AllEl2, false),
    (TlbiScope::VaEl2, true),
    (TlbiScope::VaEl2Last, true),
    (TlbiScope::AllStages, false),
    (TlbiScope::AllStagesVmid, false),
    (TlbiScope::Ipa, true),
];

prop_compose! {
    fn config()(
        cpus in 1_usize..=64,
        bbm in 0_u8..=3,
        granule in select(vec![0x1000, 0x4000, 0x1_0000]),
        va_bits in 25_u8..=52,
        pa_bits in select(vec![32, 36, 40, 42, 44, 48, 52]),
    ) -> Config {
        Config { cpus, bbm, granule, va_bits, pa_bits, ram: RAM.to_vec() }
    }
}

/// Words from an address that are all memory.
fn words() -> impl Strategy<Value = (u64, u64)> {
    (0x4000_0000_u64 / 8..0x5000_1000 / 8).prop_flat_map(|word| {
        let most = 0x5000_1000 / 8 - word;
        (Just(8 * word), 1..=most)
    })
}

fn event(cpus: usize) -> impl Strategy<Value = Event> {
    let kind = || select(vec![Use::Read, Use::Write, Use::Execute]);
    let range = || any::<u64>().prop_flat_map(|va| (Just(va), 1..=(u64::MAX - va).saturating_add(1).max(1)));
    let domain = select(vec![Domain::Nsh, Domain::Ish, Domain::Osh, Domain::Sy]);
    let registers = vec![
        Register::Ttbr0,
        Register::Ttbr1,
        Register::Tcr,
        Register::Mair,
        Register::Ttbr0El2,
        Register::Vttbr,
    ];
    prop_oneof![
        (0..cpus, words(), any::<u64>(), any::<Option<u64>>())
            .prop_map(|(cpu, (pa, _), value, via)| Event::Store { cpu, pa, value, via }),
        (0..cpus, words(), any::<u64>(), any::<u64>())
            .prop_map(|(cpu, (pa, count), first, step)| Event::Fill { cpu, pa, count, first, step }),
        (0..cpus, domain, select(vec![Access::All, Access::Stores]))
            .prop_map(|(cpu, domain, access)| Event::Dsb { cpu, domain, access }),
        (0..cpus).prop_map(|cpu| Event::Isb { cpu }),
        (0..cpus, select(SCOPES.to_vec()), any::<bool>(), any::<u64>()).prop_map(
            |(cpu, (scope, takes_operand), broadcast, operand)| Event::Tlbi {
                cpu,
                tlbi: Tlbi { scope, broadcast },
                operand: if takes_operand { operand } else { 0 },
            }
        ),
        (0..cpus, select(registers), any::<u64>()).prop_map(|(cpu, register, value)| Event::Write {
            cpu,
            register,
            value
        }),
        (0..cpus, any::<u64>(), kind(), any::<u64>()).prop_map(|(cpu, va, kind, pa)| Event::Access {
            cpu,
            va,
            kind,
            pa
        }),
        (0..cpus, any::<u64>(), kind()).prop_map(|(cpu, va, kind)| Event::Faults { cpu, va, kind }),
        (0..cpus, range(), kind()).prop_map(|(cpu, (va, len), kind)| Event::Uses { cpu, va, len, kind }),
        (0..cpus, range(), kind()).prop_map(|(cpu, (va, len), kind)| Event::Unuses { cpu, va, len, kind }),
        (0_u64..0x1_0000, 1_u64..=0x1001)
            .prop_map(|(page, pages)| (page, pages.min(0x1_0001 - page)))
            .prop_map(|(page, pages)| Event::Free { pa: 0x4000_0000 + 0x1000 * page, len: 0x1000 * pages }),
        Just(Event::Settled),
    ]
}

fn trace() -> impl Strategy<Value = Trace> {
    config().prop_flat_map(|config| {
        let events = proptest::collection::vec(event(config.cpus), 0..40);
        (Just(config), events).prop_map(|(config, events)| Trace { config, events })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(trace in trace()) {
        let text = write(&trace);
        prop_assert_eq!(read(text.as_bytes()), Ok(trace), "{}", text);
    }
}

#[test]
fn a_trace_reads_as_a_person_would_write_it() {
    let text = format!(
        "# The first line may be a comment.\n{HEAD}\n\
         0 store 0x4000_1000 0x4000_2003 via=0xffff_8000_0000_1000 # link\r\n\
         \t1  fill\t0x40002000 count=512 first=0x703 step=0x1000\n\
         0 dsb ishst\n0 tlbi VAAE1IS 0x8000_0001\n0 tlbi vmalle1\n0 msr ttbr1_el1 1073745920\n\
         1 exec 0 pa=0x40004000\n1 read 0 faults\nfree 0x40002000 4096\nsettled"
    );
    let all = Tlbi { scope: TlbiScope::AllEl1, broadcast: false };
    let by_va = Tlbi { scope: TlbiScope::VaAnyAsid, broadcast: true };
    let via = Some(0xffff_8000_0000_1000);
    assert_eq!(
        read(text.as_bytes()).unwrap().events,
        [
            Event::Store { cpu: 0, pa: 0x4000_1000, value: 0x4000_2003, via },
            Event::Fill { cpu: 1, pa: 0x4000_2000, count: 512, first: 0x703, step: 0x1000 },
            Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::Stores },
            Event::Tlbi { cpu: 0, tlbi: by_va, operand: 0x8000_0001 },
            Event::Tlbi { cpu: 0, tlbi: all, operand: 0 },
            Event::Write { cpu: 0, register: Register::Ttbr1, value: 0x4000_1000 },
            Event::Access { cpu: 1, va: 0, kind: Use::Execute, pa: 0x4000_4000 },
            Event::Faults { cpu: 1, va: 0, kind: Use::Read },
            Event::Free { pa: 0x4000_2000, len: 0x1000 },
            Event::Settled,
        ]
    );
}

/// What reading a file ends with that should not be read.
fn error(file: &str) -> (usize, usize, Problem) {
    let ReadError { line, column, problem } = read(file.as_bytes()).unwrap_err();
    (line, column, problem)
}

/// The column and what is wrong with a third line after the head.
fn bad_line(line: &str) -> (usize, Problem) {
    let (at, column, problem) = error(&format!("{HEAD}{line}\n"));
    assert_eq!(at, 3);
    (column, problem)
}

#[test]
fn lines_that_are_malformed_are_said_with_their_place() {
    let unknown = Malformed::UnknownEvent(Quote::of(b"stroe"));
    assert_eq!(bad_line("0 stroe 0x40000000 1"), (3, unknown.into()));
    assert_eq!(bad_line("2 isb"), (1, Problem::NoSuchCpu { cpu: 2, cpus: 2 }));
}

#[test]
fn stores_lie_in_memory() {
    let outside = |start, len| Problem::OutsideRam { start, len };
    assert_eq!(bad_line("0 store 0x40100000 0"), (9, outside(0x4010_0000, 8)));
    assert_eq!(bad_line("0 store 0xfffffffffffffff8 0"), (9, outside(u64::MAX - 7, 8)));
    let line = "0 fill 0x400ffff0 count=3 first=0 step=0";
    assert_eq!(bad_line(line), (8, outside(0x400f_fff0, 24)));
    let line = "0 fill 0x40000000 count=0x4000000000000000 first=0 step=0";
    assert_eq!(bad_line(line), (8, outside(0x4000_0000, u64::MAX)));
    assert_eq!(bad_line("free 0x400ff000 0x2000"), (6, outside(0x400f_f000, 0x2000)));
}

#[test]
fn the_machine_comes_first_and_once() {
    let head = "machine cpus=1 bbm=0 granule=4K va=48 pa=48\n";
    assert_eq!(error(""), (1, 1, Problem::NoHead));
    assert_eq!(error("\n# nothing\n"), (3, 1, Problem::NoHead));
    assert_eq!(error("0 isb\n"), (1, 1, Problem::NoHead));
    assert_eq!(error(&format!("{head}{head}")), (2, 1, Problem::SecondHead));
    assert_eq!(error(&format!("{head}settled\nram 0 0x1000\n")), (3, 1, Problem::LateRam));
    assert_eq!(error("not a trace"), (1, 1, Problem::NoHead));
    let config = |error| Problem::Config(error);
    assert_eq!(error("machine cpus=65 bbm=0 granule=4K va=48 pa=48"), (1, 1, config(ConfigError::Cpus(65))));
    let ram = |start, len| config(ConfigError::Ram { start, len });
    assert_eq!(error(&format!("{head}ram 0x800 0x1000")), (2, 5, ram(0x800, 0x1000)));
    assert_eq!(error(&format!("{head}ram 0 0")), (2, 5, ram(0, 0)));
    assert_eq!(
        error(&format!("{head}ram 0x1000 0xffffffffffffe000")),
        (2, 5, ram(0x1000, 0xffff_ffff_ffff_e000))
    );
    assert_eq!(error(&format!("{head}ram 0 0x2000\nram 0x1000 0x1000")), (3, 5, ram(0x1000, 0x1000)));
}

#[test]
fn a_million_lines_and_ranges_take_no_longer_each() {
    let mut text = String::from("machine cpus=1 bbm=0 granule=4K va=48 pa=48\n");
    for page in 0..200_000_u64 {
        text.push_str(&format!("ram {:#x} 0x1000\n", page * 0x2000));
    }
    for page in 0..800_000_u64 {
        text.push_str(&format!("0 store {:#x} {page}\n", page % 200_000 * 0x2000));
    }
    assert_eq!(read(text.as_bytes()).unwrap().events.len(), 800_000);
}
