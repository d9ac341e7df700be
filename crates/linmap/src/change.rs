//! The linear map while the machine runs on it: protections, leaf sizes, memory that comes and goes.
//!
//! Every change is planned in use first. Where the CPUs' BBM level does not allow that, the same change is planned parked and
//! applied while no CPU has the tree in a TTBR. Either way nothing has changed when a call returns an error, but for `fold` and
//! `repaint` of so much that it takes several plans: those that were applied say the same as before.

mod editor;
mod fold;
mod global;
mod hotplug;
mod protect;
mod region;

pub use editor::{Editor, ParkError, Pause};
pub use fold::Repaint;
pub use hotplug::MemoryError;
pub use protect::Protection;

use linmap_live::{
    Change, CheckedPlan, Global, Half, LiveTree, Parked, Plan, PlanError, Refused, Step, Target,
};
use linmap_table::{FrameSource, Leaves, Mappings, TableWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Level, Pa, PaRange, Va, VaRange};
use thiserror::Error;

use crate::layout::Layout;
use region::Region;

/// The kernel image as the linear map has to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageParts {
    /// Text and read-only data, whole pages: what no call may change.
    pub read_only: PaRange,
    /// All that is written to, whole pages, right behind.
    pub data: PaRange,
    /// Where the image is mapped for itself.
    pub va: Va,
}

impl ImageParts {
    /// All of the image.
    pub fn range(&self) -> PaRange {
        PaRange { start: self.read_only.start, end: self.data.end }
    }

    /// Where the image's own mapping has `pa`.
    fn own(&self, pa: Pa) -> Va {
        Va(self.va.0 + (pa.0 - self.read_only.start.0))
    }
}

/// What a change did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// Entries of live tables stored.
    pub entries: u64,
    /// TLBI instructions.
    pub invalidations: u64,
    /// Subtrees whose frames went back.
    pub freed: u64,
    /// How often all CPUs parked for it.
    pub parked: u64,
    /// How long they did, in ticks of the virtual counter.
    pub paused: u64,
}

impl Changed {
    /// What this and then `other` did.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            invalidations: self.invalidations + other.invalidations,
            freed: self.freed + other.freed,
            parked: self.parked + other.parked,
            paused: self.paused + other.paused,
        }
    }
}

/// Why nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ChangeError {
    /// The range is empty or not made of whole pages.
    #[error("{range}: not one or more whole pages of {granule:#x} bytes")]
    Unaligned {
        /// The range asked for.
        range: PaRange,
        /// The granule in bytes.
        granule: u64,
    },
    /// The linear region does not reach all of the range.
    #[error("{range} leaves the linear region, which has {reach}")]
    OutOfReach {
        /// The range asked for.
        range: PaRange,
        /// The physical addresses with a linear address.
        reach: PaRange,
    },
    /// There is no memory.
    #[error("{pa} in {range} is no memory")]
    NotMemory {
        /// The range asked for.
        range: PaRange,
        /// First address that is none.
        pa: Pa,
    },
    /// The memory must not be mapped.
    #[error("{pa} in {range} is no-map: the firmware keeps it")]
    NoMap {
        /// The range asked for.
        range: PaRange,
        /// First such address.
        pa: Pa,
    },
    /// The range holds the kernel's text or read-only data, which stay as they are.
    #[error("{range} holds text or read-only data of the kernel image, which are at {image}")]
    ImageText {
        /// The range asked for.
        range: PaRange,
        /// Text and read-only data.
        image: PaRange,
    },
    /// The range is partly in the kernel image and partly not.
    #[error("{range} is only partly in the kernel image's data at {image}, which is mapped twice")]
    PartlyImage {
        /// The range asked for.
        range: PaRange,
        /// The image's data.
        image: PaRange,
    },
    /// There is no plan for it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan was refused by the check, which is a bug of the planner.
    #[error("the plan was refused: {0}")]
    Refused(#[from] Refused),
    /// Not all CPUs left the map.
    #[error(transparent)]
    Park(#[from] ParkError),
}

/// The linear map in use: the tree that it is a part of, and what may be done to it.
#[derive(Debug)]
pub struct LinearMap {
    tree: LiveTree,
    layout: Layout,
    region: Region,
    image: ImageParts,
    leaves: Leaves,
    global: Global,
}

/// A change as a value.
#[derive(Clone, Copy, Debug)]
enum Request<'m> {
    Map(&'m Mappings<'m>),
    Unmap,
    Protect(Change),
    Split(Level),
    Fold,
}

impl Request<'_> {
    #[inline(always)]
    fn plan<'b, W: TableWindow, F: FrameSource>(
        self,
        tree: &'b mut LiveTree,
        target: Target,
        steps: &'b mut [Step],
        window: &mut W,
        frames: &mut F,
    ) -> Result<Plan<'b>, PlanError> {
        match self {
            Self::Map(mappings) => tree.plan_map(mappings, steps, window, frames),
            Self::Unmap => tree.plan_unmap(target, steps, window, frames),
            Self::Protect(change) => tree.plan_protect(target, change, steps, window, frames),
            Self::Split(to) => tree.plan_split(target, to, steps, window, frames),
            Self::Fold => tree.plan_fold(target, steps, window, frames),
        }
    }
}

impl LinearMap {
    /// The linear map that lies in `tree`, laid out by `layout`, painted from leaves as `leaves` allows, all of them
    /// global.
    pub fn new(tree: LiveTree, layout: Layout, image: ImageParts, leaves: Leaves) -> Self {
        Self { tree, layout, region: Region::new(layout), image, leaves, global: Global::Global }
    }

