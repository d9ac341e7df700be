//! A dump that was saved as JSON.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;

use crate::dump::asked::Asked;
use crate::dump::segments::Segments;
use crate::failure::Failure;

/// What JSON of this tool says in `format`.
pub const FORMAT: &str = "linmap-dump";
/// And in `version`.
pub const VERSION: u32 = 1;

#[derive(Deserialize)]
struct Saved {
    format: String,
    version: u32,
    asked: Asked,
    roots: Vec<SavedRoot>,
}

/// A dump that was saved.
#[derive(Debug)]
pub struct SavedDump {
    /// What was asked for: it tells nothing about the rest.
    pub asked: Asked,
    /// Its trees.
    pub roots: Vec<SavedRoot>,
}

/// A tree of a saved dump.
#[derive(Debug, Deserialize)]
pub struct SavedRoot {
    /// The name of its register.
    pub register: String,
    /// Whether all that was asked for is there: `--rows` may have ended the reading.
    pub complete: bool,
    /// What it maps.
    pub runs: Segments,
}

/// Reads the dump in the file at `path`.
///
/// # Errors
/// The file can't be read, or is no dump with runs.
pub fn read(path: &Path) -> Result<SavedDump, Failure> {
    let file = File::open(path).map_err(|error| Failure::from(error).of(path.display()))?;
    parse(BufReader::with_capacity(1 << 16, file)).map_err(|failure| failure.of(path.display()))
}

fn parse(from: impl Read) -> Result<SavedDump, Failure> {
    let hint = "save one with linmap dump --json, without --summary";
    let dump: Saved = serde_json::from_reader(from)
        .map_err(|error| Failure::new(format_args!("no dump as JSON: {error}")).hint(hint))?;
    if dump.format != FORMAT || dump.version != VERSION {
        let (format, version) = (dump.format, dump.version);
        return Err(Failure::new(format_args!(
            "{format:?} version {version}, not {FORMAT} version {VERSION}"
        )));
    }
    Ok(SavedDump { asked: dump.asked, roots: dump.roots })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"format":"linmap-dump","version":1,"notes":[],
        "asked":{"roots":[],"range":{"first":"0x1000","last":"0x2fff"}},
        "roots":[{"register":"TTBR1_EL1","complete":true,
        "runs":[{"va":"0x1000","bytes":4096,"pa":"0x40000000","attributes":{"level":3,"leaf":4096,
        "contiguous":false,"access":"RW","execute":"NX","shareability":"ISH","global":true,
        "accessed":true,"memory":"MEM/NORMAL"}},{"va":"0x2000","bytes":4096,"other":"x"}]}]}"#;

    #[test]
    fn a_dump_is_read_back_and_what_is_none_is_refused() {
        let SavedDump { asked, roots } = parse(GOOD.as_bytes()).unwrap();
        assert_eq!((roots.len(), roots[0].runs.list.len()), (1, 2));
        assert_eq!(asked.range, (0x1000, 0x2fff));
        for (what, with) in [
            ("\"0x2000\"", "\"0x1800\""),
            ("\"0x2000\"", "\"2000\""),
            ("4096,\"other\"", "0,\"other\""),
            ("\"version\":1", "\"version\":2"),
            ("linmap-dump", "else"),
            ("\"runs\"", "\"summary\""),
            ("\"asked\"", "\"other\""),
            ("\"complete\"", "\"other\""),
            ("\"0x2fff\"", "\"0xfff\""),
            ("\"0x2fff\"", "\"2fff\""),
        ] {
            assert!(parse(GOOD.replace(what, with).as_bytes()).is_err(), "{what} -> {with}");
        }
    }

    proptest! {
        #[test]
        fn damaged_dumps_never_panic(at in 0..GOOD.len(), byte in any::<u8>(), cut in 0..GOOD.len()) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = parse(&bytes[..]);
            let _ = parse(&bytes[..cut]);
        }
    }
}
