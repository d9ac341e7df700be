//! Live trees: tables that hardware walks while they are changed.
//!
//! Every change is *plan → check → apply*. A [`Plan`] is data: stores, barriers and invalidations, with all frames taken and
//! all new tables written, so that applying cannot fail. The check runs through it beside the memory as it is and refuses
//! what the CPUs' BBM level forbids. Applying is the only code that touches live tables.

mod apply;
mod check;
mod entry;
mod fold;
mod history;
mod invalidate;
mod map;
mod plan;
mod planner;
mod protect;
mod refused;
mod split;
mod unmap;

pub use apply::{Applied, CheckedPlan};
pub use invalidate::MAX_INVALIDATIONS;
pub use plan::{Edit, Invalidation, Plan, Reach, Step, Store};
pub use protect::Change;
pub use refused::{Refused, Violation};

use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Geometry, Level, Pa, Va, VaRange};
use thiserror::Error;

use crate::detached::EntryInUse;
use crate::frames::{FrameSource, OutOfFrames};
use crate::mapping::Mappings;
use crate::walk::read;
use crate::window::TableWindow;
use planner::{Planner, Script};
use split::Cut;

/// Which half of the VA space a tree translates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Half {
    /// From 0 on: the tree of a TTBR0.
    Low,
    /// Up to 2^64: the tree of a TTBR1.
    High,
}

/// What is known of a live tree, as a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Regime {
    pub geometry: Geometry,
    pub root: Pa,
    pub half: Half,
    pub bbm: BbmLevel,
    pub range_invalidation: bool,
}

/// A table on the way down a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub table: Pa,
    pub level: Level,
    /// First address that the table translates.
    pub base: u64,
}

impl Regime {
    /// The root table.
    pub fn top(&self) -> Node {
        Node { table: self.root, level: self.geometry.start_level(), base: self.base() }
    }

    /// The lowest table that the walk from `node` on for `va`, an address that `node` translates, comes to by entries of `1 << shift` bytes for which
    /// `goes_on(shift)`. Of an entry of a table and what stands there in memory `value` makes what is walked.
    #[inline]
    pub fn descend<W: TableWindow>(
        &self,
        mut node: Node,
        window: &mut W,
        va: u64,
        goes_on: impl Fn(u32) -> bool,
        value: impl Fn(Pa, usize, Descriptor) -> Descriptor,
    ) -> Node {
        let mut shift = self.geometry.shift(node.level);
        while let Some(level) = node.level.next()
            && goes_on(shift)
        {
            let index = ((va - node.base) >> shift) as usize;
            let memory = read(window, node.level, node.table, index);
            let Some(table) = value(node.table, index, memory).next_table(self.geometry) else { break };
            node = Node { table, level, base: va >> shift << shift };
            shift -= self.geometry.granule().index_bits();
        }
        node
    }

    /// First address that the root table translates.
    pub fn base(&self) -> u64 {
        match self.half {
            Half::Low => 0,
            Half::High => u64::MAX << self.geometry.va_bits(),
        }
    }

    /// The first and the last address of `range`, if it is made of whole pages of this half.
    pub fn bounds(&self, range: VaRange) -> Result<(u64, u64), PlanError> {
        let granule = self.geometry.granule().bytes();
        if range.len == 0 || (range.start.0 | range.len) & (granule - 1) != 0 {
            return Err(PlanError::Unaligned { range, granule });
        }
        let bits = self.geometry.va_bits();
        let half = self.base() >> bits;
        match range.last() {
            Some(last) if last.0 >> bits == half && range.start.0 >> bits == half => {
                Ok((range.start.0, last.0))
            }
            _ => Err(PlanError::OutsideHalf { range, base: Va(self.base()), bits }),
        }
    }

    /// How many entries at `level` make a contiguous run, where the table is long enough for one.
    pub fn run(&self, level: Level) -> Option<usize> {
        self.geometry.contiguous_entries(level).filter(|run| *run <= self.geometry.entries(level))
    }
}

/// A tree in the TTBR of running CPUs.
///
/// The value is the right to change the tree: it can't be copied, and a plan borrows it until it is applied or abandoned, so
/// that no plan is ever out of date.
#[derive(Debug)]
pub struct LiveTree {
    regime: Regime,
}

/// The caller's word that nobody uses a range of addresses while it is edited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quiescent {
    range: VaRange,
}

impl Quiescent {
    /// The word for `range`.
    ///
    /// # Safety
    /// From planning until the plan is applied or abandoned no CPU may access an address in the range, nor one that shares a
    /// block or a contiguous run with an address in the range: no code, no stack, no vector, no data, and no table window
    /// may lie there.
    pub const unsafe fn new(range: VaRange) -> Self {
        Self { range }
    }
}

