//! casemate's trace format, read and written.

use std::fs;
use std::path::Path;

use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope};
use linmap_model::trace::casemate::{CasemateTrace, Told, WriteError, read, write};
use linmap_model::trace::{Problem, ReadError};
use linmap_model::{Config, Event, Trace};
use linmap_trace::{Found, Malformed, Quote};

const ISH: Event = Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All };
const ISHST: Event = Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::Stores };

fn store(pa: u64, value: u64) -> Event {
    Event::Store { cpu: 0, pa, value, via: None }
}

fn zeros(pa: u64, count: u64) -> Event {
    Event::Fill { cpu: 0, pa, count, first: 0, step: 0 }
}

fn root(register: Register, value: u64) -> Event {
    Event::Write { cpu: 0, register, value }
}

fn tlbi(scope: TlbiScope, operand: u64) -> Event {
    Event::Tlbi { cpu: 0, tlbi: Tlbi { scope, broadcast: true }, operand }
}

fn ok(file: &str) -> CasemateTrace {
    read(file.as_bytes()).unwrap()
}

fn events(file: &str) -> Vec<Event> {
    ok(file).trace.events
}

fn error(file: &str) -> (usize, usize, Problem) {
    let ReadError { line, column, problem } = read(file.as_bytes()).unwrap_err();
    (line, column, problem)
}

/// The example traces by name.
fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/casemate");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sexp"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().into(), fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    assert_eq!(files.len(), 24);
    files
}

#[test]
fn every_example_reads_and_each_record_becomes_events_or_is_accounted_for() {
    for (name, text) in examples() {
        let read = ok(&text);
        read.trace.config.check().unwrap();
        let records = text.lines().filter(|line| line.starts_with('(')).count();
        let count = |what: &str| text.matches(what).count();
        // An initialisation is two events, a switch of translation none unless it is on, TCR and
        // VTCR none.
        let quiet = count("tcr_el2") + count("(sysreg hcr_el2)") + count("(sysreg sctlr_el2)");
        let quiet = quiet + count(" hcr_el2 0x") + count(" sctlr_el2 0x");
        let expected = records + count("(mem-init") - quiet - read.out_of_scope.len();
        assert_eq!(read.trace.events.len(), expected, "{name}");
    }
}

#[test]
fn the_examples_are_written_and_read_again_as_they_were() {
    let plain = |trace: &Trace| {
        let mut events = trace.events.clone();
        // Read, each initialisation brings its own barrier; a released table is released and freed.
        events.retain(|event| *event != ISHST);
        events.dedup();
        events
    };
    for (name, text) in examples() {
        let trace = ok(&text).trace;
        let again = ok(&write(&trace, Told::Hypervisor).unwrap()).trace;
        assert_eq!(plain(&again), plain(&trace), "{name}");
    }
}

#[test]
fn records_read_with_names_or_without_in_any_layout() {
    let named = "(mem-init (id 0) (tid 0) (address 40000000) (size 1000) (src \"a.c:1\"))\n\
                 (sysreg-write (id 1) (tid 0) (sysreg ttbr0_el2) (value 0x40000000) (src 17))\n\
                 (barrier (id 2) (tid 0) dsb (kind ish))\n\
                 (tlbi (id 3) (tid 0) vae2is (value 0x12))\n! a verdict \n";
    let bare = "(mem-init 3 0 \"a.c:1\" 40000000 1000)(msr 4 0 TTBR_EL2 40000000) ; both\n\
                (barrier\n 7 0 DSB ISH \"a.c:1\")(tlbi 8 0 vae2is 12)\n! a verdict";
    let read = ok(named);
    assert_eq!(read, ok(bare));
    assert_eq!(read.verdict.as_deref(), Some("a verdict"));
    assert_eq!(read.trace.config.ram, [(0x4000_0000, 0x1000)]);
    let register = root(Register::Ttbr0El2, 0x4000_0000);
    let invalidation = tlbi(TlbiScope::VaEl2, 0x12);
    assert_eq!(read.trace.events, [zeros(0x4000_0000, 512), ISHST, register, ISH, invalidation]);
}

#[test]
fn a_root_counts_from_when_translation_is_on() {
    let off = "(sysreg-write 0 0 hcr_el2 0)(sysreg-write 1 0 vttbr_el2 40000000)";
    assert_eq!(events(off), []);
    let on = format!("{off}(sysreg-write 2 0 hcr_el2 1)(sysreg-write 3 0 hcr_el2 1)");
    assert_eq!(events(&on), [root(Register::Vttbr, 0x4000_0000)]);
    let (_, column, problem) = error(&format!("{on}(sysreg-write 4 0 hcr_el2 0)"));
    assert_eq!((column, problem), (148, Problem::Unsupported("translation that is turned off")));
}

