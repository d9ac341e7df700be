//! The stores of a plan so far, and the value of an entry after them.

use arrayvec::ArrayVec;
use linmap_vmsa::{Descriptor, Geometry, Level, Pa};

use crate::step::{Step, Store};

/// Consecutive stores to ascending addresses, so that a binary search finds one.
#[derive(Clone, Copy, Debug)]
struct Pass {
    from: usize,
    end: usize,
    /// Whether the stores ascend. If not, they are searched one by one.
    sorted: bool,
}

/// More passes than any planner makes: each of its rounds is one or two.
const PASSES: usize = 12;

/// This many steps are searched one by one.
const FEW: usize = 4;

/// The stores of a plan up to the step that is checked.
#[derive(Debug)]
pub(crate) struct History<'s> {
    geometry: Geometry,
    steps: &'s [Step],
    passes: ArrayVec<Pass, PASSES>,
    /// The levels of the tables stored to, one bit each. No entry at another level has changed.
    levels: u32,
}

impl<'s> History<'s> {
    #[inline(always)]
    pub fn new(geometry: Geometry, steps: &'s [Step]) -> Self {
        Self { geometry, steps, passes: ArrayVec::new_const(), levels: 0 }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.levels == 0
    }

    /// Whether there is a store to a table at `level`.
    #[inline(always)]
    fn has(&self, level: Level) -> bool {
        self.levels.wrapping_shr(level.above_pages()) & 1 != 0
    }

    /// Whether all stores are to tables at `level` and below.
    #[inline(always)]
    pub fn is_at_or_below(&self, level: Level) -> bool {
        self.levels.wrapping_shr(level.above_pages()) <= 1
    }

    /// Adds the store at step `at`, which comes after all those before.
    #[inline(always)]
    pub fn push(&mut self, at: usize, store: &Store) {
        self.levels |= 1u32.wrapping_shl(store.level.above_pages());
        if self.passes.is_empty() {
            self.passes.push(Pass { from: at, end: at + 1, sorted: true });
        } else {
            self.push_behind(at, store);
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, at: usize, store: &Store) {
        let ascends = at.checked_sub(1).and_then(|before| match self.steps.get(before) {
            Some(Step::Store(before)) => Some(last(self.geometry, before) < store.va.0),
            _ => None,
        });
        let full = self.passes.is_full();
        if let Some(pass) = self.passes.last_mut() {
            if ascends == Some(true) && pass.end == at {
                pass.end = at + 1;
                return;
            }
            if full {
                pass.end = at + 1;
                pass.sorted = false;
                return;
            }
        }
        self.passes.push(Pass { from: at, end: at + 1, sorted: true });
    }

    /// Runs `each` on the stores before step `before`, in order. It may leave out stores that do
    /// not overlap `first..=last`.
    #[inline(always)]
    fn near(&self, before: usize, first: u64, last: u64, mut each: impl FnMut(usize, &Store)) {
        for pass in &self.passes {
            if pass.from >= before {
                break;
            }
            let end = pass.end.min(before);
            let mut from = pass.from;
            let searched = pass.sorted && end.wrapping_sub(from) > FEW;
            if searched {
                from = from.wrapping_add(self.behind(pass.from, end, first));
            }
            for (nth, step) in self.steps.get(from..end).unwrap_or_default().iter().enumerate() {
                let Step::Store(store) = step else { continue };
                if searched && store.va.0 > last {
                    break;
                }
                each(from.wrapping_add(nth), store);
            }
        }
    }

    /// Returns how many of the steps `from..end`, ascending stores, lie below `first`.
    #[inline(never)]
    fn behind(&self, from: usize, end: usize, first: u64) -> usize {
        self.steps.get(from..end).unwrap_or_default().partition_point(|step| match step {
            Step::Store(store) => last(self.geometry, store) < first,
            _ => true,
        })
    }

    /// Returns whether a store before step `before` changes an entry that `store` names.
    #[inline(always)]
    pub fn touches(&self, before: usize, store: &Store) -> bool {
        self.has(store.level) && self.has_touched(before, store)
    }

    #[inline(never)]
    fn has_touched(&self, before: usize, store: &Store) -> bool {
        let mut touches = false;
        self.overlapping(before, store, |_, _| touches = true);
        touches
    }

    /// Runs `each` on the stores before step `before` that change an entry that `store` names, in
    /// order.
    #[inline(always)]
    pub fn overlapping(&self, before: usize, store: &Store, mut each: impl FnMut(usize, &Store)) {
        if !self.has(store.level) {
            return;
        }
        self.near(before, store.va.0, last(self.geometry, store), |step, other| {
            if other.table == store.table
                && other.index < store.index.saturating_add(store.count)
                && store.index < other.index.saturating_add(other.count)
            {
                each(step, other);
            }
        });
    }

    /// Returns whether a store before step `before` changes a table below `level` that translates
    /// anything in `first..=last`.
    #[inline(never)]
    pub fn changes_below(&self, before: usize, level: Level, first: u64, last: u64) -> bool {
        let mut changes = false;
        self.near(before, first, last, |_, store| {
            changes |= store.level > level && store.va.0 <= last && first <= self::last(self.geometry, store);
        });
        changes
    }

    /// Returns the value of entry `index` of the table `table` at `level` after the stores before
    /// step `before`. The entry translates `va`, and `memory` is its content.
    #[inline(always)]
    pub fn value(
        &self,
        before: usize,
        level: Level,
        entry: (Pa, usize, u64),
        memory: Descriptor,
    ) -> Descriptor {
        if self.has(level) { self.value_now(before, entry, memory) } else { memory }
    }

    #[inline(never)]
    fn value_now(&self, before: usize, entry: (Pa, usize, u64), memory: Descriptor) -> Descriptor {
        self.values(before, entry, memory, |_, _| {})
    }

    /// As [`value`](Self::value). Runs `each` on the value after each store.
    #[inline(always)]
    pub fn values(
        &self,
        before: usize,
        (table, index, va): (Pa, usize, u64),
        memory: Descriptor,
        mut each: impl FnMut(usize, Descriptor),
    ) -> Descriptor {
        let mut value = memory;
        self.near(before, va, va, |at, store| {
            let nth = index.wrapping_sub(store.index.into());
            if store.table == table && nth < usize::from(store.count) {
                value = store.edit.of(value, nth);
                each(at, value);
            }
        });
        value
    }
}

/// Last address that the entries of `store` translate.
#[inline]
fn last(geometry: Geometry, store: &Store) -> u64 {
    let bytes = u64::from(store.count) << geometry.shift(store.level);
    store.va.0.wrapping_add(bytes.wrapping_sub(1))
}
