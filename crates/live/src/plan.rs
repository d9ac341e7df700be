//! A planned edit.

use linmap_vmsa::{Decoded, Descriptor, Geometry};

use crate::exclusivity::Exclusivity;
use crate::step::{Edit, Step, Store};
use crate::tree_context::TreeContext;
use crate::update::Update;
use linmap_table::FrameSource;
use linmap_table::TableWindow;
use linmap_table::release_below;

/// A planned edit. Nothing that hardware walks has changed yet.
///
/// Dropping one leaks the frames of its new tables: apply or [`abandon`](Self::abandon) it.
#[must_use = "a plan that is neither applied nor abandoned leaks its frames"]
#[derive(Debug)]
pub struct Plan<'b> {
    /// The tree, which nothing else can change while the plan borrows it.
    context: &'b mut TreeContext,
    exclusivity: Exclusivity,
    foldable: Foldable,
    outcome: Outcome,
    steps: &'b [Step],
}

/// Whether leaves may become larger where a plan changes attributes.
// Two bytes, like `Outcome`, so that a plan has no padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(crate) enum Foldable {
    /// No larger leaf could lie in the plan's range.
    No,
    /// Unknown.
    Perhaps,
}

/// What a plan leaves of what its range translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(crate) enum Outcome {
    /// Everything that was valid is valid again at the end.
    Mapped,
    /// Entries may be invalid at the end.
    Unmapped,
}

impl<'b> Plan<'b> {
    #[inline(always)]
    pub(crate) fn new(
        context: &'b mut TreeContext,
        exclusivity: Exclusivity,
        foldable: Foldable,
        outcome: Outcome,
        steps: &'b [Step],
    ) -> Self {
        Self { context, exclusivity, foldable, outcome, steps }
    }

    /// Returns whether leaves in the plan's range may become larger when the plan, which changes
    /// attributes, is applied: whether it pays to fold that range. Leaves that reach beyond the
    /// range are not considered.
    #[inline(always)]
    pub fn may_fold(&self) -> bool {
        self.foldable == Foldable::Perhaps
    }

    /// Returns the steps, in order. The slice is empty when nothing has to change.
    #[inline(always)]
    pub fn steps(&self) -> &[Step] {
        self.steps
    }

    #[inline(always)]
    pub(crate) fn exclusivity(&self) -> Exclusivity {
        self.exclusivity
    }

    #[inline(always)]
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome
    }

    #[inline(always)]
    pub(crate) fn context(&self) -> &TreeContext {
        self.context
    }

    /// Frees the new tables.
    #[inline(always)]
    pub fn abandon<W: TableWindow, F: FrameSource>(self, window: &mut W, frames: &mut F) {
        abandon(self.context().geometry, self.steps, window, frames);
    }
}

/// Frees the new tables that `steps` link.
#[cold]
#[inline(never)]
pub(crate) fn abandon<W: TableWindow, F: FrameSource>(
    geometry: Geometry,
    steps: &[Step],
    window: &mut W,
    frames: &mut F,
) {
    for step in steps {
        let Step::Store(Store { level, count, edit, .. }) = step else { continue };
        if !matches!(edit, Edit::Write { .. } | Edit::Update(Update::Link { .. })) {
            continue;
        }
        let Some(next) = level.next() else { continue };
        for nth in 0..usize::from(*count) {
            if let Decoded::Table(table) = edit.of(Descriptor::INVALID, nth).decode(geometry, *level) {
                // SAFETY: the planner allocated the frames and wrote the tables; no store that
                // links them was applied. By the promise of `LiveTree::new` the window reaches them
                // and the source is theirs.
                unsafe {
                    release_below(geometry, table, next, window, frames);
                    frames.free(table);
                }
            }
        }
    }
}
