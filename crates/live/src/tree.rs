//! A live tree and the edits that can be planned for it.

use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Geometry, Level, Pa, Va, VaRange};

use crate::check::{Author, check};
use crate::every_leaf::Global;
use crate::foldable::foldable;
use crate::half::Half;
use crate::plan::{Foldable, Plan, abandon};
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::protect::Change;
use crate::refused::Refused;
use crate::script::Script;
use crate::step::{EveryLeaf, Step};
use crate::target::{Parked, Target};
use crate::tree_context::TreeContext;
use linmap_table::FrameSource;
use linmap_table::Mappings;
use linmap_table::TableWindow;

use crate::exclusivity::Exclusivity;
use crate::split::Cut;

/// A tree in the TTBR of running CPUs.
///
/// The value is the right to change the tree: it can't be copied, and a plan borrows it until it is
/// applied or abandoned, so that no plan is ever out of date.
#[derive(Debug)]
pub struct LiveTree {
    context: TreeContext,
}

impl LiveTree {
    /// The tree whose root table is in frame `root` and stands in the TTBR of `half`, on CPUs of
    /// which the least has BBM level `bbm`.
    ///
    /// # Safety
    /// The root must stand in a TTBR with this geometry, or be ready to; only this value may change
    /// the tree from now on; and CPUs must have hardware updates of the access flag and of dirty
    /// state off, as [`linmap_vmsa::registers::tcr`] leaves them.
    pub const unsafe fn new(geometry: Geometry, root: Pa, half: Half, bbm: BbmLevel) -> Self {
        Self { context: TreeContext::new(geometry, root, half, bbm) }
    }

    /// The same tree on CPUs that all have invalidations by range (FEAT_TLBIRANGE).
    pub const fn with_range_invalidation(self) -> Self {
        Self { context: self.context.with_range_invalidation() }
    }

    /// The tree's shape.
    pub const fn geometry(&self) -> Geometry {
        self.context.geometry
    }

    /// The frame of the root table.
    pub const fn root(&self) -> Pa {
        self.context.top.table
    }

    /// First address that the tree translates.
    pub fn base(&self) -> Va {
        Va(self.context.base())
    }

    /// The BBM level that plans rely on.
    pub const fn bbm(&self) -> BbmLevel {
        self.context.bbm
    }

