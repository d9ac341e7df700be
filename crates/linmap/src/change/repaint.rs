//! From blocks to pages, for CPUs that can't split blocks in use.

use linmap_live::{PlanError, Step};
use linmap_table::Leaves;
use linmap_vmsa::{Level, PaRange};

use super::change_error::ChangeError;
use super::changed::Changed;
use super::editor::Editor;
use super::linear_map::LinearMap;
use super::request::Request;

/// What happens to a map of blocks when a CPU lacks the BBM level that it was built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Repaint {
    /// The whole map is repainted to pages, so that no later change has to park.
    #[default]
    Pages,
    /// The map stays as it is, and later splits run parked.
    KeepBlocks,
}

impl Repaint {
    /// Returns the choice named `name`: `pages` or `keep-blocks`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "pages" => Some(Self::Pages),
            "keep-blocks" => Some(Self::KeepBlocks),
            _ => None,
        }
    }
}

impl LinearMap {
    /// Splits the whole map to pages, with all CPUs parked: for a map of blocks when a CPU lacks
    /// the BBM level that it was built for. All tables are written before any CPU parks, so the
    /// pause is one store for each block of the largest size. From then on the map is made of
    /// pages alone.
    ///
    /// # Errors
    /// [`ChangeError`]. What was repainted before stays repainted, and translates the same.
    pub fn repaint<E: Editor>(&mut self, editor: &mut E, steps: &mut [Step]) -> Result<Changed, ChangeError> {
        let changed = self.repaint_part(editor, steps, self.region.reach())?;
        self.leaves = Leaves::Pages;
        self.tree.set_leaves(Leaves::Pages);
        Ok(changed)
    }

    fn repaint_part<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, ChangeError> {
        let target = self.region.linear(range)?;
        match self.run_parked(editor, steps, target, Request::Split(Level::L3)) {
            Err(ChangeError::Plan(PlanError::TooLong { capacity })) => {
                let Some((low, high)) = self.region.halves(range) else {
                    return Err(PlanError::TooLong { capacity }.into());
                };
                Ok(self.repaint_part(editor, steps, low)?.and(self.repaint_part(editor, steps, high)?))
            }
            result => result,
        }
    }
}
