//! What the stores of a plan make of an entry, step by step.

use arrayvec::ArrayVec;
use linmap_vmsa::{Descriptor, Geometry, Pa};

use crate::step::{Step, Store};

/// Stores that follow each other and ascend, so that one is found by its addresses.
#[derive(Clone, Copy, Debug)]
struct Pass {
    from: usize,
    end: usize,
    /// Whether the stores ascend. Those of a long and tangled plan are searched one by one.
    sorted: bool,
}

/// More passes than any of our planners makes: each of its rounds is one or two.
const PASSES: usize = 12;

/// The stores of a plan up to where a check stands.
#[derive(Debug)]
pub(crate) struct History<'s> {
    geometry: Geometry,
    steps: &'s [Step],
    passes: ArrayVec<Pass, PASSES>,
}

impl<'s> History<'s> {
    pub fn new(geometry: Geometry, steps: &'s [Step]) -> Self {
        Self { geometry, steps, passes: ArrayVec::new_const() }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.passes.is_empty()
    }

    /// Last address that the entries of `store` translate.
    pub fn last(&self, store: &Store) -> u64 {
        let bytes = u64::from(store.count) << self.geometry.shift(store.level);
        store.va.0.wrapping_add(bytes.wrapping_sub(1))
    }

    /// Takes in the store at step `at`, which is behind all those before.
    pub fn push(&mut self, at: usize, store: &Store) {
        let ascends = at.checked_sub(1).and_then(|before| match self.steps.get(before) {
            Some(Step::Store(before)) => Some(self.last(before) < store.va.0),
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

    /// Runs `each` on the stores before step `before` that overlap `first..=last`, in order.
    fn overlapping(&self, before: usize, first: u64, last: u64, mut each: impl FnMut(usize, &Store)) {
        for pass in self.passes.iter().take_while(|pass| pass.from < before) {
            let steps = self.steps.get(pass.from..pass.end.min(before)).unwrap_or_default();
            let skip = if pass.sorted {
                steps.partition_point(|step| match step {
                    Step::Store(store) => self.last(store) < first,
                    _ => true,
                })
            } else {
                0
            };
            for (nth, step) in steps.iter().enumerate().skip(skip) {
                let Step::Store(store) = step else { continue };
                if store.va.0 > last {
                    if pass.sorted {
                        break;
                    }
                } else if self.last(store) >= first {
                    each(pass.from + nth, store);
                }
            }
        }
    }

    /// Whether a store before step `before` overlaps `first..=last`.
    pub fn touches(&self, before: usize, first: u64, last: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut touches = false;
        self.overlapping(before, first, last, |_, _| touches = true);
        touches
    }

    /// Runs `each` on what the entry `index` of the table `table`, which translates `va` and holds `memory`, becomes by each
    /// store before step `before`, and returns what it is then.
    pub fn values(
        &self,
        before: usize,
        (table, index, va): (Pa, usize, u64),
        memory: Descriptor,
        mut each: impl FnMut(usize, Descriptor),
    ) -> Descriptor {
        let mut value = memory;
        self.overlapping(before, va, va, |at, store| {
            if store.table == table
                && let Some(nth) = index.checked_sub(usize::from(store.index))
                && nth < usize::from(store.count)
            {
                value = store.edit.of(value, nth);
                each(at, value);
            }
        });
        value
    }
}
