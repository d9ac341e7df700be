//! Smaller leaves.

use linmap_live::Step;
use linmap_vmsa::{Level, PaRange};

use super::change_error::ChangeError;
use super::changed::Changed;
use super::editor::Editor;
use super::linear_map::LinearMap;
use super::mappable::check_mappable;
use super::request::Request;

impl LinearMap {
    /// Makes the leaves in `range` no larger than one entry at `to`, without the contiguous bit.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn split<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        to: Level,
    ) -> Result<Changed, ChangeError> {
        let target = self.region.linear(range)?;
        check_mappable(&editor.memory(), range)?;
        self.run(editor, steps, target, Request::Split(to))
    }
}
