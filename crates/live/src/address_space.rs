//! The short form of live edits for a user space or a guest.

use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, Leaf, LeafIter, Mappings, OutOfFrames, TableWindow, Walk, walk};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Attributes, Geometry, Level, MemoryType, Pa, Va, VaRange};
use thiserror::Error;

use crate::apply::EditCounts;
use crate::change::Change;
use crate::checked_plan::Applied;
use crate::half::Half;
use crate::maintenance::Maintenance;
use crate::plan::Plan;
use crate::plan_error::PlanError;
use crate::refused::Refused;
use crate::step::Step;
use crate::target::{Retried, Target};
use crate::tree::LiveTree;

/// What a change of an [`AddressSpace`] needs.
#[derive(Debug)]
pub struct Tools<'t, W, F, C> {
    /// Reaches the tables.
    pub window: &'t mut W,
    /// Allocates and frees frames for tables.
    pub frames: &'t mut F,
    /// This CPU, as the space's regime sees it.
    pub cpu: &'t mut C,
    /// Room for the steps of a plan. 64 are enough for a few pages, 512 for most ranges.
    pub steps: &'t mut [Step],
}

/// Why a change of an [`AddressSpace`] was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// The change can't be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan breaks a rule: other code wrote tables that planners never write.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl From<OutOfFrames> for SpaceError {
    fn from(error: OutOfFrames) -> Self {
        Self::Plan(error.into())
    }
}

/// What an address translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The physical address.
    pub pa: Pa,
    /// The level of the leaf.
    pub level: Level,
    /// What the leaf allows.
    pub attributes: Attributes,
}

/// The tables of a user space, or the stage 2 of a guest, which CPUs walk while they change.
///
/// Every call plans a change, checks the plan, applies it and frees the tables that it removed. If
/// a call returns an error, nothing has changed, with one exception: a change that takes several
/// plans may have changed a part of the range, or the sizes of leaves. These are a split, a fold or
/// a change of permissions for which the list of steps is too short, and a change of a part of a
/// leaf.
///
/// A change that needs break-before-make makes the range invalid for a short time, while other CPUs
/// use it. Accesses that fault then must be retried: the fault handler waits for the editor, walks
/// the tables again ([`translate`](Self::translate)) and returns if the access is allowed now.
///
/// One editor at a time changes a space: the calls take `&mut self`. Editors that change it at the
/// same time have parts of it that share no table: [`divide`](Self::divide).
#[derive(Debug)]
pub struct AddressSpace {
    pub(crate) tree: LiveTree,
}

impl AddressSpace {
    /// Returns the user space with this root, in TTBR0 with `asid`. All CPUs have at least BBM
    /// level `bbm`. Its mappings are non-global.
    ///
    /// # Safety
    /// - As for [`LiveTree::new`] with [`Half::Low`] and for [`LiveTree::in_asid`]. The windows and
    ///   frame sources are those of [`Tools`], and `cpu` there acts on the regime of the geometry.
    /// - Only user space relies on translations of the space: code, stacks and tables of the kernel
    ///   lie elsewhere. Accesses of user space that fault, and accesses of the kernel to user
    ///   space, are retried as [`AddressSpace`] says.
    pub const unsafe fn user(geometry: Geometry, root: Pa, asid: u16, bbm: BbmLevel) -> Self {
        // SAFETY: the caller's.
        Self { tree: unsafe { LiveTree::new(geometry, root, Half::Low, bbm).in_asid(asid) } }
    }

    /// Returns the guest with this root, in VTTBR. All CPUs have at least BBM level `bbm`. The root
    /// may be several tables, in the frames from `root` on.
    ///
    /// # Safety
    /// - As for [`LiveTree::new`], with a geometry of stage 2. While a call changes the space,
    ///   VTTBR of the CPU holds the guest's VMID, and `cpu` in [`Tools`] acts on stage 2.
    /// - The hypervisor reaches its own memory by other tables. Accesses of the guest that fault,
    ///   and accesses of devices that use the tables, are retried as [`AddressSpace`] says.
    pub const unsafe fn guest(geometry: Geometry, root: Pa, bbm: BbmLevel) -> Self {
        // SAFETY: the caller's.
        Self { tree: unsafe { LiveTree::new(geometry, root, Half::Low, bbm) } }
    }

