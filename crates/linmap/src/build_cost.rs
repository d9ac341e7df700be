//! What a build costs, derived from what it maps: without memory, and in a time that does not
//! depend on how much is mapped.

use linmap_table::Built;
use linmap_table::cpu::InstructionCounts;
use linmap_vmsa::{Geometry, Level};

use crate::step::FixmapStep;
use crate::tree_counts::{LevelCounts, TreeCounts};

/// What building a linear map costs: what [`PreparedMap::build`](crate::PreparedMap::build)
/// allocates, writes and executes if the root has no entry in the linear region yet.
///
/// ```
/// use linmap::{BuildCost, BuilderSlots, ImageParts, LinearMapConfig, MappingLists};
/// use linmap_table::Reserved;
/// use linmap_vmsa::{Geometry, Level, Pa, PaRange};
///
/// // Neither the root nor the registers change what a build costs.
/// let slots = BuilderSlots { tables: [0, 1, 2, 3, 4], leaf_tables: 5..21 };
/// let reserved = Reserved { ttbr0: 0, tcr: 0 };
/// let config =
///     LinearMapConfig::new(Geometry::K4_48, ImageParts::default(), slots, Pa(0), reserved);
/// let mut lists = MappingLists::<8>::new();
/// let memory = PaRange::new(Pa(0x4000_0000), Pa(0x4000_0000 + (64 << 40)));
/// let cost: BuildCost = config.prepare([memory], &mut lists)?.cost();
///
/// // 64 TiB in blocks of 1 GiB.
/// assert_eq!((cost.at(Level::L1).tables, cost.at(Level::L1).leaves()), (128, 64 << 10));
/// assert_eq!(cost.built().tables, 128);
/// // One TLBI for each of the 130 tables of the 1:1 map, one to remove it.
/// assert_eq!(cost.instructions.tlbi, 131);
/// # Ok::<(), linmap::ConfigError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuildCost {
    geometry: Geometry,
    tree: TreeCounts,
    /// TLBIs and barriers.
    pub instructions: InstructionCounts,
    /// Frames that the build uses besides the map's tables and frees at its end: those of the 1:1
    /// map, and the root of the tree before it is published. All are in use at once.
    pub temporary: u64,
}

impl BuildCost {
    /// Returns the cost of building `linear` as `step` through fixmap slots.
    pub(crate) fn by_fixmap(step: FixmapStep, geometry: Geometry, linear: TreeCounts) -> Self {
        let (pages, above) = (Level::L3.above_pages() as usize, Level::L2.above_pages() as usize);
        let opened = if step == FixmapStep::Base { linear.run_visits } else { linear.visits };
        let upper: u64 = opened[above..].iter().sum();
        let mut cost = InstructionCounts::default();
        // The root's slot, and those of the tables between it and pages.
        add(&mut cost, 1 + upper, SLOT_USE);
        if step == FixmapStep::LazyUnmap {
            add(&mut cost, opened[pages], InstructionCounts { tlbi: 1, dsb: 1, isb: 1 });
            add(&mut cost, linear.batches, InstructionCounts { tlbi: 0, dsb: 2, isb: 1 });
        } else {
            add(&mut cost, opened[pages], SLOT_USE);
        }
        let tables = linear.tables();
        add(&mut cost, tables, STORE_VALID);
        if step < FixmapStep::NoAllocRemap {
            // A new table is zeroed in a use of its own,
            add(&mut cost, tables, SLOT_USE);
        } else {
            // or in its only one, and the zeros are ordered before the link.
            cost.dsb += tables;
        }
        let blocks = linear.levels[above..].iter().map(LevelCounts::leaves).sum();
        add(&mut cost, blocks, STORE_VALID);
        if step < FixmapStep::BatchBarriers {
            add(&mut cost, linear.levels[pages].leaves(), STORE_VALID);
        }
        Self { geometry, tree: linear, instructions: cost, temporary: 0 }
    }

    /// Returns the cost of building `linear` through the 1:1 map `identity`.
    pub(crate) fn by_identity(geometry: Geometry, linear: TreeCounts, identity: TreeCounts) -> Self {
        let tables = identity.tables() + 1;
        let mut cost = InstructionCounts::default();
        add(&mut cost, tables, SLOT_USE);
        // `Reserved::install`, `DetachedTree::publish` and `Installed::remove`.
        cost.isb += 2;
        add(&mut cost, 1, InstructionCounts { tlbi: 0, dsb: 2, isb: 1 });
        add(&mut cost, 1, InstructionCounts { tlbi: 1, dsb: 1, isb: 3 });
        Self { geometry, tree: linear, instructions: cost, temporary: tables + 1 }
    }

    /// Returns what the map has at `level`.
    pub fn at(&self, level: Level) -> LevelCounts {
        self.tree.levels[level.above_pages() as usize]
    }

    /// Returns what the build reports: tables without the root, leaves, bytes mapped.
    pub fn built(&self) -> Built {
        let levels = (self.geometry.start_level().number()..=3).filter_map(Level::new);
        let bytes = levels.map(|level| self.at(level).leaves() * self.geometry.entry_bytes(level)).sum();
        let entries = self.tree.levels.iter().map(LevelCounts::leaves).sum();
        Built { tables: self.tree.tables(), entries, bytes }
    }

    /// Returns the geometry of the map.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
}

/// `Fixmap::map` and `Fixmap::clear`.
const SLOT_USE: InstructionCounts = InstructionCounts { tlbi: 1, dsb: 3, isb: 2 };

/// `linmap_table::cpu::store_valid`.
const STORE_VALID: InstructionCounts = InstructionCounts { tlbi: 0, dsb: 1, isb: 1 };

fn add(to: &mut InstructionCounts, times: u64, each: InstructionCounts) {
    to.tlbi += times * each.tlbi;
    to.dsb += times * each.dsb;
    to.isb += times * each.isb;
}