#[test]
fn what_the_model_has_no_event_for_is_listed() {
    let text = "(lock 0 0 8)\n(hint 1 0 set_root_lock 0 8)\n(mem-read 2 0 8 0)\n\
        (hint 3 0 set_owner_root 0 0)\n\
                (sysreg-write 4 0 mair_el2 ff)\n(unlock 5 3 8)";
    let read = ok(text);
    assert_eq!(read.out_of_scope.iter().map(|skipped| skipped.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!((read.trace.events, read.trace.config.cpus), (vec![], 4));
}

#[test]
fn a_released_table_is_free_and_a_set_byte_is_in_every_byte() {
    let text = "(mem-set 0 0 40000000 10 a5)(hint 1 0 release_table 40000000 0)(mem-free 2 0 40000000 2000)";
    let first = 0xa5a5_a5a5_a5a5_a5a5;
    let fill = Event::Fill { cpu: 0, pa: 0x4000_0000, count: 2, first, step: 0 };
    let free = |len| Event::Free { pa: 0x4000_0000, len };
    assert_eq!(events(text), [fill, free(0x1000), free(0x2000)]);
}

#[test]
fn what_is_wrong_is_said_where_it_stands() {
    let expected = |expected: &'static str, found| Problem::from(Malformed::Expected { expected, found });
    let word = |found: &str| Found::Word(Quote::of(found.as_bytes()));
    assert_eq!(error("(lock 1 0 8)\n (lock (id 1) (tid 0) 8)"), (2, 12, Problem::Order { id: 1, last: 1 }));
    assert_eq!(error("(lock 0 64 8)"), (1, 9, Problem::NoSuchCpu { cpu: 64, cpus: 64 }));
    assert_eq!(error("(look 0 0 8)"), (1, 1, Malformed::UnknownEvent(Quote::of(b"look")).into()));
    assert_eq!(error("(lock 0 0 8 8)"), (1, 13, Malformed::Trailing(Quote::of(b"8")).into()));
    assert_eq!(error("(lock 0 0)"), (1, 10, expected("address", Found::End("record"))));
    assert_eq!(error("(lock 0 0 (size 8))"), (1, 12, expected("address", word("size"))));
    assert_eq!(error("(lock 0 0 8"), (1, 12, expected("a field or `)`", Found::End("trace"))));
    assert_eq!(error("(lock 0 0 ((8)))"), (1, 12, expected("the name of a field", word("("))));
    assert_eq!(error("lock"), (1, 1, expected("a record", word("lock"))));
    assert_eq!(error("! bad\n(lock 0 0 8)"), (2, 1, expected("nothing after a message", word("lock"))));
    assert_eq!(error("(lock a 0 8)"), (1, 7, expected("a number", word("a"))));
    let mem_write = |rest: &str| error(&format!("(mem-write 0 0 plain {rest})"));
    assert_eq!(mem_write("4 0"), (1, 22, Malformed::Unaligned { value: 4, multiple: 8 }.into()));
    let outside = Problem::OutsideRam { start: 0x1_0000_0000_0000, len: 8 };
    assert_eq!(mem_write("1000000000000 0"), (1, 22, outside));
    assert_eq!(
        mem_write("8 10000000000000000"),
        (1, 24, Malformed::TooLarge(Quote::of(b"10000000000000000")).into())
    );
    assert_eq!(error("(mem-set 0 0 0 8 100)"), (1, 18, Malformed::TooLarge(Quote::of(b"100")).into()));
    assert_eq!(error("(mem-init 0 0 0 0)"), (1, 17, Malformed::Empty.into()));
    let refused = "a translation not of 48 bits at a granule of 4 KiB";
    assert_eq!(error("(sysreg-write 0 0 tcr_el2 19)"), (1, 27, Problem::Unsupported(refused)));
    assert_eq!(
        error("(sysreg-write 0 0 sp_el2 19)"),
        (1, 19, Malformed::UnknownRegister(Quote::of(b"sp_el2")).into())
    );
    assert_eq!(error("(tlbi 0 0 paallos)"), (1, 11, Malformed::UnknownTlbi(Quote::of(b"paallos")).into()));
    assert_eq!(error("(barrier 0 0 dmb ish)"), (1, 14, Malformed::UnknownBarrier(Quote::of(b"dmb")).into()));
}

fn trace(events: &[Event]) -> Trace {
    let ram = vec![(0x4000_0000, 0x10_0000)];
    let config = Config {
        cpus: 2,
        bbm: 0,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    Trace { config, events: events.to_vec() }
}

/// What is written, without the numbers and sources of the records.
fn told(events: &[Event], as_what: Told) -> Result<Vec<String>, WriteError> {
    let text = write(&trace(events), as_what)?;
    let bare = |line: &str| {
        let (name, rest) = line[1..].split_once(" (id ").unwrap();
        let (_, rest) = rest.split_once(") (tid 0) ").unwrap();
        let (fields, _) = rest.split_once(" (src").unwrap();
        format!("{name} {fields}")
    };
    Ok(text.lines().map(bare).collect())
}

#[test]
fn words_are_initialised_when_first_stored_and_forgotten_when_freed() {
    let free = Event::Free { pa: 0x4000_0000, len: 0x1000 };
    let events = [
        root(Register::Ttbr0El2, 0x4000_0000),
        zeros(0x4000_0000, 512),
        store(0x4000_0008, 3),
        free,
        store(0x4000_0010, 7),
    ];
    assert_eq!(
        told(&events, Told::Hypervisor).unwrap(),
        [
            "sysreg-write (sysreg ttbr0_el2) (value 0x40000000)",
            "mem-init (address 0x40000000) (size 0x1000)",
            "mem-write (mem-order plain) (address 0x40000008) (value 0x3)",
            "hint (kind release_table) (location 0x40000000) (value 0x0)",
            "mem-free (address 0x40000000) (size 0x1000)",
            "mem-init (address 0x40000010) (size 0x8)",
            "mem-write (mem-order plain) (address 0x40000010) (value 0x7)",
        ]
    );
}

#[test]
fn a_half_of_el1_is_told_as_el2() {
    let upper = 0xffff_8000_0000_1000_u64;
    // RVAAE1IS: 4 KiB, NUM 0, SCALE 0: two pages.
    let range = |va: u64| 1 << 46 | va >> 12 & 0x1f_ffff_ffff;
    let events = [
        root(Register::Ttbr0, 0x4000_8000),
        root(Register::Ttbr1, 0x4000_0001),
        root(Register::Tcr, 0),
        tlbi(TlbiScope::VaAnyAsid, upper >> 12 & 0xfff_ffff_ffff),
        tlbi(TlbiScope::VaAnyAsidLast, 0x1234),
        tlbi(TlbiScope::RangeAnyAsid, range(upper)),
        tlbi(TlbiScope::RangeAnyAsidLast, range(0x7000)),
        tlbi(TlbiScope::AllEl1, 0),
        Event::Settled,
    ];
    assert_eq!(
        told(&events, Told::El1Upper).unwrap(),
        [
            "sysreg-write (sysreg ttbr0_el2) (value 0x40000000)",
            "tlbi vae2is (value 0x800000001)",
            "tlbi vae2is (value 0x800000001)",
            "tlbi vae2is (value 0x800000002)",
            "tlbi alle2is",
        ]
    );
    assert_eq!(
        told(&events, Told::El1Lower).unwrap(),
        [
            "sysreg-write (sysreg ttbr0_el2) (value 0x40008000)",
            "tlbi vale2is (value 0x1234)",
            "tlbi vale2is (value 0x7)",
            "tlbi vale2is (value 0x8)",
            "tlbi alle2is",
        ]
    );
}

#[test]
fn what_casemate_has_no_words_for_is_refused_with_the_event() {
    let refused = |event, as_what| match told(&[Event::Settled, event], as_what) {
        Err(WriteError::Event { index, .. }) => assert_eq!(index, 1),
        other => panic!("{other:?}"),
    };
    refused(tlbi(TlbiScope::Va, 0), Told::El1Upper);
    refused(tlbi(TlbiScope::Asid, 0), Told::El1Upper);
    refused(tlbi(TlbiScope::AllEl2, 0), Told::El1Upper);
    refused(tlbi(TlbiScope::VaAnyAsid, 0), Told::Hypervisor);
    refused(root(Register::Ttbr1, 0), Told::Hypervisor);
    refused(root(Register::Vttbr, 0), Told::El1Upper);
    refused(root(Register::Ttbr1, 1 << 48), Told::El1Upper);
    refused(Event::Dsb { cpu: 0, domain: Domain::Nsh, access: Access::Stores }, Told::Hypervisor);
    let local = Tlbi { scope: TlbiScope::VaEl2, broadcast: false };
    refused(Event::Tlbi { cpu: 0, tlbi: local, operand: 0 }, Told::Hypervisor);
    let roots = [root(Register::Ttbr1, 0x4000_0000), root(Register::Ttbr1, 0x4000_1000)];
    assert!(matches!(told(&roots, Told::El1Upper), Err(WriteError::Event { index: 1, .. })));
    let long = Event::Fill { cpu: 0, pa: 0, count: 1 << 40, first: 1, step: 0 };
    assert_eq!(told(&[long], Told::Hypervisor), Err(WriteError::TooLong { index: 0 }));
    let mut large = trace(&[]);
    large.config.granule = 0x1_0000;
    assert_eq!(write(&large, Told::Hypervisor), Err(WriteError::Machine));
}
