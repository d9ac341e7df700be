//! Edits, and what they make of the oracle.

use linmap::{ChangeError, MemoryError, Protection};
use linmap_live::{Global, PlanError};
use linmap_vmsa::{Level, Pa, PaRange};

use crate::pages::State;
use crate::random::Random;
use crate::world::World;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edit {
    Protect(PaRange, Protection),
    MakeText(PaRange),
    MakeData(PaRange),
    Split(PaRange, Level),
    Fold(PaRange),
    KeepPages(PaRange),
    AllowBlocks(PaRange),
    Add(PaRange),
    Remove(PaRange),
    Global(Global),
    Repaint,
}

impl Edit {
    pub fn random(world: &World, random: &mut Random) -> Self {
        const PROTECTIONS: [Protection; 7] = [
            Protection::ReadOnly,
            Protection::ReadOnly,
            Protection::ReadWrite,
            Protection::NoExecute,
            Protection::Invalid,
            Protection::Invalid,
            Protection::Valid,
        ];
        let range = random_range(world, random);
        match random.below(100) {
            0..50 => Self::Protect(range, random.pick(&PROTECTIONS)),
            50..58 => Self::MakeText(range),
            58..66 => Self::MakeData(range),
            66..74 => Self::Split(range, random.pick(&[Level::L3, Level::L3, Level::L2])),
            74..80 => Self::Fold(range),
            80..81 => Self::AllowBlocks(range),
            81..83 => Self::KeepPages(range),
            83..89 => Self::Add(range),
            89..96 => Self::Remove(range),
            96..99 => Self::Global(random.pick(&[Global::Global, Global::NonGlobal])),
            _ => Self::Repaint,
        }
    }

    pub fn range(self) -> Option<PaRange> {
        match self {
            Self::Protect(range, _)
            | Self::MakeText(range)
            | Self::MakeData(range)
            | Self::Split(range, _)
            | Self::Fold(range)
            | Self::KeepPages(range)
            | Self::AllowBlocks(range)
            | Self::Add(range)
            | Self::Remove(range) => Some(range),
            Self::Global(_) | Self::Repaint => None,
        }
    }

    /// What a page of its range becomes.
    pub fn of(self, state: State) -> State {
        match self {
            Self::Protect(_, Protection::ReadOnly) => State { writable: false, ..state },
            Self::Protect(_, Protection::ReadWrite) => State { writable: true, ..state },
            Self::Protect(_, Protection::NoExecute) => State { executable: false, ..state },
            Self::Protect(_, Protection::Invalid) => State { valid: false, ..state },
            Self::Protect(_, Protection::Valid) => State { valid: true, ..state },
            Self::MakeText(_) => State { writable: false, executable: true, ..state },
            Self::MakeData(_) => State { valid: true, writable: true, executable: false, ..state },
            Self::Global(global) => State { global: global == Global::Global, ..state },
            _ => state,
        }
    }
}

/// Most ranges are memory, begin or end where leaves do, and have any length.
fn random_range(world: &World, random: &mut Random) -> PaRange {
    let setting = &world.setting;
    let geometry = setting.geometry;
    let page = setting.page();
    let block = geometry.entry_bytes(Level::L2);
    let run = geometry.contiguous_entries(Level::L3).unwrap_or(1) as u64 * page;
    let part = random.pick(&setting.memory);
    let at = |random: &mut Random| {
        let unit = random.pick(&[page, page, page, run, run, block]);
        let units = (part.len() / unit).max(1);
        (part.start.0 / unit + random.below(units + 1)) * unit
    };
    let (one, other) = (at(random), at(random));
    let len = random.pick(&[page, page, 2 * page, run, run - page, block, block + page, 0]);
    let (first, end) = match len {
        0 => (one.min(other), one.max(other)),
        len => (one, one + len),
    };
    match random.below(50) {
        0 => PaRange::new(Pa(first), Pa(end + page / 2)),
        1..4 => PaRange::new(Pa(first), Pa(end)),
        _ => {
            // Cut to memory and to what is not the image.
            let found = PaRange::new(Pa(first.max(part.start.0)), Pa(end.min(part.end.0)));
            if !found.is_empty() && found.overlaps(setting.image) && random.percent(80) {
                let below = PaRange::new(found.start, Pa(found.end.0.min(setting.image.start.0)));
                let above = PaRange::new(Pa(found.start.0.max(setting.image.end.0)), found.end);
                return if below.len() > above.len() && below.start < below.end { below } else { above };
            }
            found
        }
    }
}

/// Whether an error is one that something injected explains: frames, steps or a CPU; or that a list
/// is full.
pub fn is_injected(error: &MemoryError) -> bool {
    matches!(
        error,
        MemoryError::Change(
            ChangeError::Plan(PlanError::OutOfFrames(_) | PlanError::TooLong { .. })
                | ChangeError::Park(_)
                | ChangeError::TooManyPageRanges(_)
        )
    )
}
