//! The list of steps that planners write.

use linmap_vmsa::Va;

use crate::node::Node;
use crate::plan_error::PlanError;
use crate::step::{Edit, Step, Store};

/// Steps being written to the caller's list.
#[derive(Debug)]
pub(crate) struct Script<'b> {
    steps: &'b mut [Step],
    len: usize,
}

impl<'b> Script<'b> {
    pub fn new(steps: &'b mut [Step]) -> Self {
        Self { steps, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn steps_mut(&mut self) -> &mut [Step] {
        self.steps.get_mut(..self.len).unwrap_or_default()
    }

    /// Returns the steps written, for the lifetime of the list.
    pub fn written(self) -> &'b [Step] {
        let Self { steps, len } = self;
        steps.get(..len).unwrap_or_default()
    }

    pub fn steps(&self) -> &[Step] {
        self.steps.get(..self.len).unwrap_or_default()
    }

    // Inlined, so that the step is built in place: it is too large to be copied without a call.
    #[inline(always)]
    pub fn push(&mut self, step: Step) -> Result<(), PlanError> {
        let [slot] = self.room()?;
        *slot = step;
        Ok(())
    }

    /// Returns the next `N` steps, for the caller to write.
    #[inline(always)]
    pub fn room<const N: usize>(&mut self) -> Result<&mut [Step; N], PlanError> {
        let capacity = self.steps.len();
        let rest = self.steps.get_mut(self.len..).unwrap_or_default();
        let Some(slots) = rest.first_chunk_mut() else { return Err(too_long(capacity)) };
        self.len = self.len.wrapping_add(N);
        Ok(slots)
    }

    /// Moves the steps that free tables behind all others. Later is always early enough.
    pub fn frees_come_last(&mut self) {
        let steps = self.steps.get_mut(..self.len).unwrap_or_default();
        let mut others = 0;
        for at in 0..steps.len() {
            if matches!(steps.get(at), Some(Step::Free { .. })) {
                continue;
            }
            if let Some(moved) = steps.get_mut(others..=at) {
                moved.rotate_right(1);
                others += 1;
            }
        }
    }

    /// Adds `store` to the store that was pushed last, if one store can do both. Returns whether it
    /// did.
    #[inline(never)]
    pub fn join(&mut self, store: &Store) -> bool {
        if let Some(Step::Store(last)) = self.len.checked_sub(1).and_then(|last| self.steps.get_mut(last))
            && last.table == store.table
            && last.level == store.level
            && usize::from(last.index) + usize::from(last.count) == usize::from(store.index)
        {
            // As for runs that are split: nothing but the number of entries changes.
            if matches!(last.edit, Edit::Bits { .. }) {
                let joins = last.edit == store.edit;
                if joins {
                    last.count += store.count;
                }
                return joins;
            }
            if let Some(edit) = joined(last, store) {
                last.edit = edit;
                last.count += store.count;
                return true;
            }
        }
        false
    }
}

#[cold]
#[inline(never)]
const fn too_long(capacity: usize) -> PlanError {
    PlanError::TooLong { capacity }
}

/// The stores of `edit` to the `count` entries of `node` from `index` on.
#[inline(always)]
pub(crate) const fn store_of(node: Node, index: usize, count: usize, edit: Edit) -> Store {
    // A table has at most 8192 entries.
    let (va, index, count) = (Va(node.va(index)), index as u16, count as u16);
    Store { va, table: node.table, level: node.level, index, count, edit }
}

/// Bits of descriptors in which the entries of one run may differ.
const ADDRESS: u64 = 0xffff_ffff_f000;

/// Returns one edit that writes what the store `last` and the store `next` to the entries after it
/// write, or `None`.
fn joined(last: &Store, next: &Store) -> Option<Edit> {
    match (last.edit, next.edit) {
        (Edit::Write { first, step }, Edit::Write { first: next_first, step: next_step })
            if (first.0 ^ next_first.0) & !ADDRESS == 0 =>
        {
            // A single value may have any step.
            let step = if last.count == 1 { next_first.0.wrapping_sub(first.0) } else { step };
            let behind = first.0.wrapping_add(step.wrapping_mul(u64::from(last.count)));
            let fits = next_first.0 == behind && (next.count == 1 || next_step == step);
            fits.then_some(Edit::Write { first, step })
        }
        _ => None,
    }
}
