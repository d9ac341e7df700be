//! Files of traces: what is written is read again, and the machine, the CPUs and the memory of a
//! file are checked across its lines.

use linmap_model::trace::text::{read, write};
use linmap_model::trace::{Problem, ReadError};
use linmap_model::{Config, ConfigError, Event, Trace};
use linmap_trace::{Malformed, Quote};
use proptest::prelude::*;
use proptest::sample::select;

/// Memory of the machines here: two ranges that touch, and one by itself.
const RAM: [(u64, u64); 3] = [(0x5000_0000, 0x1000), (0x4000_0000, 0x1000_0000), (0x8000_0000, 0x1_0000)];

const HEAD: &str = "machine cpus=2 bbm=3 granule=4K va=48 pa=48\nram 0x4000_0000 0x10_0000\n";

/// Events with a place in memory or a CPU, which a file is checked for. `linmap-trace` tests how
/// each line reads.
fn event(cpus: usize) -> impl Strategy<Value = Event> {
    let words = (0x4000_0000_u64 / 8..0x5000_1000 / 8)
        .prop_flat_map(|word| (Just(8 * word), 1..=(0x5000_1000 / 8 - word)));
    prop_oneof![
        (0..cpus, words.clone(), any::<u64>(), any::<Option<u64>>())
            .prop_map(|(cpu, (pa, _), value, via)| Event::Store { cpu, pa, value, via }),
        (0..cpus, words, any::<u64>(), any::<u64>())
            .prop_map(|(cpu, (pa, count), first, step)| Event::Fill { cpu, pa, count, first, step }),
        (0..cpus).prop_map(|cpu| Event::Isb { cpu }),
        (0_u64..0x1_0000, 1_u64..=0x1001)
            .prop_map(|(page, pages)| (page, pages.min(0x1_0001 - page)))
            .prop_map(|(page, pages)| Event::Free { pa: 0x4000_0000 + 0x1000 * page, len: 0x1000 * pages }),
        Just(Event::Settled),
    ]
}

fn trace() -> impl Strategy<Value = Trace> {
    let granule = select(vec![0x1000, 0x4000, 0x1_0000]);
    let pa_bits = select(vec![32, 36, 40, 42, 44, 48, 52]);
    let config = (1_usize..=64, 0_u8..=3, granule, 25_u8..=52, pa_bits);
    config.prop_flat_map(|(cpus, bbm, granule, va_bits, pa_bits)| {
        let config = Config {
            cpus,
            bbm,
            granule,
            va_bits,
            pa_bits,
            ram: RAM.to_vec(),
            leniency: linmap_model::Leniency::Strict,
        };
        let events = proptest::collection::vec(event(cpus), 0..40);
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
