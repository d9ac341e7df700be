//! What is measured: an amount of RAM in one kind of leaf, mapped or made read-only.
//!
//! The RAM begins 32 MiB after a multiple of 1 GiB and the linear map on one. So 1 GiB blocks
//! cannot be used, while 2 MiB blocks and contiguous runs of them line up, and every table of the
//! map but the top two is full.

use linmap::Layout;
use linmap_table::{Leaves, Mapping};
use linmap_vmsa::{Attributes, Level, Pa, PaRange};

use crate::geometry::GEOMETRY;

const GIB: u64 = 1 << 30;
/// First byte of RAM.
const RAM_START: Pa = Pa(GIB + (32 << 20));

/// The kind of leaf that a map is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeafKind {
    /// 4 KiB pages.
    Page,
    /// 2 MiB blocks.
    Block,
}

impl LeafKind {
    /// The kind's name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Page => "4 KiB pages",
            Self::Block => "2 MiB blocks",
        }
    }

    /// The kind's name in JSON, as in `linmap.leaf=`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Block => "block",
        }
    }

    /// The level of the leaves.
    pub fn level(self) -> Level {
        match self {
            Self::Page => Level::L3,
            Self::Block => Level::L2,
        }
    }
}

/// What is done to a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// It is built.
    Build,
    /// It stands, read-write, and all of it is made read-only.
    Protect,
}

impl Work {
    /// The work's name in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Protect => "protect",
        }
    }
}

/// One linear map, and what is done to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// What is done.
    pub work: Work,
    /// GiB of RAM, 1 to 512: what one table at level 1 covers.
    pub gib: u64,
    /// The leaves to use.
    pub leaf: LeafKind,
}

impl Case {
    /// Everything that is measured.
    pub const ALL: [Self; 7] = [
        Self { work: Work::Build, gib: 16, leaf: LeafKind::Page },
        Self { work: Work::Build, gib: 64, leaf: LeafKind::Page },
        Self { work: Work::Build, gib: 512, leaf: LeafKind::Page },
        Self { work: Work::Build, gib: 16, leaf: LeafKind::Block },
        Self { work: Work::Build, gib: 64, leaf: LeafKind::Block },
        Self { work: Work::Build, gib: 512, leaf: LeafKind::Block },
        Self { work: Work::Protect, gib: 16, leaf: LeafKind::Page },
    ];

    /// The RAM to map.
    pub fn ram(self) -> PaRange {
        PaRange::new(RAM_START, Pa(RAM_START.0 + self.gib * GIB))
    }

    /// The case in words.
    pub fn title(self) -> String {
        let Self { work, gib, leaf } = self;
        match work {
            Work::Build => format!("{gib} GiB in {}", leaf.name()),
            Work::Protect => format!("{gib} GiB in {}, made read-only", leaf.name()),
        }
    }

    /// What all leaves say in the end.
    pub fn attributes(self) -> Attributes {
        match self.work {
            Work::Build => Attributes::KERNEL_DATA,
            Work::Protect => Attributes::KERNEL_RODATA,
        }
    }

    /// The RAM as the one mapping of the linear map that is built, to be made of `leaves`.
    pub fn mapping(self, leaves: Leaves) -> Mapping {
        let ram = self.ram();
        Mapping {
            va: Layout::base(GEOMETRY),
            pa: ram.start,
            len: ram.len(),
            attributes: Attributes::KERNEL_DATA,
            leaves,
        }
    }

    /// Leaf entries in the map.
    pub fn entries(self) -> u64 {
        self.ram().len() >> GEOMETRY.shift(self.leaf.level())
    }

    /// Tables that hold leaves, all of them full.
    pub fn leaf_tables(self) -> u64 {
        self.entries() / GEOMETRY.granule().entries() as u64
    }

    /// All tables of the map.
    pub fn tables(self) -> u64 {
        let level_2 = self.gib;
        let pages = match self.leaf {
            LeafKind::Page => self.leaf_tables(),
            LeafKind::Block => 0,
        };
        // One table each at levels 0 and 1.
        2 + level_2 + pages
    }

    /// Bytes of all tables.
    pub fn table_bytes(self) -> u64 {
        self.tables() * GEOMETRY.granule().bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_map_of_512_gib_is_full_at_every_level_but_the_top() {
        let case = Case { work: Work::Build, gib: 512, leaf: LeafKind::Page };
        assert_eq!(case.entries(), 1 << 27);
        assert_eq!(case.tables(), (1 << 18) + 512 + 1 + 1);
    }

    #[test]
    fn virtual_and_physical_addresses_are_congruent_at_32_mib_and_no_further() {
        let mapping = Case::ALL[0].mapping(Leaves::Blocks);
        assert_eq!((mapping.va.0 ^ mapping.pa.0) & ((32 << 20) - 1), 0);
        assert_ne!((mapping.va.0 ^ mapping.pa.0) & ((64 << 20) - 1), 0);
    }
}
