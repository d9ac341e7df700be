//! Who makes the maps.

use anyhow::Result;

use crate::arena::TableMemory;
use crate::case::{Case, LeafKind, Work};
use crate::run::Run;
use crate::{floor, live, ours, peers};

/// What a contestant finds in the frames it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frames {
    /// Whatever was there before: it writes every entry itself, or zeroes what it needs zeroed.
    AsTheyAre,
    /// Zeros, written before the clock starts.
    Zeroed,
}

/// A way to make the linear map of a case in the frames given.
#[derive(Clone, Copy, Debug)]
pub struct Contestant {
    /// Its name in the table and in JSON.
    pub name: &'static str,
    /// Which part it plays in the ratios.
    pub role: Role,
    /// What it finds in its frames.
    pub frames: Frames,
    /// Whether its leaves have the contiguous bit.
    pub contiguous: bool,
    /// Makes the map.
    pub run: fn(Case, &mut TableMemory<'_>) -> Result<Run>,
}

/// The part that a contestant plays in the ratios.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The raw store loop.
    Floor,
    /// linmap as the kernel uses it.
    Subject,
    /// linmap in another setting.
    Variant,
    /// The peer that linmap's aims are stated against.
    Rival,
    /// Another peer.
    Peer,
}

const FLOOR: Contestant = Contestant {
    name: "raw stores",
    role: Role::Floor,
    frames: Frames::AsTheyAre,
    contiguous: false,
    run: floor::build,
};

const MEMBLOCK: Contestant = Contestant {
    name: "linmap",
    role: Role::Subject,
    frames: Frames::AsTheyAre,
    contiguous: false,
    run: ours::from_memblock,
};

const BUMP: Contestant = Contestant {
    name: "linmap, bump frames",
    role: Role::Variant,
    frames: Frames::AsTheyAre,
    contiguous: false,
    run: ours::from_bump_frames,
};

const CONTIGUOUS: Contestant = Contestant {
    name: "linmap, contiguous bit",
    role: Role::Variant,
    frames: Frames::AsTheyAre,
    contiguous: true,
    run: ours::with_contiguous_bit,
};

const AARCH64_PAGING: Contestant = Contestant {
    name: "aarch64-paging 0.12.3",
    role: Role::Rival,
    frames: Frames::AsTheyAre,
    contiguous: false,
    run: peers::aarch64_paging::build_zeroing,
};

const AARCH64_PAGING_ZEROED: Contestant = Contestant {
    name: "aarch64-paging, zeroed before",
    role: Role::Peer,
    frames: Frames::Zeroed,
    contiguous: false,
    run: peers::aarch64_paging::build_in_zeroed,
};

const PAGE_TABLE_GENERIC: Contestant = Contestant {
    name: "page-table-generic 0.9.1",
    role: Role::Peer,
    frames: Frames::AsTheyAre,
    contiguous: false,
    run: peers::page_table_generic::build,
};

const FLOOR_PROTECT: Contestant = Contestant { name: "raw stores", run: floor::protect, ..FLOOR };

const LIVE: Contestant = Contestant { name: "linmap", run: live::protect, ..MEMBLOCK };

const AARCH64_PAGING_PROTECT: Contestant =
    Contestant { role: Role::Peer, run: peers::aarch64_paging::protect, ..AARCH64_PAGING };

const PAGE_TABLE_GENERIC_PROTECT: Contestant =
    Contestant { run: peers::page_table_generic::protect, ..PAGE_TABLE_GENERIC };

impl Contestant {
    /// Everyone who takes part in `case`.
    pub fn all(case: Case) -> &'static [Self] {
        match (case.work, case.leaf) {
            (Work::Build, LeafKind::Page) => {
                &[FLOOR, MEMBLOCK, BUMP, AARCH64_PAGING, AARCH64_PAGING_ZEROED, PAGE_TABLE_GENERIC]
            }
            (Work::Build, LeafKind::Block) => &[
                FLOOR,
                MEMBLOCK,
                BUMP,
                CONTIGUOUS,
                AARCH64_PAGING,
                AARCH64_PAGING_ZEROED,
                PAGE_TABLE_GENERIC,
            ],
            (Work::Protect, _) => &[FLOOR_PROTECT, LIVE, AARCH64_PAGING_PROTECT, PAGE_TABLE_GENERIC_PROTECT],
        }
    }

    /// Prepares the frames and makes the map of `case` in them. Only the case's work is timed.
    ///
    /// # Errors
    /// The contestant's own.
    pub fn run(&self, case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
        if self.frames == Frames::Zeroed {
            memory.set(0);
        }
        (self.run)(case, memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_are_the_releases_that_their_names_say() {
        let manifest = include_str!("../Cargo.toml");
        for name in [AARCH64_PAGING.name, PAGE_TABLE_GENERIC.name] {
            let (peer, release) = name.split_once(' ').unwrap();
            let line = manifest.lines().find(|line| line.starts_with(peer)).unwrap();
            assert!(line.contains(&format!("\"={release}\"")), "{line}");
        }
    }
}
