//! Edits of trees whose root may consist of several tables (stage 2).

use linmap_table::{FrameSource, TableWindow};
use linmap_vmsa::{Level, Va};

use crate::change::Change;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::rewrite::Rewrite;
use crate::split::Cut;

/// An edit of a range of addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RootEdit {
    /// Rewrites leaves, and cleans and invalidates caches by this address of the first byte, if
    /// there is one.
    Rewrite(Rewrite, Option<Va>),
    /// Unmaps everything by one invalidation of everything.
    Clear,
    Unmap,
    Protect(Change),
    /// Clears the first bits and sets the second in every leaf.
    Mark(u64, u64),
    Split(Level),
    Fold,
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans the edit of `first..=last` in each root table by itself: no leaf, table or run reaches
    /// from one into the next.
    // Out of line, so that edits of other trees are as short as they were.
    #[cold]
    #[inline(never)]
    pub fn each_root(&mut self, first: u64, last: u64, edit: RootEdit) -> Result<(), PlanError> {
        let mut from = first;
        loop {
            let to = if self.context.concatenated { self.context.root_end(from).min(last) } else { last };
            self.root_start = self.script.len();
            match edit {
                RootEdit::Rewrite(rewrite, by) => {
                    self.rewrite(from, to, &rewrite)?;
                    if let Some(by) = by {
                        let by = by.0.wrapping_add(from.wrapping_sub(rewrite.first));
                        self.maintain(Va(by), to.wrapping_sub(from).wrapping_add(1))?;
                    }
                }
                RootEdit::Clear => {
                    self.spans.overflow(from);
                    self.unmap(from, to)?;
                }
                RootEdit::Unmap => self.unmap_range(from, to)?,
                RootEdit::Protect(change) => self.protect_in_regime(from, to, change)?,
                RootEdit::Mark(clear, set) => self.mark(from, to, clear, set)?,
                RootEdit::Split(level) => self.split(Cut::Down { first: from, last: to, to: level })?,
                RootEdit::Fold => self.fold_any(from, to)?,
            }
            if to == last {
                self.finish()?;
                self.update_atomically();
                self.script.frees_come_last();
                return Ok(());
            }
            from = to.wrapping_add(1);
        }
    }
}
