//! A change as a value, and how it is planned.

use linmap_live::{Change, LiveTree, Plan, PlanError, Step, Target};
use linmap_table::{FrameSource, Mappings, TableWindow};
use linmap_vmsa::Level;

/// A change as a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'m> {
    Map(&'m Mappings<'m>),
    Unmap,
    Protect(Change),
    Split(Level),
    Fold,
}

impl Request<'_> {
    #[inline(always)]
    pub fn plan<'b, W: TableWindow, F: FrameSource>(
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
