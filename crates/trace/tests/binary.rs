//! Traces in binary form: records come back as they were, from pieces too, and no bytes panic.

use linmap_trace::binary::{Barrier, DecodeError, Decoder, Encoder, Idle, LONGEST, LONGEST_NOTE, Record};
use linmap_trace::{Access, Domain, Event, Head, Line, Malformed, Ram, Recorded, Use};
use proptest::prelude::*;

mod events;
use events::event;

#[derive(Clone, Debug)]
enum Owned {
    Line(Line),
    Note(String),
    Vectors(u64),
    Idle(Idle),
    End,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        match self {
            Self::Line(line) => Record::Line(*line),
            Self::Note(text) => Record::Note(text),
            Self::Vectors(va) => Record::Vectors(*va),
            Self::Idle(idle) => Record::Idle(*idle),
            Self::End => Record::End,
        }
    }
}

fn owned() -> impl Strategy<Value = Owned> {
    let head = (any::<usize>(), any::<u8>(), any::<u64>(), any::<u8>(), any::<u8>())
        .prop_map(|(cpus, bbm, granule, va_bits, pa_bits)| Head { cpus, bbm, granule, va_bits, pa_bits });
    let recorded = (event(), any::<Option<u64>>()).prop_map(|(event, pc)| Recorded { event, pc });
    prop_oneof![
        20 => recorded.prop_map(|recorded| Owned::Line(Line::Event(recorded))),
        1 => head.prop_map(|head| Owned::Line(Line::Machine(head))),
        1 => any::<(u64, u64)>().prop_map(|(start, len)| Owned::Line(Line::Ram(Ram { start, len }))),
        1 => "\\PC{0,100}".prop_map(Owned::Note),
        1 => any::<u64>().prop_map(Owned::Vectors),
        1 => (any::<u64>(), barrier(), any::<u64>())
            .prop_map(|(pc, barrier, count)| Owned::Idle(Idle { pc, barrier, count })),
        1 => Just(Owned::End),
    ]
}

fn barrier() -> impl Strategy<Value = Barrier> {
    let domains = prop::sample::select(&[Domain::Nsh, Domain::Ish, Domain::Osh, Domain::Sy]);
    let dsb = (domains, prop::sample::select(&[Access::All, Access::Stores]))
        .prop_map(|(domain, access)| Barrier::Dsb(domain, access));
    prop_oneof![dsb, Just(Barrier::Isb)]
}

fn encoded(records: &[Owned]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut buffer = [0; LONGEST];
    records.iter().flat_map(|owned| encoder.encode(&owned.record(), &mut buffer).to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn records_come_back_as_they_were(records in prop::collection::vec(owned(), 0..40)) {
        let bytes = encoded(&records);
        let mut decoder = Decoder::default();
        let mut rest = &bytes[..];
        for owned in &records {
            // Each record ends where it did, and is not there before its last byte is.
            let (record, len) = decoder.clone().decode(rest).unwrap().unwrap();
            prop_assert_eq!(record, owned.record());
            for cut in 0..len {
                prop_assert_eq!(decoder.decode(&rest[..cut]), Ok(None));
            }
            decoder.decode(rest).unwrap();
            rest = &rest[len..];
        }
        prop_assert_eq!(rest, []);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        records in prop::collection::vec(owned(), 0..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = encoded(&records);
        for (at, to) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
        }
        bytes.extend(noise);
        let mut decoder = Decoder::default();
        let mut rest = &bytes[..];
        while let Ok(Some((record, len))) = decoder.decode(rest) {
            prop_assert!(len > 0);
            // What is read can be written as text, and read from it.
            if let Record::Line(line @ Line::Event(_)) = record {
                prop_assert_eq!(Line::read(line.to_string().as_bytes()), Ok(Some(line)));
            }
            rest = &rest[len..];
        }
    }
}

#[test]
fn what_is_wrong_with_a_record_is_said() {
    let decode = |bytes: &[u8]| Decoder::default().decode(bytes).map(|record| record.is_some());
    assert_eq!(decode(&[0x93]), Err(DecodeError::UnknownRecord(0x93)));
    assert_eq!(decode(&[0x50, 1]), Err(DecodeError::UnknownRecord(0x50)), "settled has no CPU");
    assert_eq!(decode(&[7, 12]), Err(DecodeError::Unknown { number: 12, expected: "a barrier's option" }));
    assert_eq!(
        decode(&[18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
        Err(DecodeError::TooLarge)
    );
    assert_eq!(decode(&[17, 1, 0xff]), Err(DecodeError::Note));
    assert_eq!(decode(&[15, 8, 0]), Err(Malformed::Empty.into()));
    let unaligned = Malformed::Unaligned { value: 8, multiple: 0x1000 };
    assert_eq!(decode(&[15, 8, 0x80, 0x20]), Err(unaligned.into()));
    assert_eq!(decode(&[]), Ok(false));
}

#[test]
fn a_long_note_is_cut_between_characters() {
    let text = "ü".repeat(LONGEST_NOTE);
    let mut buffer = [0; LONGEST];
    let bytes = Encoder::default().encode(&Record::Note(&text), &mut buffer).to_vec();
    let mut decoder = Decoder::default();
    let Ok(Some((Record::Note(cut), _))) = decoder.decode(&bytes) else { panic!("it is read") };
    assert_eq!(cut.len(), LONGEST_NOTE);
}

#[test]
fn the_stores_of_a_table_take_few_bytes() {
    let stores: Vec<Owned> = (0..512)
        .map(|nth| Event::Store {
            cpu: 0,
            pa: 0x4000_0000 + 8 * nth,
            value: 0x8000_0703 + (nth << 12),
            via: None,
        })
        .map(|event| Owned::Line(Line::Event(Recorded { event, pc: Some(0xffff_8000_8001_0000) })))
        .collect();
    let bytes = encoded(&stores).len();
    assert!(bytes < 6 * stores.len(), "{bytes}");
    let access = Event::Access { cpu: 0, va: 0, kind: Use::Execute, pa: 0 };
    assert_eq!(encoded(&[Owned::Line(access.into())]).len(), 4);
}
