//! Stores to consecutive words, joined to fills.

use linmap_trace::{Event, Line};

/// The CPU that edits.
pub(super) const EDITOR: usize = 0;

/// Bits of descriptors in which the entries of one fill may differ.
const ADDRESS: u64 = 0xffff_ffff_f000;

/// Stores to consecutive words that are emitted as one event.
#[derive(Clone, Copy)]
struct Fill {
    pa: u64,
    first: u64,
    count: u64,
    step: u64,
}

impl Fill {
    /// The difference from word to word if `value` at `pa` continues the fill.
    fn step_to(&self, pa: u64, value: u64) -> Option<u64> {
        let last = self.first.wrapping_add(self.step.wrapping_mul(self.count - 1));
        let step = value.wrapping_sub(last);
        let differs_in_address = value != 0 && last != 0 && (value ^ last) & !ADDRESS == 0;
        let is_next = pa == self.pa + 8 * self.count && (self.count == 1 || step == self.step);
        (is_next && (value == last || differs_in_address)).then_some(step)
    }

    fn event(self) -> Event {
        let Self { pa, first, count, step } = self;
        if count == 1 {
            Event::Store { cpu: EDITOR, pa, value: first, via: None }
        } else {
            Event::Fill { cpu: EDITOR, pa, count, first, step }
        }
    }
}

/// Joins stores and emits them.
pub(super) struct Fills<'e, E: FnMut(Line)> {
    open: Option<Fill>,
    emit: &'e mut E,
}

impl<'e, E: FnMut(Line)> Fills<'e, E> {
    pub fn new(emit: &'e mut E) -> Self {
        Self { open: None, emit }
    }

    /// Adds a store of `value` at `pa`.
    pub fn store(&mut self, pa: u64, value: u64) {
        if let Some(fill) = &mut self.open {
            if let Some(step) = fill.step_to(pa, value) {
                fill.step = step;
                fill.count += 1;
                return;
            }
            (self.emit)(fill.event().into());
        }
        self.open = Some(Fill { pa, first: value, count: 1, step: 0 });
    }

    /// Emits what is left.
    pub fn end(self) {
        if let Some(fill) = self.open {
            (self.emit)(fill.event().into());
        }
    }
}
