//! Larger leaves: by request, and by the way.
//!
//! A change splits every leaf of which it changes a part, but folds only leaves that lie within its
//! own range. Between the two lies the hysteresis: a page that changes to and fro costs one split,
//! and after that neither splits nor scans. What a change leaves split, [`fold`](LinearMap::fold)
//! makes whole again. Memory that is added joins the leaves around it: it comes once.

use linmap_live::{PlanError, Step, Target};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{PaRange, Va, VaRange};

use super::apply::in_use;
use super::change_error::ChangeError;
use super::changed::Changed;
use super::editor::Editor;
use super::linear_map::LinearMap;
use super::mappable::check_mappable;
use super::request::Request;

impl LinearMap {
    /// Makes the leaves in `range` as large as addresses, attributes and [`leaves`](Self::leaves)
    /// allow, and frees tables that become empty. The alias of the image's text and what
    /// [`keep_pages`](Self::keep_pages) named stay as they are.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn fold<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, ChangeError> {
        self.region.linear(range)?;
        check_mappable(&editor.memory(), range)?;
        if self.leaves == Leaves::Pages {
            return Ok(Changed::default());
        }
        let image = self.image.range();
        let below = PaRange::new(range.start, range.end.min(image.start));
        let above = PaRange::new(range.start.max(image.end), range.end);
        let mut changed = Changed::default();
        for mut left in [below, above] {
            while let Some(part) = self.pages.next_outside(left) {
                changed = changed.and(self.fold_part(editor, steps, part)?);
                left.start = part.end;
            }
        }
        Ok(changed)
    }

    /// Folds `range`, or each half by itself where one plan would be too long. A half stays folded
    /// even if the other can't be.
    fn fold_part<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, ChangeError> {
        match self.change(editor, steps, range, Request::Fold) {
            Err(ChangeError::Plan(PlanError::TooLong { capacity })) => {
                let Some((low, high)) = self.region.halves(range) else {
                    return Err(PlanError::TooLong { capacity }.into());
                };
                let changed = self.fold_part(editor, steps, low)?.and(self.fold_part(editor, steps, high)?);
                // Fold the whole range once more for leaves that are equal across the middle. The
                // plan is short now.
                match self.change(editor, steps, range, Request::Fold) {
                    Err(ChangeError::Plan(PlanError::TooLong { .. })) => Ok(changed),
                    folded => Ok(changed.and(folded?)),
                }
            }
            result => result,
        }
    }

    /// Folds leaves in `range`, linear addresses outside the image's alias, that a change made
    /// equal, if that needs no parking. A fold that fails is skipped: the map translates the same
    /// without it.
    #[inline(never)]
    pub(super) fn fold_inside<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: VaRange,
    ) -> Changed {
        if self.leaves == Leaves::Pages || self.tree.bbm() != BbmLevel::L3 {
            return Changed::default();
        }
        let mut changed = Changed::default();
        let mut left = self.region.physical(range);
        while let Some(part) = self.pages.next_outside(left)
            && let Ok(target) = self.region.linear(part)
        {
            changed = changed.and(self.fold_in_use(editor, steps, target));
            left.start = part.end;
        }
        changed
    }

    /// Folds leaves that memory at `range`, which was added, can join, if that needs no parking. A
    /// fold that fails is skipped.
    #[inline(never)]
    pub(super) fn fold_around<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Changed {
        if self.leaves == Leaves::Pages || self.tree.bbm() != BbmLevel::L3 {
            return Changed::default();
        }
        let Ok(target) = self.region.linear(range) else { return Changed::default() };
        let Some(around) = self.tree.foldable(target, &mut editor.window()) else {
            return Changed::default();
        };
        self.fold_inside(editor, steps, self.without_image(around, target))
    }

    /// Folds `around`, linear addresses outside the image's alias, if the CPUs allow it in use.
    #[inline(never)]
    fn fold_in_use<E: Editor>(&mut self, editor: &mut E, steps: &mut [Step], around: VaRange) -> Changed {
        let mut window = editor.window();
        let plan = Request::Fold.plan(
            &mut self.tree,
            Target::InUse(around),
            steps,
            &mut window,
            &mut editor.frames(),
        );
        match plan {
            Ok(plan) => in_use(editor, &mut window, plan).unwrap_or_default(),
            Err(_) => Changed::default(),
        }
    }

    /// Returns the part of `range` on the same side of the image's alias as `changed`, a part of
    /// `range` outside the alias.
    fn without_image(&self, range: VaRange, changed: VaRange) -> VaRange {
        let image = self.image.range();
        let (alias, alias_end) = (self.layout().linear(image.start).0, self.layout().linear(image.end).0);
        // The linear region does not reach the last address.
        let (start, end) = (range.start.0, range.start.0 + range.len);
        if changed.start.0 < alias {
            VaRange::new(range.start, end.min(alias) - start)
        } else {
            let start = start.max(alias_end);
            VaRange::new(Va(start), end - start)
        }
    }
}
