//! What a machine's linear map takes.

use linmap::{
    BuildCost, Builder, BuilderSlots, ConfigError, ImageParts, Layout, LayoutError, LinearMapConfig,
    MappingLists,
};
use linmap_table::{Leaves, Mapping, Reserved};
use linmap_vmsa::{Attributes, Geometry, Pa, PaRange, Va};

use crate::failure::Failure;
use crate::plan::machine::Machine;

/// A builder with what it costs, or why it can't build the map.
pub type BuilderCost = (Builder, Result<BuildCost, ConfigError>);

/// What the linear map of a machine takes.
#[derive(Debug)]
pub struct MachinePlan {
    /// Granule and address sizes.
    pub geometry: Geometry,
    /// Where the map lies.
    pub layout: Layout,
    /// The cost by the first builder that can build it.
    pub map: BuildCost,
    /// By each builder that was asked for.
    pub builders: Vec<BuilderCost>,
    /// Of a map of blocks.
    pub blocks: BuildCost,
    /// Of a map of pages.
    pub pages: BuildCost,
    /// Bytes that are free for tables.
    pub free: u64,
}

/// The slots that the published step has for leaf tables.
const LEAF_TABLES: usize = 16;

impl MachinePlan {
    /// Derives the plan of `machine`.
    pub fn new(machine: &Machine) -> Result<Self, Failure> {
        let options = machine.options;
        let geometry = options.geometry(machine.end())?;
        let memory: Vec<PaRange> = machine.memory.mappable(geometry.granule().bytes()).collect();
        let mut planner = Planner::new(geometry, machine, &memory);
        let leaves = options.leaves().leaves();
        let builders: Vec<BuilderCost> = options
            .builders()
            .iter()
            .map(|&builder| (builder, planner.cost(builder, leaves).map(|(cost, _)| cost)))
            .collect();
        // A fixmap builder needs no 1:1 map, so it reaches all memory that any builder does.
        let mut of = |leaves| planner.cost(Builder::ALL[0], leaves).map_err(failure);
        let (blocks, layout) = of(Leaves::ContiguousBlocks)?;
        let (pages, _) = of(Leaves::Pages)?;
        let (reached, _) = of(leaves)?;
        let map = builders.iter().find_map(|(_, cost)| cost.ok()).unwrap_or(reached);
        let free =
            machine.memory.free_ranges(PaRange::new(Pa(0), machine.end())).map(|free| free.len()).sum();
        Ok(Self { geometry, layout, map, builders, blocks, pages, free })
    }

    /// The bytes of the tables of a map, without its root.
    pub fn table_bytes(&self, cost: &BuildCost) -> u64 {
        cost.built().tables * self.geometry.granule().bytes()
    }
}

struct Planner<'m> {
    config: LinearMapConfig,
    memory: &'m [PaRange],
    room: Vec<Mapping>,
}

impl<'m> Planner<'m> {
    fn new(geometry: Geometry, machine: &Machine, memory: &'m [PaRange]) -> Self {
        let image = machine.image.map_or(ImageParts::default(), |image| image.parts);
        let slots = BuilderSlots { tables: [0, 1, 2, 3, 4], leaf_tables: 5..5 + LEAF_TABLES };
        // A plan depends on neither the root nor the registers.
        let reserved = Reserved { ttbr0: 0, tcr: 0 };
        let config = LinearMapConfig::new(geometry, image, slots, Pa(0), reserved);
        let unused = Mapping {
            va: Va(0),
            pa: Pa(0),
            len: 0,
            attributes: Attributes::KERNEL_DATA,
            leaves: Leaves::Pages,
        };
        // Two lists, each with two more mappings than memory has ranges.
        let room = vec![unused; 2 * (memory.len() + 2)];
        Self { config, memory, room }
    }

    fn cost(&mut self, builder: Builder, leaves: Leaves) -> Result<(BuildCost, Layout), ConfigError> {
        self.config.builder = builder;
        self.config.leaves = leaves;
        let mut lists = MappingLists::<0>::new();
        lists.lend(&mut self.room);
        let prepared = self.config.prepare(self.memory.iter().copied(), &mut lists)?;
        Ok((prepared.cost(), prepared.layout()))
    }
}

/// Why no builder can build the map.
fn failure(error: ConfigError) -> Failure {
    let failure = Failure::from(error);
    match error {
        ConfigError::Layout(LayoutError::TooWide { .. }) => {
            failure.hint("a larger --va-bits has a larger linear region")
        }
        ConfigError::Mapping(_) => failure.hint("a larger --pa-bits reaches more memory"),
        ConfigError::NoMemory => failure.hint("no range holds a whole page of this --granule"),
        _ => failure,
    }
}
