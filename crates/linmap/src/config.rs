//! What a linear map is built from, as a value.

use linmap_table::{Leaves, MappingError, Reserved};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{AttributeError, Geometry, MemoryType, Pa, TablePermissions};
use thiserror::Error;

use crate::builder::Builder;
use crate::image::ImageParts;
use crate::layout::{Layout, LayoutError};
use crate::mapping_list::{BeyondIdentityReach, TooManyRanges};
use crate::page_ranges::PageRanges;
use crate::slots::BuilderSlots;

/// What a linear map is built from: facts about the kernel and the boot CPU, and the kernel's
/// choices.
///
/// [`prepare`](Self::prepare) adds the memory and checks everything that can be checked before the
/// machine is touched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinearMapConfig {
    /// Granule and address sizes of the kernel's half of the address space, which TTBR1 translates.
    /// The linear map takes its first [`Layout::region_len`](crate::Layout::region_len) bytes.
    pub geometry: Geometry,
    /// The kernel image.
    pub image: ImageParts,
    /// The leaves that the map may be made of.
    pub leaves: Leaves,
    /// Memory to map by pages only, whatever `leaves` allows.
    pub pages: PageRanges,
    /// What the map's own tables take away from all memory below them; TCR.HPD1 must be clear.
    /// [`TablePermissions::UNRESTRICTED`] takes nothing away. Linux writes
    /// [`TablePermissions::NEVER_EXECUTE`]; no memory can become text then.
    pub tables: TablePermissions,
    /// The type of its memory: [`MemoryType::Normal`], or [`MemoryType::NormalTagged`] where every
    /// CPU has FEAT_MTE2.
    pub memory: MemoryType,
    /// How it is built.
    pub builder: Builder,
    /// The fixmap slots that the builder may use.
    pub slots: BuilderSlots,
    /// The frame of the root table that is in TTBR1.
    pub root: Pa,
    /// What TTBR0 and TCR hold.
    pub reserved: Reserved,
    /// The least BBM level of the CPUs that use the map: at boot, the boot CPU's.
    pub bbm: BbmLevel,
    /// Where the map lies, in the same geometry. With `None` it begins at the start of the kernel's
    /// half.
    pub layout: Option<Layout>,
}

impl LinearMapConfig {
    /// Returns the usual choices: the identity builder, the largest leaves, Normal memory, tables
    /// that take nothing away, the map at the start of the kernel's half, and no reliance on a BBM
    /// level.
    pub fn new(
        geometry: Geometry,
        image: ImageParts,
        slots: BuilderSlots,
        root: Pa,
        reserved: Reserved,
    ) -> Self {
        Self {
            geometry,
            image,
            leaves: Leaves::ContiguousBlocks,
            pages: PageRanges::new(),
            tables: TablePermissions::UNRESTRICTED,
            memory: MemoryType::Normal,
            builder: Builder::Identity,
            slots,
            root,
            reserved,
            bbm: BbmLevel::L0,
            layout: None,
        }
    }
}

/// Why memory can't be mapped as the configuration says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The memory of a linear map is cacheable.
    #[error("memory can't be mapped as {0:?}: it is Normal or NormalTagged")]
    MemoryType(MemoryType),
    /// The list of memory is empty.
    #[error("there is no memory to map")]
    NoMemory,
    /// Memory does not fit the linear region.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Memory has more ranges than the lists hold.
    #[error(transparent)]
    TooManyRanges(#[from] TooManyRanges),
    /// The ranges break a rule: whole pages, ascending, disjoint, within the physical address size.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// Tables of the regime can't take away `tables`.
    #[error(transparent)]
    Tables(#[from] AttributeError),
    /// Memory ends above what a 1:1 map reaches.
    #[error(transparent)]
    Identity(#[from] BeyondIdentityReach),
}
