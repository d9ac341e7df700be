//! From a configuration and memory to a running linear map.

use linmap_live::{Half, LiveTree};
use linmap_table::cpu::Cpu;
use linmap_table::{Built, Fixmap, FrameSource, Mappings};
use linmap_vmsa::{Geometry, MemoryType, Pa, PaRange};

use crate::build_cost::BuildCost;
use crate::build_error::BuildError;
use crate::builder::Builder;
use crate::change::LinearMap;
use crate::config::{ConfigError, LinearMapConfig};
use crate::fixmap_build::build_by_fixmap;
use crate::identity_build::build_by_identity;
use crate::layout::{Layout, LayoutError};
use crate::mapping_list::{MappingLists, identity_geometry, identity_mappings, linear_mappings};
use crate::step::FixmapStep;
use crate::tree_counts::TreeCounts;

/// A linear map that is ready to be built: its layout, and what it maps.
#[derive(Clone, Copy, Debug)]
#[must_use = "the linear map is not built yet"]
pub struct PreparedMap<'c, 'l> {
    config: &'c LinearMapConfig,
    layout: Layout,
    linear: Mappings<'l>,
    method: Method<'l>,
}

/// A builder with what it needs.
#[derive(Clone, Copy, Debug)]
enum Method<'l> {
    Fixmap(FixmapStep),
    Identity(Mappings<'l>),
}

impl LinearMapConfig {
    /// Lays out the linear map of `memory` in `lists`. `memory` is every range that may be mapped:
    /// whole pages, ascending, disjoint.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn prepare<'c, 'l, const N: usize>(
        &'c self,
        memory: impl IntoIterator<Item = PaRange>,
        lists: &'l mut MappingLists<'_, N>,
    ) -> Result<PreparedMap<'c, 'l>, ConfigError> {
        let geometry = self.geometry;
        let MappingLists { linear, identity } = lists;
        if !matches!(self.memory, MemoryType::Normal | MemoryType::NormalTagged) {
            return Err(ConfigError::MemoryType(self.memory));
        }
        identity_mappings(memory, identity)?;
        let (Some(first), Some(last)) = (identity.first(), identity.last()) else {
            return Err(ConfigError::NoMemory);
        };
        let end = Pa(last.pa.0 + last.len);
        let memory = PaRange { start: first.pa, end };
        let layout = match self.layout {
            None => Layout::new(geometry, memory)?,
            Some(layout) if layout.has(geometry, memory) => layout,
            Some(layout) => return Err(LayoutError::Outside { memory, reach: layout.reachable() }.into()),
        };
        linear_mappings(&layout, identity, self.image, self.leaves, &self.pages, self.memory, linear)?;
        let linear = Mappings::new(geometry.with_table_permissions(self.tables)?, linear)?;
        let method = match self.builder {
            Builder::Fixmap(step) => Method::Fixmap(step),
            Builder::Identity => {
                Method::Identity(Mappings::new(identity_geometry(geometry, end)?, identity)?)
            }
        };
        Ok(PreparedMap { config: self, layout, linear, method })
    }
}

impl<'c> PreparedMap<'c, '_> {
    /// Returns where the linear map will be.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns what the build will cost, without building.
    pub fn cost(&self) -> BuildCost {
        let (geometry, slots) = (self.linear.geometry(), &self.config.slots);
        let count = |mappings| TreeCounts::of(mappings, slots.leaf_tables.len() as u64);
        let linear = count(&self.linear);
        match &self.method {
            Method::Fixmap(step) => BuildCost::by_fixmap(*step, geometry, linear),
            Method::Identity(identity) => BuildCost::by_identity(geometry, linear, count(identity)),
        }
    }

    /// Builds the map. It translates from here on.
    ///
    /// # Errors
    /// [`BuildError`]. The identity builder has then undone everything. A fixmap builder leaves
    /// mapped what it had mapped before the error.
    ///
    /// # Safety
    /// - TTBR1 leads to the configuration's `root`. Nothing else changes the tables below it from
    ///   now on, apart from `fixmap`'s own. Hardware updates of the access flag and of dirty state
    ///   are off.
    /// - TTBR0 and TCR hold what the configuration's `reserved` says, and no TLB holds a
    ///   translation of TTBR0. No code uses TTBR0's half of the address space during the build.
    /// - No other CPU runs.
    /// - The memory to map contains the frames of `frames`, the root table and every table that is
    ///   already in use. Nothing else accesses the frames.
    /// - The ranges are memory that the CPU may access at any time, by speculation too.
    /// - The configuration's image is mapped at its `va`. Every [`Editor`](crate::Editor) that is
    ///   later passed to the map reaches the tree's tables.
    #[inline]
    pub unsafe fn build<C: Cpu, F: FrameSource>(
        self,
        fixmap: &mut Fixmap,
        cpu: &mut C,
        frames: &mut F,
    ) -> Result<BuiltMap<'c>, BuildError> {
        let Self { config, ref layout, ref linear, ref method } = self;
        let LinearMapConfig { builder, ref slots, root, reserved, .. } = *config;
        slots.check(builder, fixmap)?;
        let geometry = linear.geometry();
        let built = match method {
            // SAFETY: the caller's; the slots were checked.
            Method::Fixmap(step) => unsafe {
                build_by_fixmap(*step, linear, root, slots, fixmap, cpu, frames)
            },
            // SAFETY: the caller's; the slots were checked; both lists map the same memory.
            Method::Identity(identity) => unsafe {
                build_by_identity(layout, linear, identity, root, reserved, slots, fixmap, cpu, frames)
            },
        }?;
        Ok(BuiltMap { config, geometry, layout: *layout, built })
    }
}

