//! The linear map in use.

use linmap_live::{Global, Half, LiveTree};
use linmap_table::{Leaves, Unmappable};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Attributes, MemoryType, PaRange};

use super::change_error::ChangeError;
use super::mappable::not_mappable;
use super::region::Region;
use crate::image::ImageParts;
use crate::layout::Layout;
use crate::page_ranges::PageRanges;

/// The linear map in use: the tree that holds it, and the operations that change it.
#[derive(Debug)]
pub struct LinearMap {
    pub(super) tree: LiveTree,
    layout: Layout,
    pub(super) region: Region,
    pub(super) image: ImageParts,
    pub(super) leaves: Leaves,
    /// Memory that is mapped by pages alone.
    pub(super) pages: PageRanges,
    /// The type of memory.
    pub(super) memory: MemoryType,
    pub(super) global: Global,
}

impl LinearMap {
    /// Returns the linear map at `layout` in `tree`, built from `leaves`, all of them global and of
    /// the type [`MemoryType::Normal`].
    ///
    /// # Safety
    /// The tree holds the linear map of some memory at `layout`, all of it global, and the image's
    /// own mapping at its address. Every [`Editor`](crate::Editor) that is passed to a method of
    /// this value reaches the tree's tables.
    pub unsafe fn new(mut tree: LiveTree, layout: Layout, image: ImageParts, leaves: Leaves) -> Self {
        tree.set_leaves(leaves);
        let (region, pages, global) = (Region::new(layout), PageRanges::new(), Global::Global);
        let memory = MemoryType::Normal;
        Self { tree, layout, region, image, leaves, pages, memory, global }
    }

    /// Returns the map with what its memory was built as: by pages where `pages` says so, all of it
    /// of the type `memory`.
    pub(crate) fn with_policy(self, pages: PageRanges, memory: MemoryType) -> Self {
        Self { pages, memory, ..self }
    }

    /// Returns the attributes of memory that was never changed.
    pub fn attributes(&self) -> Attributes {
        let global = self.global == Global::Global;
        Attributes { memory: self.memory, global, ..Attributes::KERNEL_DATA }
    }

    /// Makes later plans rely on the BBM level `bbm`, and on invalidation by range if
    /// `range_invalidation`.
    ///
    /// # Safety
    /// Every CPU that walks the tree has at least these features.
    pub unsafe fn rely_on(&mut self, bbm: BbmLevel, range_invalidation: bool) {
        // SAFETY: the tree is the same, and only this value changes it; the caller promises the
        // level.
        let tree = unsafe { LiveTree::new(self.tree.geometry(), self.tree.root(), Half::High, bbm) };
        // SAFETY: so are the invalidations by range.
        self.tree = if range_invalidation { unsafe { tree.with_range_invalidation() } } else { tree };
        self.tree.set_leaves(self.leaves);
    }

    /// Returns the tree.
    pub fn tree(&self) -> &LiveTree {
        &self.tree
    }

    /// Returns where the map lies.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the kernel image, as the map has to know it.
    pub fn image(&self) -> ImageParts {
        self.image
    }

    /// Returns the leaves that the map may be made of.
    pub fn leaves(&self) -> Leaves {
        self.leaves
    }

    /// Returns the memory that is mapped by pages alone, whatever [`leaves`](Self::leaves) allows.
    pub fn pages(&self) -> &PageRanges {
        &self.pages
    }

    /// Returns whether translations are global.
    pub fn global(&self) -> Global {
        self.global
    }

    /// Checks that `range` consists of whole pages of memory that is mapped, valid or not.
    /// `first_unmappable` is
    /// [`PhysicalMemory::first_unmappable`](linmap_table::PhysicalMemory::first_unmappable) of the
    /// kernel's memory.
    ///
    /// # Errors
    /// [`ChangeError`] for the first address that is not.
    pub fn check_mapped(
        &self,
        range: PaRange,
        first_unmappable: impl FnOnce(PaRange) -> Option<Unmappable>,
    ) -> Result<(), ChangeError> {
        self.region.linear(range)?;
        first_unmappable(range).map_or(Ok(()), |unmappable| Err(not_mappable(range, unmappable)))
    }
}
