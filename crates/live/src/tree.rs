//! A live tree and the edits that can be planned for it.

use linmap_vmsa::bbm::Reason;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{
    AttributeError, Attributes, Geometry, HardwareUpdates, Level, MemoryType, Pa, Va, VaRange,
};

use crate::change::Change;
use crate::check::{Author, check};
use crate::every_leaf::Global;
use crate::foldable::foldable;
use crate::half::Half;
use crate::maintenance::Maintenance;
use crate::marks::Marks;
use crate::plan::{Foldable, Plan, abandon};
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::refused::Refused;
use crate::rewrite::Rewrite;
use crate::root_edits::RootEdit;
use crate::scope::Scope;
use crate::script::Script;
use crate::step::{EveryLeaf, Step};
use crate::target::{Parked, Target};
use crate::tree_context::TreeContext;
use linmap_table::{FrameSource, Leaves, Mappings, TableWindow};

use crate::exclusivity::Exclusivity;
use crate::split::Cut;

/// A tree in the TTBR of running CPUs.
///
/// The value is the right to change the tree. It can't be copied, and a plan borrows it until the
/// plan is applied or abandoned, so the tree never changes under a plan.
#[derive(Debug)]
pub struct LiveTree {
    pub(crate) context: TreeContext,
}

impl LiveTree {
    /// Returns the tree whose root table is in frame `root`, in the TTBR of `half`. All CPUs have
    /// at least BBM level `bbm`. Regimes with one range of addresses, and stage 2, have the
    /// [`Half::Low`] alone. A root of several tables is in the frames from `root` on.
    ///
    /// Invalidations name every ASID, or the VMID of a guest. A user space has them name its own
    /// ASID: [`in_asid`](Self::in_asid).
    ///
    /// # Safety
    /// - The root is in a TTBR of the geometry's regime, or could be. From now on only this value
    ///   changes the tree.
    /// - From the plan of an edit until it is applied, hardware updates of the access flag and of
    ///   dirty state are off on all CPUs, as [`linmap_vmsa::registers::tcr`] leaves them, or the
    ///   tree is one [`with_hardware_updates`](Self::with_hardware_updates).
    /// - Every window that is passed to a method of this value, or of one of its plans, reaches all
    ///   tables of the tree, and every frame of the frame source that is passed with it. The same
    ///   source is passed each time. The tables that an edit frees are in frames of it.
    pub const unsafe fn new(geometry: Geometry, root: Pa, half: Half, bbm: BbmLevel) -> Self {
        Self { context: TreeContext::new(geometry, root, half, bbm) }
    }

    /// Returns the same tree for CPUs that all have invalidations by range (FEAT_TLBIRANGE).
    ///
    /// # Safety
    /// They all have them. Elsewhere the instructions are undefined.
    pub const unsafe fn with_range_invalidation(self) -> Self {
        Self { context: self.context.with_range_invalidation() }
    }

    /// Returns the same tree for CPUs that update its leaves. Plans then change leaves by atomic
    /// updates, and what hardware has updated until a plan is applied stays or is
    /// [reported](crate::CheckedPlan::apply_reporting). [`HardwareUpdates::Off`] changes nothing.
    ///
    /// Such a plan copies up to a table to the stack: 4 KiB with the granule of 4 KiB, 64 KiB with
    /// that of 64 KiB.
    ///
    /// # Safety
    /// - `updates` is at least what TCR or VTCR of any CPU that walks the tree has: HA and HD.
    /// - Every window that a plan is applied through reaches tables as
    ///   [`Cpu::compare_exchange`](linmap_table::cpu::Cpu::compare_exchange) asks.
    pub const unsafe fn with_hardware_updates(self, updates: HardwareUpdates) -> Self {
        Self { context: self.context.with_hardware_updates(updates) }
    }

    /// Returns the same tree for a user space whose TTBR holds `asid`: its invalidations name this
    /// ASID only, and it maps no global leaf.
    ///
    /// # Safety
    /// - The regime has ASIDs: it is EL1&0 or EL2&0.
    /// - No leaf of the tree is global.
    /// - No CPU uses TLB entries of the tree of another ASID: the tree never had another, or each
    ///   CPU invalidates its TLB before it uses that ASID again, as `linmap-asid` requires after a
    ///   rollover.
    pub const unsafe fn in_asid(self, asid: u16) -> Self {
        Self { context: self.context.in_asid(asid) }
    }

