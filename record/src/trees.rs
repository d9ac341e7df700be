//! Trees that end without an invalidation.
//!
//! A kernel invalidates what a process used while the process still runs, or another CPU lazily
//! walks its tables. It frees the tables below the root then, and the root last, behind no further
//! invalidation. An empty root that no CPU walks leads nowhere, and no TLB holds anything of an
//! entry that is invalid: its frame is as good as free. It is followed again if a CPU walks it.

use crate::followed::{Standing, Table};
use crate::recorder::Recorder;
use crate::regime::Space;
use crate::tree::Tree;

impl Recorder {
    /// `frame` is about to be stored to, or linked as another table: ends the trees of which it is
    /// an empty root that no CPU walks.
    pub(crate) fn leave_empty_trees(&mut self, frame: u64) {
        let first = Tree { root: frame, space: Space::FIRST, id: 0 };
        let mut roots = self.trees.range(first..).map(|(tree, _)| *tree).take_while(|it| it.root == frame);
        let Some(first) = roots.next() else { return };
        let roots: Vec<_> = std::iter::once(first).chain(roots).collect();
        let is_walked = |root: &Tree| self.cpus.iter().any(|cpu| cpu.roots.contains(&Some(*root)));
        if roots.iter().any(is_walked) {
            return;
        }
        let Some(state) = self.frames.get_mut(frame) else { return };
        let is_valid = |at: usize| state.recorded[at].is_none_or(|value| value & 1 == 1);
        if state.tables.iter().flat_map(Table::words).any(is_valid) {
            return;
        }
        for root in roots {
            self.trees.remove(&root);
            self.frames.unrefer(frame);
        }
        if self.frames.get_mut(frame).is_some_and(|state| state.standing != Standing::Linked) {
            self.give_up(frame);
        }
    }
}
