//! Random files: the readers refuse or read each of them, and return.
//!
//! `LINMAP_FUZZ_CASES` sets how many files of each kind; without it 20 000, or 1 000 000 with
//! `LINMAP_SOAK=1`.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use linmap_model::trace::casemate::Told;
use linmap_model::trace::{casemate, text};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A trace with each kind of line.
const LINES: &[u8] = b"# head\nmachine cpus=2 bbm=3 granule=4K va=48 pa=48\nram 0x4000_0000 0x1000_0000\n\
    ram 0x8000_0000 0x1000\n0 store 0x40001000 0x40002003 via=0xffff800000001000\n\
    0 update 0x40001000 0x40002003 via=0xffff800000001000\n\
    0 fill 0x40002000 count=512 first=0x703 step=0x1000\n0 dsb ishst\n1 isb\n0 tlbi vaae1is 0x80000001\n\
    0 tlbi rvaale1 0x4000000000000\n1 tlbi vmalle1is\n0 msr ttbr1_el1 0x40001000\n\
    1 read 0xffff0000 pa=0x40002000\n\
    1 exec 0xffff0000 faults\n0 uses 0xffff0000 len=0x1000 exec\n0 unuses 0xffff0000 len=0x1000 exec\n\
    free 0x40002000 0x1000\nsettled\n";

/// Words that change a meaning where they land.
const WORDS: [&[u8]; 16] = [
    b"0",
    b"-1",
    b"0xffffffffffffffff",
    b"18446744073709551616",
    b"0x7ffffffffffff8",
    b"(",
    b")",
    b"()",
    b"\"",
    b"!",
    b";",
    b"#",
    b"\n",
    b"\xff\xfe",
    b"63",
    b"count=0x1fffffffffffffff",
];

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/casemate");
    let mut seeds: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sexp"))
        .map(|path| fs::read(path).unwrap())
        .collect();
    seeds.sort();
    // As many of the one format as of the other.
    seeds.extend(vec![LINES.to_vec(); seeds.len()]);
    seeds
});

fn cases() -> ProptestConfig {
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { 1_000_000 } else { 20_000 };
    let cases = std::env::var("LINMAP_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(unset))
}

/// One thing done to a file.
#[derive(Clone, Debug)]
enum Harm {
    Flip(Index, u8),
    Cut(Index),
    Drop(Index, Index),
    Repeat(Index, Index),
    SwapWords(Index, Index),
    Word(Index, &'static [u8]),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 0_u8..8).prop_map(|(at, bit)| Harm::Flip(at, 1 << bit)),
        1 => at().prop_map(Harm::Cut),
        2 => (at(), at()).prop_map(|(from, to)| Harm::Drop(from, to)),
        1 => (at(), at()).prop_map(|(from, to)| Harm::Repeat(from, to)),
        4 => (at(), at()).prop_map(|(one, other)| Harm::SwapWords(one, other)),
        4 => (at(), select(WORDS.to_vec())).prop_map(|(at, word)| Harm::Word(at, word)),
    ]
}

fn span(file: &[u8], from: &Index, to: &Index) -> std::ops::Range<usize> {
    let (from, to) = (from.index(file.len()), to.index(file.len()));
    from.min(to)..from.max(to)
}

/// The words of a file, as ranges of its bytes.
fn words(file: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, byte) in file.iter().enumerate() {
        match (start, byte.is_ascii_whitespace() || b"()".contains(byte)) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                words.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    words
}

fn harmed(mut file: Vec<u8>, harms: &[Harm]) -> Vec<u8> {
    for harm in harms {
        let words = words(&file);
        if file.is_empty() || words.is_empty() {
            break;
        }
        match harm {
            Harm::Flip(at, bits) => {
                let at = at.index(file.len());
                file[at] ^= bits;
            }
            Harm::Cut(at) => file.truncate(at.index(file.len())),
            Harm::Drop(from, to) => drop(file.drain(span(&file, from, to))),
            Harm::Repeat(from, to) => {
                let part = file[span(&file, from, to)].to_vec();
                file.extend(part);
            }
            Harm::SwapWords(one, other) => {
                let one = words[one.index(words.len())].clone();
                let other = words[other.index(words.len())].clone();
                let (first, second) = if one.start < other.start { (one, other) } else { (other, one) };
                let (a, b) = (file[first.clone()].to_vec(), file[second.clone()].to_vec());
                file.splice(second, a);
                file.splice(first, b);
            }
            Harm::Word(at, word) => {
                file.splice(words[at.index(words.len())].clone(), word.iter().copied());
            }
        }
    }
    file
}

/// Reads a file as both formats. What can be read is a possible machine, and survives being
/// written.
fn read(file: &[u8]) -> Result<(), TestCaseError> {
    let whole = |line: usize, column: usize| {
        let line = line.checked_sub(1).and_then(|line| file.split(|byte| *byte == b'\n').nth(line));
        line.is_some_and(|line| (1..=line.len() + 1).contains(&column))
    };
    match text::read(file) {
        Ok(trace) => {
            prop_assert_eq!(trace.config.check(), Ok(()));
            prop_assert_eq!(text::read(text::write(&trace).as_bytes()), Ok(trace));
        }
        Err(error) => prop_assert!(whole(error.line, error.column), "{}", error),
    }
    match casemate::read(file) {
        Ok(read) => {
            prop_assert_eq!(read.trace.config.check(), Ok(()));
            if let Ok(written) = casemate::write(&read.trace, Told::Hypervisor) {
                prop_assert!(casemate::read(written.as_bytes()).is_ok());
            }
            prop_assert_eq!(text::read(text::write(&read.trace).as_bytes()), Ok(read.trace));
        }
        Err(error) => prop_assert!(whole(error.line, error.column), "{}", error),
    }
    Ok(())
}

#[test]
fn the_files_to_harm_are_good_ones() {
    for seed in SEEDS.iter() {
        assert!(text::read(seed).is_ok() || casemate::read(seed).is_ok());
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes_are_read_or_refused(file in proptest::collection::vec(any::<u8>(), 0..300)) {
        read(&file)?;
    }

    #[test]
    fn harmed_traces_are_read_or_refused(
        seed in any::<Index>(),
        harms in proptest::collection::vec(harm(), 1..5),
    ) {
        read(&harmed(seed.get(&SEEDS).clone(), &harms))?;
    }
}