    /// Returns the same space, with invalidations by range (FEAT_TLBIRANGE).
    ///
    /// # Safety
    /// All CPUs have FEAT_TLBIRANGE.
    pub const unsafe fn with_range_invalidation(self) -> Self {
        // SAFETY: the caller's.
        Self { tree: unsafe { self.tree.with_range_invalidation() } }
    }

    /// Makes invalidations name `asid` from now on. If ASIDs have generations, call this before
    /// every change, with the space's present ASID.
    ///
    /// # Safety
    /// As for [`LiveTree::in_asid`]. The space keeps the ASID until a change has returned, unless
    /// the change only maps what was not mapped: the CPU that makes it runs the space, or no CPU
    /// switches to it meanwhile. To invalidate by another ASID afterwards is too late: the change
    /// has stored new leaves after a break, and has freed tables.
    pub const unsafe fn set_asid(&mut self, asid: u16) {
        // SAFETY: the caller's.
        unsafe { self.tree.set_asid(asid) };
    }

    /// Returns the tree, for changes that this type does not offer.
    ///
    /// # Safety
    /// The caller must not replace the tree by another [`LiveTree`]: the promises of
    /// [`user`](Self::user) and [`guest`](Self::guest) hold for this tree only.
    ///
    /// ```compile_fail,E0133
    /// fn unmap_the_kernel(space: &mut linmap_live::AddressSpace, kernel: &mut linmap_live::LiveTree) {
    ///     core::mem::swap(space.tree(), kernel);
    /// }
    /// ```
    pub const unsafe fn tree(&mut self) -> &mut LiveTree {
        &mut self.tree
    }

    /// Returns the frame of the root table, the first of several.
    pub const fn root(&self) -> Pa {
        self.tree.root()
    }

    /// Returns the geometry.
    pub const fn geometry(&self) -> Geometry {
        self.tree.geometry()
    }

