//! Access that software took back, and that CPUs may still have when the thread which took it back
//! returns to EL0.
//!
//! No rule says by when a TLBI has to follow. But a kernel that returns to the program which asked
//! it to take access back, as by mprotect or munmap, has nothing left to do for it. So what is
//! cached then was forgotten, or is meant to be invalidated by somebody else. The model counts it
//! by instruction, and reports no violation.
//!
//! Counted are leaves that allowed EL0 something and are invalid or allow less, and leaves of the
//! kernel that stay valid and allow less. A leaf of the kernel that is invalid is not: nobody uses
//! its address before it is mapped again, and kernels collect such addresses on purpose.

use crate::cached::{CachedSpaces, Held};
use crate::descriptor::{Entry, Leaf, read};
use crate::limits::Limits;
use crate::machine::{Machine, Root};
use crate::space::{Shape, Space};
use crate::taken::{Edit, TakenBack};

/// What CPUs may still hold of what `edit` changed.
fn record_of<'a>(edit: &Edit, cached: &'a CachedSpaces, roots: &[Root]) -> Option<&'a Held> {
    let space = roots[edit.root as usize].space;
    cached.of(space).replaced_at((edit.root, edit.level, edit.va), edit.old, edit.at)
}

/// What a leaf allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rights {
    /// EL0 to read, write and execute: one bit each.
    user: u8,
    /// EL1 to write and execute; it may always read.
    kernel: u8,
}

impl Rights {
    fn of(leaf: &Leaf, shape: Shape, space: Space) -> Self {
        let has = |bit: u8| leaf.permissions & bit != 0;
        let [is_user, is_writable] = [shape.has_el0 && has(Leaf::UNPRIVILEGED), !has(Leaf::READ_ONLY)];
        let executes = leaf.executable(shape, space) == Some(true);
        let bits = |flags: [bool; 3]| flags.iter().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        Self {
            user: bits([is_user, is_user && is_writable, shape.has_el0 && !has(Leaf::XN)]),
            kernel: bits([false, is_writable, executes]),
        }
    }

    fn is_more_than(self, other: Self) -> bool {
        self.user & !other.user | self.kernel & !other.kernel != 0
    }
}

/// Whether `new`, in the place of `old`, takes access back that the tables above it left, by
/// `limits`.
fn takes_back(shape: Shape, space: Space, limits: Limits, old: Leaf, new: Entry) -> bool {
    limits.each().any(|limit| {
        let before = Rights::of(&old.within(limit), shape, space);
        match new {
            Entry::Invalid => before.user != 0,
            Entry::Leaf(new) => {
                new.pa == old.pa && before.is_more_than(Rights::of(&new.within(limit), shape, space))
            }
            Entry::Table(_) => false,
        }
    })
}

impl Machine {
    /// What each instruction took back, in no order.
    pub fn taken_back(&self) -> impl Iterator<Item = &TakenBack> {
        self.pending.taken.values()
    }

    /// How often a thread has returned to EL0: without that, nothing is overdue.
    pub fn returns(&self) -> u64 {
        self.pending.returns
    }

    /// Notes that `held`, the leaf `old` at `pa`, becomes `new`, if that takes access back.
    pub(crate) fn note_taken(&mut self, held: &Held, pa: u64, old: Leaf, new: Entry) {
        let Root { shape, space, .. } = self.roots[held.root as usize];
        if space == Space::Stage2 || !takes_back(shape, space, held.limits, old, new) {
            return;
        }
        let &Held { root, level, va, value: old, replaced: at, .. } = held;
        let event = self.events.saturating_sub(1);
        self.pending.add(Edit { root, level, va, pa, old, at, event, pc: self.pc });
        let (cached, roots) = (&self.cached, &self.roots);
        self.pending.thin_out(|edit| record_of(edit, cached, roots).is_some());
    }

    /// `thread` returns to EL0 on `cpu`: counts what it took back and is overdue.
    pub(crate) fn thread_returns(&mut self, cpu: usize, thread: u64) {
        let edits = self.pending.returned(cpu, thread);
        for of_store in edits.chunk_by(Edit::is_of_store) {
            if let Some(edit) = of_store.iter().find(|edit| self.is_overdue(edit)) {
                self.pending.count_overdue(edit);
            }
        }
    }

    /// Whether some CPU may use what `edit` took back, and it was not given again.
    fn is_overdue(&self, edit: &Edit) -> bool {
        let Some(held) = record_of(edit, &self.cached, &self.roots) else { return false };
        let Root { shape, space, id, .. } = self.roots[edit.root as usize];
        let Entry::Leaf(leaf) = read(shape, space, edit.level, edit.old) else { return false };
        let uses = |cpu: usize| {
            let (walks, left) = (&self.cpus[cpu].walks[space.index()], &self.cpus[cpu].left[space.index()]);
            let walked = walks.last().map(|root| self.roots[*root as usize].id);
            // A kernel may have an ASID of its own for the same tree (KPTI). A tree that was left
            // before it was edited, as by exec, is not walked again.
            let is_left_since = left.iter().any(|left| left.root == edit.root && left.since > edit.at);
            let is_used = |walked: u16| leaf.global || walked == id || is_left_since;
            held.cpus >> cpu & 1 == 1 && walked.is_some_and(is_used)
        };
        if !(0..self.cpus.len()).any(uses) {
            return false;
        }
        let mut is_entry = false;
        self.each_place(edit.pa, |place| {
            is_entry |= (place.root, place.level, place.va) == (edit.root, edit.level, edit.va);
        });
        let now = if is_entry { self.memory.newest(edit.pa).unwrap_or(0) } else { 0 };
        takes_back(shape, space, held.limits, leaf, read(shape, space, edit.level, now))
    }
}
