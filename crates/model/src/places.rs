//! Where a word of memory is an entry of a table that can be walked.

use crate::machine::{EntryPlace, Machine};

impl Machine {
    /// Calls `each` with every place in a tree at which the word at `pa` is an entry.
    pub(crate) fn each_place(&self, pa: u64, mut each: impl FnMut(EntryPlace)) {
        let granule = self.config.granule;
        let mut of = |base: u64| {
            for at in self.tables.get(&base).into_iter().flatten() {
                let shape = self.roots[at.root as usize].shape;
                let index = (pa - base) / 8;
                if index < shape.entries(at.level) as u64 {
                    let va = at.va + (index << shape.shift(at.level));
                    each(EntryPlace { root: at.root, level: at.level, va, pa });
                }
            }
        };
        of(pa & !(granule - 1));
        for &base in &self.odd_roots {
            // At most 16 tables; the index decides.
            if base <= pa && pa - base < 16 * granule && base != pa & !(granule - 1) {
                of(base);
            }
        }
    }

    /// The place of the word at `pa`, if it has one and no other, as almost every entry.
    pub(crate) fn only_place(&self, pa: u64) -> Option<EntryPlace> {
        let base = pa & !(self.config.granule - 1);
        let [at] = self.tables.get(&base).filter(|_| self.odd_roots.is_empty())?.as_slice() else {
            return None;
        };
        let shape = self.roots[at.root as usize].shape;
        let index = (pa - base) / 8;
        (index < shape.entries(at.level) as u64).then(|| EntryPlace {
            root: at.root,
            level: at.level,
            va: at.va + (index << shape.shift(at.level)),
            pa,
        })
    }

    /// Whether a walk for `va` may read the word at `pa` as an entry, at any level.
    pub fn is_entry_for(&self, pa: u64, va: u64) -> bool {
        let mut found = false;
        self.each_place(pa, |place| {
            let shift = self.roots[place.root as usize].shape.shift(place.level);
            found |= place.va >> shift == va >> shift;
        });
        found
    }

    /// Whether the word at `pa` is an entry at `level` of a table of `root`.
    pub(crate) fn is_table(&self, pa: u64, root: u32, level: i8) -> bool {
        let mut found = false;
        self.each_place(pa, |place| found |= place.root == root && place.level == level);
        found
    }
}

/// The places of one entry: almost always one.
#[derive(Default)]
pub(crate) struct EntryPlaces {
    first: Option<EntryPlace>,
    more: Vec<EntryPlace>,
}

impl EntryPlaces {
    pub fn push(&mut self, place: EntryPlace) {
        if self.first.is_none() {
            self.first = Some(place);
        } else {
            self.more.push(place);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = EntryPlace> {
        self.first.into_iter().chain(self.more.iter().copied())
    }
}
