//! What changed since software relied on the tables last: the addresses whose entries, or records
//! of what may be cached, are not as the last `settled` found them.

use crate::space::{SPACES, Space};

/// The most ranges of a space that are told apart.
const MOST: usize = 256;

/// Addresses of one space.
#[derive(Clone, Debug)]
pub(crate) enum Dirty {
    /// These ranges, first to last address each.
    Ranges(Vec<(u64, u64)>),
    /// All.
    Everything,
}

impl Default for Dirty {
    fn default() -> Self {
        Self::Ranges(Vec::new())
    }
}

impl Dirty {
    /// Adds the addresses `start..=last`.
    pub fn add(&mut self, start: u64, last: u64) {
        let Self::Ranges(ranges) = self else { return };
        if let Some((from, to)) = ranges.last_mut()
            && *from <= last.saturating_add(1)
            && start <= to.saturating_add(1)
        {
            *from = start.min(*from);
            *to = last.max(*to);
        } else if ranges.len() < MOST {
            ranges.push((start, last));
        } else {
            *self = Self::Everything;
        }
    }
}

/// How far what is dirty in a space was found to agree with the tables: the number of the range,
/// and the level and address of the record that does not.
pub(crate) type Progress = (usize, i8, u64);

/// Addresses of every space.
#[derive(Debug, Default)]
pub(crate) struct DirtySpaces {
    spaces: [Dirty; SPACES],
    /// How far a check came that found a violation, as long as nothing changed since.
    progress: Option<(Space, Progress)>,
}

impl DirtySpaces {
    pub fn of_mut(&mut self, space: Space) -> &mut Dirty {
        self.progress = None;
        &mut self.spaces[space.index()]
    }

    /// Adds all addresses: a register decides what they mean.
    pub fn everything(&mut self) {
        *self = Self { spaces: [const { Dirty::Everything }; SPACES], progress: None };
    }

    /// What changed in `space`, which counts as settled from here on, and how far it was checked
    /// before.
    pub fn take(&mut self, space: Space) -> (Dirty, Option<Progress>) {
        let progress = self.progress.take_if(|(of, _)| *of == space);
        (std::mem::take(&mut self.spaces[space.index()]), progress.map(|(_, progress)| progress))
    }

    /// Adds `dirty` again, all that was taken of `space`: it agrees with the tables as far as
    /// `progress`.
    pub fn put_back(&mut self, space: Space, dirty: Dirty, progress: Option<Progress>) {
        self.spaces[space.index()] = dirty;
        self.progress = progress.map(|progress| (space, progress));
    }
}