/// The addresses that an edit is about, and who uses them meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// CPUs may access every address that stays mapped at any moment. Leaves change their size at BBM level 3 alone.
    InUse(VaRange),
    /// No CPU accesses the range meanwhile. Leaves change their size at every BBM level, by the procedure that it asks for.
    Quiescent(Quiescent),
}

impl Target {
    /// The addresses.
    pub const fn range(self) -> VaRange {
        match self {
            Self::InUse(range) => range,
            Self::Quiescent(quiescent) => quiescent.range,
        }
    }

    const fn is_quiescent(self) -> bool {
        matches!(self, Self::Quiescent(_))
    }
}

/// Why an edit can't be planned. The tree is as before, and every frame taken is back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PlanError {
    /// The range is empty or not made of whole pages.
    #[error("{range}: not whole pages of {granule:#x} bytes")]
    Unaligned {
        /// The range asked for.
        range: VaRange,
        /// The granule in bytes.
        granule: u64,
    },
    /// The range leaves the half of the address space that the tree translates.
    #[error("{range} leaves the {bits} bits from {base} on that the tree translates")]
    OutsideHalf {
        /// The range asked for.
        range: VaRange,
        /// First address of the half.
        base: Va,
        /// The VA size in bits.
        bits: u8,
    },
    /// The mappings were checked against another geometry.
    #[error("the mappings are for {mappings:?}, the tree has {tree:?}")]
    OtherGeometry {
        /// The geometry of the mappings.
        mappings: Geometry,
        /// The geometry of the tree.
        tree: Geometry,
    },
    /// The plan needs more steps than the caller's list holds. Edit less at once, or give more room.
    #[error("the plan needs more than the {capacity} steps there is room for")]
    TooLong {
        /// The length of the caller's list.
        capacity: usize,
    },
    /// No frame is left for a table.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
    /// Something is mapped already where the edit maps.
    #[error(transparent)]
    EntryInUse(#[from] EntryInUse),
    /// Nothing is mapped at an address whose attributes should change.
    #[error("nothing is mapped at {va}, so its attributes can't change")]
    Hole {
        /// First address without translation.
        va: Va,
    },
    /// An entry that linmap never writes: a reserved encoding, a run whose entries differ, a contiguous bit where linmap
    /// makes no runs, a block that another procedure left with nT.
    #[error(
        "entry {index} of the level {level} table at {table}, for {va}, is {found:?}, which is nothing linmap writes"
    )]
    Foreign {
        /// First address that the entry translates.
        va: Va,
        /// The live table.
        table: Pa,
        /// The table's level.
        level: Level,
        /// The entry's index.
        index: usize,
        /// What stands there.
        found: Descriptor,
    },
    /// The change would let memory be both written and executed.
    #[error("{va} would be writable and executable")]
    WritableAndExecutable {
        /// First such address.
        va: Va,
    },
    /// A contiguous run would have to change while it is in use, one entry after the other.
    #[error(
        "the contiguous run for {va} would change while it is in use, which BBM level 0 can't do (D8.7.1): level 1 can"
    )]
    RunInUse {
        /// First address of the run.
        va: Va,
    },
    /// A leaf would have to change its size while it is in use.
    #[error(
        "the leaf for {va} would change its size while it is in use, which BBM level {} can't do (D8.16.2): level 3 can",
        bbm.number()
    )]
    NeedsLevel3 {
        /// First address of the leaf or run.
        va: Va,
        /// The level that the CPUs have.
        bbm: BbmLevel,
    },
}

impl LiveTree {
    /// The tree whose root table is in frame `root` and stands in the TTBR of `half`, on CPUs of which the least has BBM
    /// level `bbm`.
    ///
    /// # Safety
    /// The root must stand in a TTBR with this geometry, or be ready to; only this value may change the tree from now on;
    /// and CPUs must have hardware updates of the access flag and of dirty state off, as [`linmap_vmsa::registers::tcr`]
    /// leaves them.
    pub const unsafe fn new(geometry: Geometry, root: Pa, half: Half, bbm: BbmLevel) -> Self {
        Self { regime: Regime { geometry, root, half, bbm, range_invalidation: false } }
    }

    /// The same tree on CPUs that all have invalidations by range (FEAT_TLBIRANGE).
    pub const fn with_range_invalidation(self) -> Self {
        Self { regime: Regime { range_invalidation: true, ..self.regime } }
    }

    /// The tree's shape.
    pub const fn geometry(&self) -> Geometry {
        self.regime.geometry
    }

    /// The frame of the root table.
    pub const fn root(&self) -> Pa {
        self.regime.root
    }

    /// First address that the tree translates.
    pub fn base(&self) -> Va {
        Va(self.regime.base())
    }

    /// The BBM level that plans rely on.
    pub const fn bbm(&self) -> BbmLevel {
        self.regime.bbm
    }

