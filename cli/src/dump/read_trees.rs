//! The trees of a guest that were asked for, read.

use std::ops::Range;

use crate::dump::asked::Part;
use crate::dump::frames::{Frames, Through};
use crate::dump::guest::{AddressSpace, Guest, Root, RootRegister};
use crate::dump::judgement::ReadTree;
use crate::dump::reading::{self, Bounds};
use crate::dump::tree::Tree;
use crate::failure::Failure;
use crate::output::{Output, Verbosity};
use crate::progress;

/// The trees of a guest that were asked for.
pub struct ReadTrees {
    /// The trees.
    pub trees: Vec<ReadTree>,
    /// Where the guest has memory.
    pub ranges: Vec<Range<u64>>,
    /// What the reader has to know.
    pub notes: Vec<String>,
}

impl ReadTrees {
    /// Reads `parts` of the trees of `guest`, at most `rows` rows of each.
    ///
    /// # Errors
    /// Those of the guest's memory, or no root table is in memory.
    pub fn read(
        guest: &mut Guest,
        parts: &[Part],
        rows: usize,
        verbosity: Verbosity,
    ) -> Result<Self, Failure> {
        let mut notes = guest.notes.clone();
        let mut frames = Frames::new(&mut *guest.memory);
        let stage_2 = stage_2_of(parts.iter().map(|part| &part.root), &guest.roots, &mut frames, rows)?;
        let bar = progress::of("reading tables", "tables", None, verbosity);
        let mut trees = Vec::new();
        let mut outside = None;
        for Part { root, range } in parts {
            let through = Through::of(root.addresses, stage_2.as_ref());
            match reading::read(root, &mut frames, through, Bounds { range: *range, rows }, &bar)? {
                Some(tree) => trees.push(ReadTree { root: root.clone(), tree }),
                None => {
                    let what = format!("{} {}: no memory at the root table", root.register, root.table);
                    outside = Some(what.clone());
                    notes.push(what);
                }
            }
        }
        bar.finish_and_clear();
        if let (true, Some(outside)) = (trees.is_empty(), outside) {
            return Err(Failure::new(outside).hint("was the guest stopped before it set the register?"));
        }
        let ranges = frames.ranges().to_vec();
        Ok(Self { trees, ranges, notes })
    }
}

/// The tree of stage 2, if one of `roots` needs it to find its tables.
///
/// # Errors
/// Those of the guest's memory.
pub fn stage_2_of<'r>(
    roots: impl IntoIterator<Item = &'r Root>,
    all: &[Root],
    frames: &mut Frames<'_>,
    rows: usize,
) -> Result<Option<Tree>, Failure> {
    if roots.into_iter().all(|root| root.addresses == AddressSpace::Physical) {
        return Ok(None);
    }
    let Some(root) = all.iter().find(|root| root.register == RootRegister::VttbrEl2) else {
        return Ok(None);
    };
    let bounds = Bounds { range: (0, u64::MAX), rows };
    reading::read(root, frames, Through::Nothing, bounds, &indicatif::ProgressBar::hidden())
}

/// Prints notes to standard error.
pub fn say_notes(notes: &[String], output: &Output) {
    if output.verbosity() > Verbosity::Quiet {
        for note in notes {
            anstream::eprintln!("note: {}", note.replace(char::is_control, " "));
        }
    }
}
