//! How large leaves are: split, fold, repaint.

use linmap_live::{PlanError, Step, Target};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Level, Pa, PaRange, Va, VaRange};

use super::{ChangeError, Changed, Editor, LinearMap, Request, in_use};

/// What becomes of a map of blocks when a CPU turns out to lack the BBM level that it was painted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Repaint {
    /// The whole map goes to pages, so that no later change has to park.
    #[default]
    Pages,
    /// The map stays as it is, and later splits run parked.
    KeepBlocks,
}

impl Repaint {
    /// The choice named `name` on the command line: `pages`, `keep-blocks`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "pages" => Some(Self::Pages),
            "keep-blocks" => Some(Self::KeepBlocks),
            _ => None,
        }
    }
}

impl LinearMap {
    /// Makes the leaves in `range` no larger than one entry at `to`, without the contiguous bit.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn split<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        to: Level,
    ) -> Result<Changed, ChangeError> {
        let target = self.linear(range)?;
        self.all_mapped(editor.memblock(), range)?;
        self.run(editor, steps, target, Request::Split(to))
    }

    /// Makes the leaves in `range` as large as addresses, attributes and the map's policy allow, and returns the tables that
    /// are not needed any more. The image's alias stays as it is: by pages, so that parts of it can change alone.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn fold<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, ChangeError> {
        self.linear(range)?;
        self.all_mapped(editor.memblock(), range)?;
        if self.leaves == Leaves::Pages {
            return Ok(Changed::default());
        }
        let image = self.image.range();
        let below = PaRange::new(range.start, range.end.min(image.start));
        let above = PaRange::new(range.start.max(image.end), range.end);
        let mut changed = Changed::default();
        for part in [below, above] {
            if !part.is_empty() {
                changed = changed.and(self.fold_part(editor, steps, part)?);
            }
        }
        Ok(changed)
    }

    /// Folds `range`, or each half of it by itself where one plan would be too long. What was folded is right whether or
    /// not the rest can be.
    fn fold_part<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, ChangeError> {
        match self.change(editor, steps, range, Request::Fold) {
            Err(ChangeError::Plan(PlanError::TooLong { capacity })) => {
                let Some((low, high)) = self.halves(range) else {
                    return Err(PlanError::TooLong { capacity }.into());
                };
                let changed = self.fold_part(editor, steps, low)?.and(self.fold_part(editor, steps, high)?);
                // What is alike across the middle is left for a fold of both, which is short now.
                match self.change(editor, steps, range, Request::Fold) {
                    Err(ChangeError::Plan(PlanError::TooLong { .. })) => Ok(changed),
                    folded => Ok(changed.and(folded?)),
                }
            }
            result => result,
        }
    }

    /// The two parts of `range` below and from the address in it that is the multiple of the largest power of two, its ends
    /// apart.
    fn halves(&self, range: PaRange) -> Option<(PaRange, PaRange)> {
        let granule = self.layout.geometry().granule().bytes();
        let (first, last) = (range.start.0, range.end.0 - 1);
        let bit = 63 - (first ^ last).max(1).leading_zeros();
        let middle = last >> bit << bit;
        let whole = 1u64 << bit >= granule && middle > first;
        let middle = Pa(middle);
        whole.then(|| (PaRange::new(range.start, middle), PaRange::new(middle, range.end)))
    }

    /// Folds what a change of `range` made alike, if that needs no parking. A fold that can't be is none that must be: the
    /// map says the same without it.
    #[inline(never)]
    pub(super) fn fold_around<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Changed {
        if self.leaves == Leaves::Pages || self.tree.bbm() != BbmLevel::L3 {
            return Changed::default();
        }
        let Ok(target) = self.linear(range) else { return Changed::default() };
        match self.tree.foldable(target, &mut editor.window()) {
            None => Changed::default(),
            Some(around) => self.fold_in_use(editor, steps, self.without_image(around, target)),
        }
    }

    /// Folds `around`, linear addresses beside the image's alias, if the CPUs can do that in use.
    #[inline(never)]
    fn fold_in_use<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        around: VaRange,
    ) -> Changed {
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

    /// The part of `range` that lies on the same side of the image's alias as `changed`, a part of `range` outside the alias.
    fn without_image(&self, range: VaRange, changed: VaRange) -> VaRange {
        let image = self.image.range();
        let (alias, alias_end) = (self.layout.linear(image.start).0, self.layout.linear(image.end).0);
        // The linear region does not reach the last address.
        let (start, end) = (range.start.0, range.start.0 + range.len);
        if changed.start.0 < alias {
            VaRange::new(range.start, end.min(alias) - start)
        } else {
            let start = start.max(alias_end);
            VaRange::new(Va(start), end - start)
        }
    }

    /// Makes pages of the whole map, with all CPUs parked: what a map of blocks becomes when a CPU lacks the BBM level it was
    /// painted for. All tables are written before anyone parks; the pause is one store for each block of the largest size.
    /// From then on the map keeps to pages.
    ///
    /// # Errors
    /// [`ChangeError`]. What was repainted until then stays so, which says the same.
    pub fn repaint<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
    ) -> Result<Changed, ChangeError> {
        let changed = self.repaint_part(editor, steps, self.reach())?;
        self.leaves = Leaves::Pages;
        Ok(changed)
    }

    fn repaint_part<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, ChangeError> {
        let target = self.linear(range)?;
        match self.run_parked(editor, steps, target, Request::Split(Level::L3)) {
            Err(ChangeError::Plan(PlanError::TooLong { capacity })) => {
                let Some((low, high)) = self.halves(range) else {
                    return Err(PlanError::TooLong { capacity }.into());
                };
                Ok(self.repaint_part(editor, steps, low)?.and(self.repaint_part(editor, steps, high)?))
            }
            result => result,
        }
    }
}