    /// Plans to map `mappings` where nothing is mapped yet, using the largest leaves that they
    /// allow. New tables are written now, while nothing leads to them.
    ///
    /// # Errors
    /// [`PlanError::OtherGeometry`], [`PlanError::OutsideHalf`], [`PlanError::EntryInUse`] where
    /// something is mapped or an invalidated leaf stands, [`PlanError::TooLong`],
    /// [`PlanError::OutOfFrames`].
    pub fn plan_map<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        mappings: &Mappings<'_>,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let context = &self.context;
        if mappings.geometry() != context.geometry {
            return Err(PlanError::OtherGeometry { mappings: mappings.geometry(), tree: context.geometry });
        }
        for mapping in mappings.list() {
            context.bounds(VaRange::new(mapping.va, mapping.len))?;
        }
        self.plan(Exclusivity::InUse, steps, window, frames, |planner| planner.map(mappings.cursor()))
    }

    /// Plans to unmap `target`, invalidated leaves included; parts that are not mapped stay so.
    /// Leaves that reach beyond are split first. Tables that become empty are freed, so every table
    /// below the root in the range must come from the frame source.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::NeedsLevel3`],
    /// [`PlanError::Foreign`], [`PlanError::TooLong`], [`PlanError::OutOfFrames`].
    pub fn plan_unmap<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.context.bounds(target.range())?;
        self.plan(target.exclusivity(), steps, window, frames, |planner| {
            planner.split(Cut::Ends { first, last, wanted: None })?;
            planner.order_runs()?;
            planner.unmap(first, last)
        })
    }

    /// Plans to give all of `target` the attributes that `change` names and to leave its other
    /// attributes alone. Leaves that reach beyond are split no further than needed, unless they
    /// have the attributes already.
    ///
    /// Validity is an attribute here: with `valid: Some(false)` a leaf keeps everything but its
    /// valid bit, translates nothing, and comes back with `valid: Some(true)`.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::Hole`],
    /// [`PlanError::WritableAndExecutable`], [`PlanError::NeedsLevel3`], [`PlanError::RunInUse`],
    /// [`PlanError::Foreign`], [`PlanError::TooLong`], [`PlanError::OutOfFrames`].
    #[inline(always)]
    pub fn plan_protect<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        change: Change,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.context.bounds(target.range())?;
        if change.writable_and_executable() {
            return Err(PlanError::WritableAndExecutable { va: Va(first) });
        }
        self.plan(target.exclusivity(), steps, window, frames, |planner| planner.protect(first, last, change))
    }

    /// Plans to make the leaves in `target` no larger than one entry at `to`, without the
    /// contiguous bit where it would make them larger. Whoever has to change single pages later
    /// without changing sizes splits to level 3. Parts of larger leaves outside of the range stay
    /// as large as they can.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::NeedsLevel3`],
    /// [`PlanError::Foreign`], [`PlanError::TooLong`], [`PlanError::OutOfFrames`].
    pub fn plan_split<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        to: Level,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.context.bounds(target.range())?;
        self.plan(target.exclusivity(), steps, window, frames, |planner| {
            planner.split(Cut::Down { first, last, to })
        })
    }

    /// Plans to make leaves in `target` as large as addresses and attributes allow: blocks where
    /// all below is alike and consecutive, contiguous runs of what is left. Only blocks and runs
    /// that lie in the range whole are made. Tables that are no longer needed are freed, so every
    /// table below the root in the range must come from the frame source.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::NeedsLevel3`],
    /// [`PlanError::TooLong`].
    pub fn plan_fold<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.context.bounds(target.range())?;
        self.plan(target.exclusivity(), steps, window, frames, |planner| planner.fold(first, last))
    }

    /// Plans to make all leaves in the range global or not, invalidated ones included. Leaves that
    /// reach beyond are split no further than needed, unless they are so already. The range may be
    /// the whole half.
    ///
    /// Only a parked tree can be changed so: a global leaf in the place of one that is not always
    /// asks for break-before-make (Arm ARM D8.16.1, RWHZWS). The plan has one step for all leaves,
    /// whatever their number.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::Foreign`],
    /// [`PlanError::TooLong`], [`PlanError::OutOfFrames`].
    pub fn plan_global<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        parked: Parked,
        scope: Global,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.context.bounds(parked.range())?;
        let (clear, set) = scope.masks();
        self.plan(Exclusivity::Parked, steps, window, frames, |planner| {
            planner.split(Cut::Ends { first, last, wanted: Some((clear, set)) })?;
            planner.every_leaf(EveryLeaf { first: Va(first), last: Va(last), clear, set })
        })
    }

    /// Where it pays to look for larger leaves now that the leaves in `range` have changed their
    /// attributes: what to give [`plan_fold`](Self::plan_fold), or `None` when nothing around the
    /// range has become foldable.
    ///
    /// The question is cheap: it ends at once when the leaf beside each end of the range says
    /// something else, as after a change of one page, and looks at no more than what could fold.
    /// The answer is the range rounded out to the largest block or run that could arise; for a
    /// range of several leaves it may be `Some` where `plan_fold` then finds nothing to do. `None`
    /// too for a range that is not one of whole pages of this half.
    pub fn foldable<W: TableWindow>(&self, range: VaRange, window: &mut W) -> Option<VaRange> {
        let (first, last) = self.context.bounds(range).ok()?;
        foldable(&self.context, first, last, window)
    }

    /// Runs a planner and makes a plan of its steps. On an error the frames that it allocated go
    /// back.
    #[inline(always)]
    fn plan<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        exclusivity: Exclusivity,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
        edit: impl FnOnce(&mut Planner<'_, '_, W, F>) -> Result<(), PlanError>,
    ) -> Result<Plan<'b>, PlanError> {
        let mut script = Script::new(steps);
        let mut planner = Planner::new(&self.context, exclusivity, &mut script, window, frames);
        let planned = edit(&mut planner).and_then(|()| planner.finish());
        let foldable = if planner.odd_page { Foldable::No } else { Foldable::Perhaps };
        match planned {
            Ok(()) => Ok(Plan::new(&mut self.context, exclusivity, foldable, script.written())),
            Err(error) => {
                abandon(self.context.geometry, script.written(), window, frames);
                Err(error)
            }
        }
    }

    /// Whether the steps may be applied to the tree as it is: what [`Plan::check`] does, for steps
    /// from anywhere. Every table that replaces a block, or is replaced by one, is compared with
    /// it, whoever wrote it.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check<W: TableWindow>(
        &self,
        target: Target,
        steps: &[Step],
        window: &mut W,
    ) -> Result<(), Refused> {
        check(&self.context, target.exclusivity(), Author::Anybody, steps, window)
    }
}
