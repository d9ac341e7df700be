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

    /// Splits `range` to pages and keeps it so: no later fold makes its pages larger, and memory
    /// that comes back there is mapped by pages. [`LinearMapConfig::pages`] does the same from the
    /// build on, without a split.
    ///
    /// [`LinearMapConfig::pages`]: crate::LinearMapConfig::pages
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn keep_pages<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, ChangeError> {
        let mut pages = self.pages.clone();
        pages.insert(range)?;
        let changed = self.split(editor, steps, range, Level::L3)?;
        self.pages = pages;
        Ok(changed)
    }

    /// Lets later folds make the leaves in `range` larger again. Nothing is changed yet.
    ///
    /// # Errors
    /// [`ChangeError::Unaligned`], [`ChangeError::OutOfReach`], and
    /// [`ChangeError::TooManyPageRanges`] if what is left on both sides has no room.
    pub fn allow_blocks(&mut self, range: PaRange) -> Result<(), ChangeError> {
        self.region.linear(range)?;
        Ok(self.pages.remove(range)?)
    }
}
