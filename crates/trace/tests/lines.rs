//! Lines of a trace: each is read as it was written, and an error says what is wrong and where.

use linmap_trace::{
    Event, Found, Head, Line, LineError, Malformed, Quote, Ram, Recorded, Register, Tlbi, TlbiScope, Use,
};
use proptest::prelude::*;
use proptest::sample::select;

mod events;
use events::event;

fn line() -> impl Strategy<Value = Line> {
    let granule = select(vec![0x1000, 0x4000, 0x1_0000]);
    let head = (any::<usize>(), any::<u8>(), granule, any::<u8>(), any::<u8>());
    prop_oneof![
        1 => head.prop_map(|(cpus, bbm, granule, va_bits, pa_bits)| {
            Line::Machine(Head { cpus, bbm, granule, va_bits, pa_bits })
        }),
        1 => any::<(u64, u64)>().prop_map(|(start, len)| Line::Ram(Ram { start, len })),
        12 => (event(), any::<Option<u64>>())
            .prop_map(|(event, pc)| Line::Event(Recorded { event, pc })),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(line in line()) {
        let text = line.to_string();
        prop_assert_eq!(Line::read(text.as_bytes()), Ok(Some(line)), "{}", text);
    }

    #[test]
    fn any_bytes_are_read_or_refused_within_the_line(line in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Err(LineError { column, .. }) = Line::read(&line) {
            prop_assert!((1..=line.len() + 1).contains(&column));
        }
    }
}

#[test]
fn lines_read_as_a_person_would_write_them() {
    let event = |text: &str| match Line::read(text.as_bytes()) {
        Ok(Some(Line::Event(Recorded { event, pc: None }))) => event,
        other => panic!("{text}: {other:?}"),
    };
    let via = Some(0xffff_8000_0000_1000);
    assert_eq!(
        event("0 store 0x4000_1000 0x4000_2003 via=0xffff_8000_0000_1000 # link\r"),
        Event::Store { cpu: 0, pa: 0x4000_1000, value: 0x4000_2003, via }
    );
    assert_eq!(
        event("\t1  fill\t0x40002000 count=512 first=0x703 step=0x1000"),
        Event::Fill { cpu: 1, pa: 0x4000_2000, count: 512, first: 0x703, step: 0x1000 }
    );
    let by_va = Tlbi { scope: TlbiScope::VaAnyAsid, broadcast: true };
    assert_eq!(
        event("0 tlbi VAAE1IS 0x8000_0001"),
        Event::Tlbi { cpu: 0, tlbi: by_va, operand: 0x8000_0001 }
    );
    for os in ["vaae1os", "VAAE1ISNXS", "vaae1osnxs"] {
        let line = format!("0 tlbi {os} 0x8000_0001");
        assert_eq!(event(&line), Event::Tlbi { cpu: 0, tlbi: by_va, operand: 0x8000_0001 });
    }
    assert_eq!(
        event("0 msr ttbr1_el1 1073745920"),
        Event::Write { cpu: 0, register: Register::Ttbr1, value: 0x4000_1000 }
    );
    assert_eq!(event("1 read 0 faults"), Event::Faults { cpu: 1, va: 0, kind: Use::Read });
    assert_eq!(event("free 0x40002000 4096"), Event::Free { pa: 0x4000_2000, len: 0x1000 });
    let at = Recorded { event: Event::Isb { cpu: 2 }, pc: Some(0xffff_8000_8001_0040) };
    assert_eq!(Line::read(b"2 isb pc=0xffff_8000_8001_0040"), Ok(Some(Line::Event(at))));
    for blank in ["", " \t\r", "# a comment", "  # another"] {
        assert_eq!(Line::read(blank.as_bytes()), Ok(None));
    }
}

/// The column and what is wrong with a line.
fn bad_line(line: &str) -> (usize, Malformed) {
    let LineError { column, problem } = Line::read(line.as_bytes()).unwrap_err();
    (column, problem)
}

fn quote(word: &str) -> Quote {
    Quote::of(word.as_bytes())
}

fn expected(expected: &'static str, found: &str) -> Malformed {
    Malformed::Expected { expected, found: Found::Word(quote(found)) }
}

fn too_short(expected: &'static str) -> Malformed {
    Malformed::Expected { expected, found: Found::End("line") }
}

#[test]
fn words_that_name_nothing_are_said() {
    assert_eq!(bad_line("0 stroe 0x40000000 1"), (3, Malformed::UnknownEvent(quote("stroe"))));
    assert_eq!(bad_line("release"), (1, Malformed::UnknownEvent(quote("release"))));
    assert_eq!(bad_line("0 dsb isht"), (7, Malformed::UnknownBarrier(quote("isht"))));
    assert_eq!(bad_line("0 tlbi vae1ish 0"), (8, Malformed::UnknownTlbi(quote("vae1ish"))));
    assert_eq!(bad_line("0 msr ttbr1 0"), (7, Malformed::UnknownRegister(quote("ttbr1"))));
    assert_eq!(bad_line("0 uses 0 len=1 look"), (16, expected("read, write or exec", "look")));
}

#[test]
fn numbers_are_checked_against_their_fields() {
    let too_large = |word: &str| Malformed::TooLarge(quote(word));
    assert_eq!(bad_line("0 msr tcr_el1 0x1_0000_0000_0000_0000"), (15, too_large("0x1_0000_0000_0000_0000")));
    assert_eq!(bad_line("0 msr tcr_el1 18446744073709551616"), (15, too_large("18446744073709551616")));
    assert_eq!(bad_line("0 msr tcr_el1 0x"), (15, expected("a number", "0x")));
    assert_eq!(bad_line("0 msr tcr_el1 -1"), (15, expected("a number", "-1")));
    assert_eq!(bad_line("0 fill 0x40000000 count=0 first=0 step=0"), (25, Malformed::Empty));
    let unaligned = |value, multiple| Malformed::Unaligned { value, multiple };
    assert_eq!(bad_line("0 store 0x40000004 0"), (9, unaligned(0x4000_0004, 8)));
    assert_eq!(bad_line("free 0x40000800 0x1000"), (6, unaligned(0x4000_0800, 0x1000)));
    assert_eq!(bad_line("free 0x40000000 0x800"), (17, unaligned(0x800, 0x1000)));
    let beyond = Malformed::BeyondEnd { start: u64::MAX, len: 2 };
    assert_eq!(bad_line("0 uses 0xffffffffffffffff len=2 read"), (8, beyond));
}

#[test]
fn lines_end_where_they_should() {
    assert_eq!(bad_line("0"), (2, too_short("an event")));
    assert_eq!(bad_line("0 store 0x40000000  # 1"), (19, too_short("a number")));
    assert_eq!(bad_line("0 fill 0x40000000 count=1 first=1"), (34, too_short("step=")));
    assert_eq!(bad_line("0 dsb"), (6, too_short("the option of a DSB")));
    assert_eq!(bad_line("0 tlbi vae1is"), (14, too_short("a number")));
    assert_eq!(bad_line("0 read 0"), (9, too_short("pa= or faults")));
    assert_eq!(bad_line("0 isb sy"), (7, Malformed::Trailing(quote("sy"))));
    assert_eq!(bad_line("0 tlbi vmalle1is 0"), (18, Malformed::Trailing(quote("0"))));
    assert_eq!(bad_line("machine bbm=0"), (9, expected("cpus=", "bbm=0")));
    assert_eq!(
        bad_line("machine cpus=1 bbm=0 granule=8K va=48 pa=48"),
        (30, expected("4K, 16K or 64K", "8K"))
    );
    assert_eq!(
        bad_line("machine cpus=1 bbm=256 granule=4K va=48 pa=48"),
        (20, Malformed::TooLarge(quote("256")))
    );
}

#[test]
fn a_long_word_is_cut_in_the_message_and_one_that_is_not_text_is_escaped() {
    let (_, problem) = bad_line(&"x".repeat(1000));
    assert!(problem.to_string().len() < 80, "{problem}");
    let error = Line::read(b"0 \xff\x1b[31m").unwrap_err();
    assert!(error.to_string().ends_with("`\u{fffd}\\u{1b}[31m`"), "{error}");
}

/// Words as lines have them, right and almost right.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => any::<u64>().prop_map(|value| format!("{value:#x}")),
        2 => (0_u64..0x1000).prop_map(|value| format!("{:#x}", 8 * value)),
        1 => "0x[0-9a-fA-F_g]{0,20}",
        1 => "[0-9]{0,22}",
        1 => "(via|old|pc|pa|len|count|first|step)=0x[0-9a-f]{1,17}",
        1 => "(#|store|isb|ishst|faults|read|vale1is|ttbr1_el1)",
    ];
    let event = "[01] (store|update|fill|tlbi vae1is|msr ttbr1_el1|read|uses|dsb)|free";
    (event, proptest::collection::vec(word, 0..5))
        .prop_map(|(event, words)| [vec![event], words].concat().join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    /// Single spaces are how lines are written, and read fastest.
    #[test]
    fn a_line_says_the_same_with_any_space(line in words()) {
        prop_assert_eq!(Line::read(line.as_bytes()), Line::read(line.replace(' ', "\t").as_bytes()));
    }
}