    /// Plans to map `mappings` where nothing is mapped yet, using the largest leaves that they allow. New tables are
    /// written now, while nothing leads to them.
    ///
    /// # Errors
    /// [`PlanError::OtherGeometry`], [`PlanError::OutsideHalf`], [`PlanError::EntryInUse`] where something is mapped or
    /// an invalidated leaf stands, [`PlanError::TooLong`], [`PlanError::OutOfFrames`].
    pub fn plan_map<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        mappings: &Mappings<'_>,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let regime = self.regime;
        if mappings.geometry() != regime.geometry {
            return Err(PlanError::OtherGeometry { mappings: mappings.geometry(), tree: regime.geometry });
        }
        for mapping in mappings.list() {
            regime.bounds(VaRange::new(mapping.va, mapping.len))?;
        }
        self.plan(false, steps, window, frames, |planner| planner.map(mappings.cursor()))
    }

    /// Plans to unmap `target`, invalidated leaves included; parts that are not mapped stay so. Leaves that reach beyond are
    /// split first. Tables that become empty are freed, so every table below the root in the range must come from
    /// the frame source.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::NeedsLevel3`], [`PlanError::Foreign`],
    /// [`PlanError::TooLong`], [`PlanError::OutOfFrames`].
    pub fn plan_unmap<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.regime.bounds(target.range())?;
        self.plan(target.is_quiescent(), steps, window, frames, |planner| {
            planner.split(Cut::Ends { first, last, wanted: None })?;
            planner.order_runs()?;
            planner.unmap(first, last)
        })
    }

    /// Plans to give all of `target` the attributes that `change` names and to leave its other attributes alone. Leaves that
    /// reach beyond are split no further than needed, unless they have the attributes already.
    ///
    /// Validity is an attribute here: with `valid: Some(false)` a leaf keeps everything but its valid bit, translates
    /// nothing, and comes back with `valid: Some(true)`.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::Hole`], [`PlanError::WritableAndExecutable`],
    /// [`PlanError::NeedsLevel3`], [`PlanError::RunInUse`], [`PlanError::Foreign`], [`PlanError::TooLong`], [`PlanError::OutOfFrames`].
    pub fn plan_protect<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        change: Change,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.regime.bounds(target.range())?;
        if change.writable_and_executable() {
            return Err(PlanError::WritableAndExecutable { va: Va(first) });
        }
        self.plan(target.is_quiescent(), steps, window, frames, |planner| {
            planner.split(Cut::Ends { first, last, wanted: Some(change.masks()) })?;
            planner.order_runs()?;
            planner.protect(first, last, change)
        })
    }

    /// Plans to make the leaves in `target` no larger than one entry at `to`, without the contiguous bit where it would make
    /// them larger. Whoever has to change single pages later without changing sizes splits to level 3. Parts of larger
    /// leaves outside of the range stay as large as they can.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::NeedsLevel3`], [`PlanError::Foreign`],
    /// [`PlanError::TooLong`], [`PlanError::OutOfFrames`].
    pub fn plan_split<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        to: Level,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.regime.bounds(target.range())?;
        self.plan(target.is_quiescent(), steps, window, frames, |planner| {
            planner.split(Cut::Down { first, last, to })
        })
    }

    /// Plans to make leaves in `target` as large as addresses and attributes allow: blocks where all below is alike and
    /// consecutive, contiguous runs of what is left. Only blocks and runs that lie in the range whole are made. Tables
    /// that are no longer needed are freed, so every table below the root in the range must come from the frame source.
    ///
    /// # Errors
    /// [`PlanError::Unaligned`], [`PlanError::OutsideHalf`], [`PlanError::NeedsLevel3`], [`PlanError::TooLong`].
    pub fn plan_fold<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        target: Target,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        let (first, last) = self.regime.bounds(target.range())?;
        self.plan(target.is_quiescent(), steps, window, frames, |planner| planner.fold(first, last))
    }

    /// Runs a planner; on an error what it took is given back.
    fn plan<'b, W: TableWindow, F: FrameSource>(
        &'b mut self,
        quiescent: bool,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
        edit: impl FnOnce(&mut Planner<'_, '_, W, F>) -> Result<(), PlanError>,
    ) -> Result<Plan<'b>, PlanError> {
        let regime = self.regime;
        let mut script = Script::new(steps);
        let mut planner = Planner::new(regime, quiescent, &mut script, window, frames);
        let result = edit(&mut planner).and_then(|()| planner.finish());
        let plan = Plan::new(self, quiescent, script.into_steps());
        match result {
            Ok(()) => Ok(plan),
            Err(error) => {
                plan.abandon(window, frames);
                Err(error)
            }
        }
    }

    /// Whether the steps may be applied to the tree as it is: what [`Plan::check`] does, for steps from anywhere.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check<W: TableWindow>(
        &self,
        target: Target,
        steps: &[Step],
        window: &mut W,
    ) -> Result<(), Refused> {
        check::check(self.regime, target.is_quiescent(), steps, window)
    }
}
