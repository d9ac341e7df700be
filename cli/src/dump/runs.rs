//! Rows of a tree, folded across tables.

use crate::dump::tree::{Row, Tree};

/// Rows that say the same at consecutive addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first row.
    pub row: Row,
    /// What all of them translate.
    pub bytes: u64,
}

impl Run {
    /// The last address.
    pub fn last(&self) -> u64 {
        self.row.va().wrapping_add(self.bytes.wrapping_sub(1))
    }

    /// Whether `next` goes on where `self` ends.
    fn goes_on(&self, next: &Row) -> bool {
        if self.row.va().wrapping_add(self.bytes) != next.va() {
            return false;
        }
        match (self.row, *next) {
            (
                Row::Leaves { pa, bits, level, tables, .. },
                Row::Leaves { pa: at, bits: other, level: here, tables: above, .. },
            ) => pa.wrapping_add(self.bytes) == at && (bits, level, tables) == (other, here, above),
            (Row::Again { table, level, .. }, Row::Again { table: other, level: here, .. }) => {
                (table, level) == (other, here)
            }
            (Row::Reserved { level, .. }, Row::Reserved { level: here, .. })
            | (Row::Outside { level, .. }, Row::Outside { level: here, .. }) => level == here,
            _ => false,
        }
    }
}

/// The runs of `tree`, ascending.
pub fn of(tree: &Tree) -> impl Iterator<Item = Run> {
    let mut rows = tree.rows.iter().peekable();
    std::iter::from_fn(move || {
        let row = rows.next()?;
        let mut run = Run { row: *row, bytes: tree.bytes(row) };
        while let Some(next) = rows.next_if(|next| run.goes_on(next)) {
            run.bytes = run.bytes.wrapping_add(tree.bytes(next));
        }
        Some(run)
    })
}
