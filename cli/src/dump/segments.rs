//! A tree as a list of ranges, in the form that a dump that was saved has too.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::dump::described::Described;
use crate::dump::guest::Root;
use crate::dump::meaning::Decoder;
use crate::dump::runs;
use crate::dump::tree::{Row, Tree};

/// What a range is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// Leaves.
    Leaf(Described),
    /// No leaves: a shared table, a reserved encoding, a table outside memory.
    Other(String),
}

/// A range of addresses that one thing is said of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The first address.
    pub first: u64,
    /// The last address.
    pub last: u64,
    /// The output address of the first.
    pub pa: u64,
    /// What it is, by its place in [`Segments::what`].
    pub what: u32,
}

/// Ranges, ascending and disjoint.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    /// The ranges.
    pub list: Vec<Segment>,
    /// What they are.
    pub what: Vec<What>,
    places: HashMap<What, u32>,
}

impl Segments {
    /// Those of the tree below `root`.
    pub fn of(root: &Root, tree: &Tree) -> Self {
        let mut segments = Self::default();
        let decoder = Decoder::new(root);
        let mut last = None;
        for run in runs::of(tree) {
            let (pa, what) = match run.row {
                Row::Leaves { pa, bits, level, tables, .. } => {
                    let key = (bits, level, tables);
                    let place = match last {
                        Some((known, place)) if known == key => place,
                        _ => segments.place(What::Leaf(Described::of(&decoder.meaning(bits, level, tables)))),
                    };
                    last = Some((key, place));
                    (pa, place)
                }
                _ => (0, segments.place(What::Other(other(&run.row, tree)))),
            };
            segments.list.push(Segment { first: run.row.va(), last: run.last(), pa, what });
        }
        segments
    }

    /// What of these lies in the range from `first` to `last`.
    #[must_use]
    pub fn within(mut self, (first, last): (u64, u64)) -> Self {
        self.list.retain_mut(|segment| {
            let cut = first.saturating_sub(segment.first);
            let is_inside = segment.first <= last && first <= segment.last;
            segment.first = segment.first.saturating_add(cut);
            segment.pa = segment.pa.wrapping_add(cut);
            segment.last = segment.last.min(last);
            is_inside
        });
        self
    }

    fn place(&mut self, what: What) -> u32 {
        let next = self.what.len() as u32;
        let what = match self.places.entry(what) {
            std::collections::hash_map::Entry::Occupied(known) => return *known.get(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let what = new.key().clone();
                new.insert(next);
                what
            }
        };
        self.what.push(what);
        next
    }
}

/// What a row that is no leaf says.
pub fn other(row: &Row, tree: &Tree) -> String {
    match *row {
        Row::Again { table, level, .. } => {
            let table = tree.tables.get(table as usize);
            let (frame, first) = table.map_or((0, 0), |table| (table.frame, table.va));
            format!("L{level} table {frame:#x} again, as at {first:#018x}")
        }
        Row::Reserved { entry, level, .. } => format!("L{level} reserved encoding {entry:#018x}"),
        Row::Outside { frame, level, .. } => format!("L{level} table {frame:#x} outside memory"),
        Row::Leaves { .. } => String::new(),
    }
}

/// A run as JSON has it.
#[derive(Deserialize)]
struct SavedRun {
    va: String,
    bytes: u64,
    #[serde(default)]
    pa: Option<String>,
    #[serde(default)]
    attributes: Option<Described>,
    #[serde(default)]
    other: Option<String>,
}

impl<'de> Deserialize<'de> for Segments {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(Runs)
    }
}

struct Runs;

impl<'de> Visitor<'de> for Runs {
    type Value = Segments;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of runs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut runs: A) -> Result<Segments, A::Error> {
        let mut segments = Segments::default();
        while let Some(SavedRun { va, bytes, pa, attributes, other }) = runs.next_element::<SavedRun>()? {
            let (first, pa) = (address(&va)?, pa.as_deref().map_or(Ok(0), address)?);
            let last = bytes.checked_sub(1).and_then(|less| first.checked_add(less));
            let last =
                last.ok_or_else(|| de::Error::custom(format_args!("a run of {bytes} bytes at {va}")))?;
            if segments.list.last().is_some_and(|before| before.last >= first) {
                return Err(de::Error::custom(format_args!("the run at {va} does not ascend")));
            }
            let what = match (attributes, other) {
                (Some(leaf), _) => What::Leaf(leaf),
                (None, other) => What::Other(other.unwrap_or_default()),
            };
            let what = segments.place(what);
            segments.list.push(Segment { first, last, pa, what });
        }
        Ok(segments)
    }
}

fn address<E: de::Error>(text: &str) -> Result<u64, E> {
    let digits = text.strip_prefix("0x");
    let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    value.ok_or_else(|| E::custom(format_args!("{text:?} is no address: it begins with 0x")))
}