    /// Maps `mappings`. Where the same memory is mapped already, changes its permissions to theirs.
    ///
    /// # Errors
    /// As for [`LiveTree::plan_map`].
    ///
    /// # Safety
    /// User space or guest may access the memory as the attributes say. What the caller has written
    /// to it comes before the new leaves: a DMB ISHST or DSB ISHST has followed. Without one
    /// another CPU may find the leaf, and then what an earlier owner left there. Without
    /// HCR_EL2.FWB a guest whose caches are off finds only what was cleaned to the point of
    /// coherency.
    pub unsafe fn map<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        mappings: &Mappings<'_>,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        let Tools { window, frames, cpu, steps } = tools;
        let plan = self.tree.plan_map(mappings, steps, *window, *frames)?;
        finish(plan, *window, *frames, *cpu)
    }

    /// Unmaps a range, which may have holes.
    ///
    /// # Errors
    /// As for [`LiveTree::plan_unmap`].
    pub fn unmap<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        let Tools { window, frames, cpu, steps } = tools;
        let plan = self.tree.plan_unmap(retried(range), steps, *window, *frames)?;
        finish(plan, *window, *frames, *cpu)
    }

    /// Changes the attributes of a range, in pieces if the list of steps is too short.
    ///
    /// # Errors
    /// As for [`LiveTree::plan_protect`].
    ///
    /// # Safety
    /// User space or guest may access the memory as the attributes say.
    pub unsafe fn protect<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        let Tools { window, frames, cpu, steps } = tools;
        match self.tree.plan_protect(retried(range), change, steps, *window, *frames) {
            Ok(plan) => finish(plan, *window, *frames, *cpu),
            // SAFETY: the caller's.
            Err(PlanError::TooLong { .. }) => unsafe { self.protect_in_pieces(range, change, tools) },
            Err(error) => Err(error.into()),
        }
    }

    /// [`protect`](Self::protect) by several plans.
    ///
    /// # Safety
    /// As there.
    // Out of line, so that a change of one page is as short as it can be.
    #[cold]
    #[inline(never)]
    unsafe fn protect_in_pieces<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        self.in_pieces(range, tools, |tree, range, Tools { window, frames, cpu, steps }| {
            let plan = tree.plan_protect(retried(range), change, steps, *window, *frames)?;
            finish(plan, *window, *frames, *cpu)
        })
    }

    /// Makes a mapped range translate to the memory from `to` on, and changes the attributes that
    /// `change` names: for copy-on-write, for example. Splits leaves that are too large to pages
    /// first.
    ///
    /// # Errors
    /// As for [`LiveTree::plan_remap`].
    ///
    /// # Safety
    /// User space or guest may access the memory as the attributes say. What the caller has written
    /// to it comes first, as for [`map`](Self::map).
    pub unsafe fn remap<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        to: Pa,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        let Tools { window, frames, cpu, steps } = tools;
        match self.tree.plan_remap(retried(range), to, change, steps, *window, *frames) {
            Ok(plan) => finish(plan, *window, *frames, *cpu),
            // SAFETY: the caller's.
            Err(PlanError::PartOfLeaf { .. }) => unsafe { self.remap_pages(range, to, change, tools) },
            Err(error) => Err(error.into()),
        }
    }

    /// [`remap`](Self::remap) after a split to pages.
    ///
    /// # Safety
    /// As there.
    #[cold]
    #[inline(never)]
    unsafe fn remap_pages<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        to: Pa,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        let split = self.split(range, Level::L3, tools)?;
        let Tools { window, frames, cpu, steps } = tools;
        let plan = self.tree.plan_remap(retried(range), to, change, steps, *window, *frames)?;
        Ok(split.and(finish(plan, *window, *frames, *cpu)?))
    }

    /// Changes the memory type of a range, and cleans and invalidates the caches for it. Splits
    /// leaves that cross an end of the range to pages first.
    ///
    /// # Errors
    /// As for [`LiveTree::plan_memory_type`].
    ///
    /// # Safety
    /// As for [`LiveTree::plan_memory_type`].
    pub unsafe fn set_memory_type<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        memory: MemoryType,
        maintenance: Maintenance,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        self.of_whole_leaves(range, tools, |tree, Tools { window, frames, cpu, steps }| {
            let target = retried(range);
            // SAFETY: the caller's.
            let plan =
                unsafe { tree.plan_memory_type(target, memory, maintenance, steps, *window, *frames)? };
            finish(plan, *window, *frames, *cpu)
        })
    }

    /// Splits the leaves in a range to at most the size of one entry at level `to`, in pieces if
    /// the list of steps is too short.
    ///
    /// # Errors
    /// As for [`LiveTree::plan_split`].
    pub fn split<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        to: Level,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        self.in_pieces(range, tools, |tree, range, Tools { window, frames, cpu, steps }| {
            let plan = tree.plan_split(retried(range), to, steps, *window, *frames)?;
            finish(plan, *window, *frames, *cpu)
        })
    }

    /// Folds the leaves in a range to the largest possible ones, in pieces if the list of steps is
    /// too short.
    ///
    /// # Errors
    /// As for [`LiveTree::plan_fold`].
    pub fn fold<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        self.in_pieces(range, tools, |tree, range, Tools { window, frames, cpu, steps }| {
            let plan = tree.plan_fold(retried(range), steps, *window, *frames)?;
            finish(plan, *window, *frames, *cpu)
        })
    }

    /// Returns what `va` translates to, or `None` if nothing is mapped there, if the leaf is
    /// invalidated or has a memory type that linmap never writes, or if the space can't contain the
    /// address: one of the kernel's half, or an IPA that is too large.
    pub fn translate<W: TableWindow>(&self, va: Va, window: &mut W) -> Option<Translation> {
        let geometry = self.geometry();
        // The walk looks at the bits of the index alone.
        if !self.tree.holds(va) {
            return None;
        }
        // SAFETY: by the promise of the constructor the root is one of this geometry, and the
        // window reaches its tables.
        let found = unsafe { walk(geometry, self.root(), va, window) };
        let Walk::Leaf { pa, level, .. } = found else { return None };
        Some(Translation { pa, level, attributes: found.attributes(geometry)? })
    }

    /// Returns all leaves, in the order of their addresses.
    pub fn leaves<'w, W: TableWindow>(&'w self, window: &'w mut W) -> impl Iterator<Item = Leaf> + 'w {
        let geometry = self.geometry();
        // SAFETY: as for `translate`. The space is borrowed, so nothing changes the tables.
        unsafe { LeafIter::new(geometry, self.root(), geometry.start_level(), Va(0), window) }
    }

    /// Runs `edit`, and once more after a split of the range to pages where it says that the range
    /// holds a part of a leaf.
    pub(crate) fn of_whole_leaves<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        tools: &mut Tools<'_, W, F, C>,
        mut edit: impl FnMut(&mut LiveTree, &mut Tools<'_, W, F, C>) -> Result<EditCounts, SpaceError>,
    ) -> Result<EditCounts, SpaceError> {
        match edit(&mut self.tree, tools) {
            Err(SpaceError::Plan(PlanError::PartOfLeaf { .. })) => {
                let split = self.split(range, Level::L3, tools)?;
                Ok(split.and(edit(&mut self.tree, tools)?))
            }
            result => result,
        }
    }

    /// Runs `edit` on the range, or on aligned pieces of it where the list of steps is too short.
    #[inline(always)]
    pub(crate) fn in_pieces<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        tools: &mut Tools<'_, W, F, C>,
        mut edit: impl FnMut(&mut LiveTree, VaRange, &mut Tools<'_, W, F, C>) -> Edited,
    ) -> Result<EditCounts, SpaceError> {
        let mut counts = EditCounts::default();
        let mut piece = u64::MAX;
        let mut done = 0;
        loop {
            let start = range.start.0.wrapping_add(done);
            let rest = range.len.wrapping_sub(done);
            let to_boundary = if piece == u64::MAX { rest } else { piece - (start & (piece - 1)) };
            let len = to_boundary.min(rest);
            match edit(&mut self.tree, VaRange::new(Va(start), len), tools) {
                Ok(more) => {
                    counts = counts.and(more);
                    done = done.wrapping_add(len);
                    if done == range.len {
                        return Ok(counts);
                    }
                }
                Err(SpaceError::Plan(error @ PlanError::TooLong { .. })) => {
                    piece = smaller(piece, range.len);
                    if piece < self.geometry().granule().bytes() {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The next smaller piece of a range of `len` bytes, a power of two.
#[cold]
fn smaller(piece: u64, len: u64) -> u64 {
    if piece == u64::MAX { len.checked_next_power_of_two().unwrap_or(1 << 63) / 2 } else { piece / 2 }
}

/// What an edit did.
type Edited = Result<EditCounts, SpaceError>;

/// A range whose users retry accesses that fault.
pub(crate) fn retried(range: VaRange) -> Target {
    // SAFETY: the promise of the constructors.
    Target::Retried(unsafe { Retried::new(range) })
}

/// Checks and applies a plan.
pub(crate) fn apply<'b, W: TableWindow, F: FrameSource, C: Cpu>(
    plan: Plan<'b>,
    window: &mut W,
    frames: &mut F,
    cpu: &mut C,
) -> Result<Applied<'b>, SpaceError> {
    match plan.check(window) {
        // SAFETY: the window reached the tables just now, nobody but user space or guest relies on
        // what the space maps, and they may access the memory: the callers of `map` and its like
        // promise that. The CPU acts on the tree's regime by the promise of the constructors.
        Ok(checked) => Ok(unsafe { checked.apply(window, cpu) }),
        Err((plan, refused)) => {
            plan.abandon(window, frames);
            Err(refused.into())
        }
    }
}

/// Checks and applies a plan, and frees the tables that it removed.
fn finish<W: TableWindow, F: FrameSource, C: Cpu>(
    plan: Plan<'_>,
    window: &mut W,
    frames: &mut F,
    cpu: &mut C,
) -> Result<EditCounts, SpaceError> {
    Ok(apply(plan, window, frames, cpu)?.free(window, frames))
}