/// A linear map that was built and translates.
///
/// ```
/// use linmap::{BuildError, BuiltMap, LinearMap, PreparedMap};
/// use linmap_table::cpu::Cpu;
/// use linmap_table::{Fixmap, FrameSource};
///
/// /// # Safety
/// /// As [`PreparedMap::build`].
/// unsafe fn build(
///     prepared: PreparedMap<'_, '_>,
///     fixmap: &mut Fixmap,
///     cpu: &mut impl Cpu,
///     frames: &mut impl FrameSource,
/// ) -> Result<LinearMap, BuildError> {
///     // SAFETY: the caller's.
///     let built: BuiltMap<'_> = unsafe { prepared.build(fixmap, cpu, frames)? };
///     assert!(built.built().tables > 0);
///     Ok(built.into_map())
/// }
/// ```
#[derive(Debug)]
pub struct BuiltMap<'c> {
    config: &'c LinearMapConfig,
    /// The configuration's, with what its tables take away.
    geometry: Geometry,
    layout: Layout,
    built: Built,
}

impl BuiltMap<'_> {
    /// Returns the counts of what was built.
    pub fn built(&self) -> Built {
        self.built
    }

    /// Returns where the map lies.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the map in use, through which it is changed.
    pub fn into_map(self) -> LinearMap {
        let LinearMapConfig { image, leaves, root, bbm, .. } = *self.config;
        let pages = self.config.pages.clone();
        // SAFETY: by the promise of `build`'s caller, the root is in TTBR1 with this geometry, the
        // map alone changes the tree from then on, hardware updates are off, and every editor
        // reaches the tree's tables. The builder mapped all memory at the layout, global.
        unsafe {
            let tree = LiveTree::new(self.geometry, root, Half::High, bbm);
            LinearMap::new(tree, self.layout, image, leaves).with_policy(pages, self.config.memory)
        }
    }
}

#[cfg(test)]
mod tests {
    use linmap_table::{Leaves, Reserved};
    use linmap_vmsa::id::BbmLevel;
    use linmap_vmsa::{Granule, TablePermissions};

    use super::*;
    use crate::{BuilderSlots, ImageParts, PageRanges};

    #[test]
    fn memory_above_the_reach_of_the_kernels_half_is_prepared_with_a_wider_identity_map() {
        let config = LinearMapConfig {
            geometry: Geometry::new(Granule::K16, 36, 48).unwrap(),
            image: ImageParts::default(),
            leaves: Leaves::ContiguousBlocks,
            pages: PageRanges::new(),
            tables: TablePermissions::UNRESTRICTED,
            memory: MemoryType::Normal,
            builder: Builder::Identity,
            slots: BuilderSlots { tables: [0, 1, 2, 3, 4], leaf_tables: 0..0 },
            root: Pa(0xfff_0000_0000),
            reserved: Reserved { ttbr0: 0, tcr: 0 },
            bbm: BbmLevel::L0,
            layout: None,
        };
        let memory = PaRange::new(Pa(0xfff_0000_0000), Pa(0xfff_4000_0000));
        let mut lists = MappingLists::<8>::new();
        let prepared = config.prepare([memory], &mut lists).unwrap();
        let Method::Identity(identity) = prepared.method else { panic!("{:?}", prepared.method) };
        assert_eq!(identity.geometry().va_bits(), 44);
        assert_eq!(prepared.layout().memstart(), memory.start);
    }
}