    /// Relies from now on on CPUs of which the least has BBM level `bbm`, and that all have invalidations by range or not.
    ///
    /// # Safety
    /// Every CPU that walks the tree must have that.
    pub unsafe fn rely_on(&mut self, bbm: BbmLevel, range_invalidation: bool) {
        // SAFETY: the same tree, by the word of whoever made it first, and still changed by this value alone; the level is
        // the caller's.
        let tree = unsafe { LiveTree::new(self.tree.geometry(), self.tree.root(), Half::High, bbm) };
        self.tree = if range_invalidation { tree.with_range_invalidation() } else { tree };
    }

    /// The tree.
    pub fn tree(&self) -> &LiveTree {
        &self.tree
    }

    /// Where everything is.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What leaves the map may be made of.
    pub fn leaves(&self) -> Leaves {
        self.leaves
    }

    /// Whether translations are global.
    pub fn global(&self) -> Global {
        self.global
    }

    /// Runs a change of the linear addresses of `range`. A hole in it is no memory, or memory that must not be mapped.
    #[inline]
    fn change<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        request: Request<'_>,
    ) -> Result<Changed, ChangeError> {
        let target = self.linear(range)?;
        match self.run(editor, steps, target, request) {
            Err(error) => Err(self.explained(editor.memblock(), range, error)),
            changed => changed,
        }
    }

    /// Plans, checks and applies `request` on `range`: in use where that can be, else parked.
    #[inline(always)]
    fn run<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: VaRange,
        request: Request<'_>,
    ) -> Result<Changed, ChangeError> {
        let mut window = editor.window();
        let target = Target::InUse(range);
        let plan = request.plan(&mut self.tree, target, steps, &mut window, &mut editor.frames());
        match plan {
            Ok(plan) => in_use(editor, &mut window, plan),
            Err(error) => self.run_otherwise(editor, steps, range, request, error),
        }
    }

    /// Runs `request` on `range` with all CPUs parked where `error` says that it can't be planned in use.
    #[cold]
    #[inline(never)]
    fn run_otherwise<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: VaRange,
        request: Request<'_>,
        error: PlanError,
    ) -> Result<Changed, ChangeError> {
        match error {
            PlanError::NeedsLevel3 { .. } | PlanError::RunInUse { .. } => {
                self.run_parked(editor, steps, range, request)
            }
            _ => Err(error.into()),
        }
    }

    /// Plans, checks and applies `request` on `range` with all CPUs parked.
    #[cold]
    #[inline(never)]
    fn run_parked<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: VaRange,
        request: Request<'_>,
    ) -> Result<Changed, ChangeError> {
        let mut window = editor.window();
        // SAFETY: the plan is applied by `parked` alone, in `Editor::park`.
        let target = Target::Parked(unsafe { Parked::new(range) });
        let plan = request.plan(&mut self.tree, target, steps, &mut window, &mut editor.frames())?;
        parked(editor, plan)
    }
}

/// Checks `plan`, or gives back what it took.
#[inline(always)]
fn checked<'b, const N: usize, E: Editor<N>>(
    editor: &mut E,
    window: &mut E::Window,
    plan: Plan<'b>,
) -> Result<CheckedPlan<'b>, ChangeError> {
    match plan.check(window) {
        Ok(checked) => Ok(checked),
        Err((plan, refused)) => {
            plan.abandon(window, &mut editor.frames());
            Err(refused.into())
        }
    }
}

/// Checks and applies `plan` while the map is in use, through the window that it was planned through.
#[inline(always)]
fn in_use<const N: usize, E: Editor<N>>(
    editor: &mut E,
    window: &mut E::Window,
    plan: Plan<'_>,
) -> Result<Changed, ChangeError> {
    if plan.steps().is_empty() {
        return Ok(Changed::default());
    }
    let checked = checked(editor, window, plan)?;
    editor.planned(checked.steps());
    // SAFETY: the window is the one of planning, and the tree has been borrowed since; what is mapped is memory, which may be
    // accessed; that nobody uses what loses a permission is up to who calls for the change.
    let applied = unsafe { checked.apply(window, editor.cpu()) };
    let removes_tables = applied.removes_tables();
    let counts = if removes_tables { applied.free(window, &mut editor.frames()) } else { applied.counts() };
    let (entries, invalidations, freed) = (counts.entries, counts.invalidations, counts.freed);
    Ok(Changed { entries, invalidations, freed, ..Changed::default() })
}

/// Checks `plan` and applies it with all CPUs parked.
fn parked<const N: usize, E: Editor<N>>(editor: &mut E, plan: Plan<'_>) -> Result<Changed, ChangeError> {
    if plan.steps().is_empty() {
        return Ok(Changed::default());
    }
    let mut window = editor.window();
    let mut waiting = Some(checked(editor, &mut window, plan)?);
    // SAFETY: as in `in_use`; and `Editor::park` promises what `Parked::new` asks for.
    let result = editor.park(|window, cpu| waiting.take().map(|plan| unsafe { plan.apply(window, cpu) }));
    match result {
        Ok((applied, pause)) => {
            let counts = applied.map(|applied| {
                editor.applied_parked(applied.steps());
                applied.free(&mut window, &mut editor.frames())
            });
            let counts = counts.unwrap_or_default();
            let (entries, invalidations, freed) = (counts.entries, counts.invalidations, counts.freed);
            Ok(Changed { entries, invalidations, freed, parked: 1, paused: pause.ticks })
        }
        Err(error) => {
            if let Some(plan) = waiting {
                plan.abandon(&mut window, &mut editor.frames());
            }
            Err(error.into())
        }
    }
}