    /// Makes invalidations name `asid` from now on, if the tree belongs to one ASID.
    ///
    /// # Safety
    /// As for [`in_asid`](Self::in_asid).
    pub const unsafe fn set_asid(&mut self, asid: u16) {
        if let Scope::Asid(_) = self.context.scope {
            self.context.scope = Scope::Asid(asid);
        }
    }

    /// Returns the ASID of the tree, if it belongs to one.
    pub const fn asid(&self) -> Option<u16> {
        match self.context.scope {
            Scope::Asid(asid) => Some(asid),
            Scope::Every | Scope::Vmid => None,
        }
    }

    /// From now on splits and folds make these leaves. Otherwise they make blocks and contiguous
    /// runs. A fold to pages does nothing. [`plan_map`](Self::plan_map) follows each mapping's
    /// own choice.
    pub const fn set_leaves(&mut self, leaves: Leaves) {
        self.context.leaves = leaves;
    }

    /// The tree's geometry.
    pub const fn geometry(&self) -> Geometry {
        self.context.geometry
    }

    /// The frame of the root table.
    pub const fn root(&self) -> Pa {
        self.context.root
    }

    /// First address that the tree translates.
    pub fn base(&self) -> Va {
        Va(self.context.base())
    }

    /// Returns whether `va` is an address of this half.
    pub(crate) const fn holds(&self, va: Va) -> bool {
        self.context.holds(va.0)
    }

    /// The BBM level that plans rely on.
    pub const fn bbm(&self) -> BbmLevel {
        self.context.bbm
    }

