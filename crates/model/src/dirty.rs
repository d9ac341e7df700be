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

/// Addresses of every space.
#[derive(Debug, Default)]
pub(crate) struct DirtySpaces([Dirty; SPACES]);

impl DirtySpaces {
    pub fn of_mut(&mut self, space: Space) -> &mut Dirty {
        &mut self.0[space.index()]
    }

    /// Adds all addresses: a register decides what they mean.
    pub fn everything(&mut self) {
        self.0 = [const { Dirty::Everything }; SPACES];
    }

    /// What changed in `space`, which counts as settled from here on.
    pub fn take(&mut self, space: Space) -> Dirty {
        std::mem::take(&mut self.0[space.index()])
    }
}