    /// Plans to map `mappings`, with the largest leaves that they allow. New tables are written
    /// now, while nothing leads to them.
    ///
    /// Where a leaf maps the same memory already, it stays as large as it is and takes the
    /// permissions of the mapping: a mapping of all memory after one of its parts leaves the tables
    /// of the parts as they are.
    ///
    /// # Errors
    /// [`PlanError::OtherGeometry`], [`PlanError::OutsideHalf`], [`PlanError::TooLong`],
    /// [`PlanError::OutOfFrames`], [`PlanError::GlobalLeaf`]; where something is mapped,
    /// [`PlanError::MappedOver`] with the rule if more than the permissions would change,
    /// [`PlanError::PartOfLeaf`] if they would change in a part of a leaf, [`PlanError::RunInUse`],
    /// and [`PlanError::EntryInUse`] where an entry is an invalidated leaf.
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
            if mapping.attributes.global && matches!(context.scope, Scope::Asid(_)) {
                return Err(PlanError::GlobalLeaf { va: mapping.va });
            }
        }
        self.plan(Exclusivity::InUse, steps, window, frames, |planner| {
            planner.map(mappings.cursor())?;
            planner.update_atomically();
            Ok(())
        })
    }

    /// Plans to unmap `target`, invalidated leaves included. It may have holes. Leaves that reach
    /// over its ends are split first. Tables that become empty are freed, so every table below the
    /// root in the range must come from the frame source.
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
            if planner.context.by_root {
                return planner.each_root(first, last, RootEdit::Unmap);
            }
            planner.unmap_range(first, last)
        })
    }

    /// Plans to give all of `target` the attributes that `change` names. Other attributes stay.
    /// Leaves that reach over the ends of the range are split into the largest leaves that do not,
    /// unless they have the attributes already.
    ///
    /// Validity is an attribute here. With `valid: Some(false)` a leaf keeps everything but its
    /// valid bit and translates nothing, until `valid: Some(true)` sets that bit again.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::Hole`],
    /// [`PlanError::Attributes`], [`PlanError::WritableAndExecutable`],
    /// [`PlanError::TakenByTables`], [`PlanError::NeedsLevel3`], [`PlanError::RunInUse`],
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
        if !self.context.is_plain || change.is_of_guest() {
            change.check(self.context.geometry, Va(first))?;
        }
        if change.writable_and_executable() && self.context.scope != Scope::Vmid {
            return Err(PlanError::WritableAndExecutable { va: Va(first) });
        }
        self.plan(target.exclusivity(), steps, window, frames, |planner| {
            if planner.context.is_plain {
                planner.protect(first, last, change)
            } else {
                planner.each_root(first, last, RootEdit::Protect(change))
            }
        })
    }

    /// Plans to set the access flag and the software bits of all leaves of `target` as `marks`
    /// says. Splits leaves that reach beyond the range, unless they have these values already.
    ///
    /// # Errors
    /// As for [`plan_protect`](Self::plan_protect), and [`PlanError::NoSuchSoftwareBits`].
    pub fn plan_mark<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        marks: Marks,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.context.bounds(target.range())?;
        let (clear, set) = marks.masks()?;
        self.plan(target.exclusivity(), steps, window, frames, |planner| {
            planner.each_root(first, last, RootEdit::Mark(clear, set))
        })
    }

    /// Plans to make all of `target` translate to the memory from `to` on, and to change the
    /// attributes that `change` names: for copy-on-write, for example. Other attributes and the
    /// sizes of leaves stay. Unless the tree is parked, it does so by break-before-make: the range
    /// is invalid for a short time.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::NoSuchMemory`],
    /// [`PlanError::Hole`], [`PlanError::NeedsBreak`] in use, [`PlanError::PartOfLeaf`] where a
    /// leaf or a run reaches over an end of the range or is larger than the new memory's alignment,
    /// [`PlanError::Attributes`], [`PlanError::TakenByTables`],
    /// [`PlanError::WritableAndExecutable`], [`PlanError::Foreign`], [`PlanError::TooLong`].
    pub fn plan_remap<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        to: Pa,
        change: Change,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.context.bounds(target.range())?;
        let TreeContext { geometry, .. } = self.context;
        let (len, granule, bits) = (target.range().len, geometry.page_bytes(), geometry.pa_bits());
        let end = to.0.checked_add(len - 1).filter(|end| geometry.holds(Pa(*end)));
        if to.0 & (granule - 1) != 0 || end.is_none() {
            return Err(PlanError::NoSuchMemory { to, len, granule, bits });
        }
        let (clear, set) = if self.context.is_plain && !change.is_of_guest() {
            change.masks()
        } else {
            change.check(geometry, Va(first))?;
            change.masks_in(geometry.regime())
        };
        let rewrite = Rewrite { first, to: Some(to), clear, set, reason: Reason::OutputAddress };
        self.plan(target.exclusivity(), steps, window, frames, |planner| {
            if planner.context.by_root {
                return planner.each_root(first, last, RootEdit::Rewrite(rewrite, None));
            }
            planner.rewrite(first, last, &rewrite)
        })
    }

    /// Plans to change the memory type of all of `target` to `memory`: unless the tree is parked,
    /// by break-before-make. Then the plan cleans and invalidates the caches for the range, so no
    /// line of the old type is left.
    ///
    /// # Errors
    /// As for [`plan_remap`](Self::plan_remap); an invalidated leaf is a [`PlanError::Hole`].
    ///
    /// # Safety
    /// - No CPU accesses the range until the plan is applied: a store by one type may not be
    ///   visible to a load by the other.
    /// - After that, unless the new type is cacheable, no CPU accesses the same memory by a
    ///   cacheable mapping. The alias of [`Maintenance::ByAlias`] may be cacheable if it is
    ///   unmapped, or has the new type, before the first access.
    /// - The CPU that applies the plan translates the addresses of `maintenance`.
    pub unsafe fn plan_memory_type<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        memory: MemoryType,
        maintenance: Maintenance,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.context.bounds(target.range())?;
        let geometry = self.context.geometry;
        let regime = geometry.regime();
        let plain = if regime.is_stage_2() { Attributes::GUEST_DEVICE } else { Attributes::DEVICE };
        let attributes = Attributes { memory, ..plain };
        attributes.check_in(geometry)?;
        let mask = if regime.is_stage_2() { 0b1111 << 2 } else { 0b111 << 2 };
        let set = attributes.bits(geometry) & mask;
        let (clear, reason) = (mask & !set, Reason::MemoryType);
        let rewrite = Rewrite { first, to: None, clear, set, reason };
        let by = match maintenance {
            Maintenance::ByMapping => Va(first),
            Maintenance::ByAlias(va) => va,
        };
        self.plan(target.exclusivity(), steps, window, frames, |planner| {
            planner.each_root(first, last, RootEdit::Rewrite(rewrite, Some(by)))
        })
    }

    /// Plans to unmap everything with one invalidation: of the ASID of a user space, of the VMID of
    /// a guest. The plan frees all tables below the root, so they must come from the frame source.
    ///
    /// # Errors
    /// [`PlanError::Foreign`], [`PlanError::TooLong`].
    pub fn plan_clear<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let TreeContext { first, last, .. } = self.context;
        self.plan(Exclusivity::InUse, steps, window, frames, |planner| {
            planner.each_root(first, last, RootEdit::Clear)
        })
    }

    /// Plans to make the leaves in `target` no larger than one entry at `to`: smaller blocks, and
    /// no contiguous bit at `to`. After a split to level 3 single pages can change without a change
    /// of size. Parts of larger leaves outside of the range become the largest leaves possible.
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
            if planner.context.by_root {
                return planner.each_root(first, last, RootEdit::Split(to));
            }
            planner.split(Cut::Down { first, last, to })
        })
    }

    /// Plans to make leaves in `target` as large as addresses and attributes allow: blocks where
    /// all leaves below an entry have the same attributes and consecutive addresses, then
    /// contiguous runs. Every new block and run lies in the range. Tables that blocks replace are
    /// freed, so every table below the root in the range must come from the frame source.
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
        self.plan(target.exclusivity(), steps, window, frames, |planner| match planner.context.leaves {
            Leaves::Pages => Ok(()),
            _ if planner.context.by_root => planner.each_root(first, last, RootEdit::Fold),
            Leaves::Blocks | Leaves::ContiguousBlocks => planner.fold(first, last),
        })
    }

    /// Plans to make all leaves in the range global or not, invalidated ones included. Leaves that
    /// reach over its ends are split into the largest leaves that do not, unless they are global or
    /// not as asked already. The range may be the whole half.
    ///
    /// The regime must have ASIDs. The tree must be parked, since a global leaf that replaces a
    /// non-global one always needs break-before-make (Arm ARM D8.16.1, RWHZWS). The plan has one
    /// step for all leaves, whatever their number.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::Foreign`],
    /// [`PlanError::TooLong`], [`PlanError::OutOfFrames`], [`PlanError::Attributes`].
    pub fn plan_global<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        parked: Parked,
        scope: Global,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.context.bounds(parked.range())?;
        let regime = self.context.geometry.regime();
        if !regime.has_user_space() {
            return Err(AttributeError::NotGlobal { regime }.into());
        }
        let (clear, set) = scope.masks();
        self.plan(Exclusivity::Parked, steps, window, frames, |planner| {
            planner.split(Cut::Ends { first, last, wanted: Some((clear, set)) })?;
            planner.update_atomically();
            planner.every_leaf(EveryLeaf { first: Va(first), last: Va(last), clear, set })
        })
    }

    /// Returns the range worth folding after the leaves in `range` were mapped or changed their
    /// attributes, or `None`. It is what to pass to [`plan_fold`](Self::plan_fold).
    ///
    /// The result is `range` extended to the largest block or run that could arise, and only
    /// entries that could be part of it are read. So the cost is that of one walk where the leaf
    /// beside each end of the range differs, and that of a scan of a whole block where one arises.
    /// For several leaves it may be `Some` although `plan_fold` finds nothing to do. It is `None`
    /// for a range that is not whole pages of this half.
    pub fn foldable<W: TableWindow>(&self, range: VaRange, window: &mut W) -> Option<VaRange> {
        let (first, last) = self.context.bounds(range).ok()?;
        foldable(&self.context, first, last, window)
    }

    /// Runs a planner and returns its steps as a plan. On an error it frees what the planner
    /// allocated.
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
        let foldable = if planner.may_fold { Foldable::Perhaps } else { Foldable::No };
        let outcome = planner.outcome;
        match planned {
            Ok(()) => Ok(Plan::new(&mut self.context, exclusivity, foldable, outcome, script.written())),
            Err(error) => {
                abandon(self.context.geometry, script.written(), window, frames);
                Err(error)
            }
        }
    }

    /// Checks steps from any source against the tree in memory, as [`Plan::check`] does for its own
    /// steps. Every table that replaces a block, or is replaced by one, is compared with that
    /// block.
    ///
    /// # Errors
    /// The first rule broken.
    ///
    /// # Safety
    /// The window reaches every table that the steps link, and all tables below it.
    pub unsafe fn check<W: TableWindow>(
        &self,
        target: Target,
        steps: &[Step],
        window: &mut W,
    ) -> Result<(), Refused> {
        check(&self.context, target.exclusivity(), Author::Anybody, steps, window)
    }
}
