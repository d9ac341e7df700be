//! Stores that are ordered without a DSB of the CPU that made them.
//!
//! A CPU's stores are counted in epochs. A DMB or a store-release ends an epoch: what was stored in
//! it is ordered before what follows. Whoever knows of the end of an epoch knows of its stores.

use super::{Memory, PAGE, WORDS, bit, set};

/// The last epoch: stores in it wait for a DSB.
const LAST: u32 = u32::MAX - 1;

impl Memory {
    /// Ends the present epoch of `cpu`. Returns the next one: stores of an earlier one are ordered
    /// before what follows.
    pub fn end_epoch(&mut self, cpu: usize) -> u32 {
        let epoch = &mut self.epochs[cpu];
        *epoch = (*epoch + 1).min(LAST);
        *epoch
    }

    /// Does what [`Self::order`] does, for the stores of `cpu` before the epoch `until`.
    pub fn order_until(&mut self, cpu: usize, until: u32, mut gone: impl FnMut(&Self, u64, &[Option<u64>])) {
        let mut first = std::mem::take(&mut self.unordered_first[cpu]);
        first.retain(|at| {
            let page = &mut self.pages[*at as usize];
            let is_own = usize::from(page.first_by) == cpu;
            if is_own && page.first_epoch < until {
                page.unknown_seen = [0; WORDS / 64];
                page.first_by = u8::MAX;
            }
            is_own && page.first_by != u8::MAX
        });
        self.unordered_first[cpu] = first;
        let mut words = std::mem::take(&mut self.unordered[cpu]);
        self.order_words(cpu, &words, until, &mut gone);
        words.retain(|pa| {
            self.older.get(pa).is_some_and(|older| older.iter().any(|at| usize::from(at.by) == cpu))
        });
        self.unordered[cpu] = words;
    }

    /// Orders what was stored to the page of `pa`, which no walk can enter yet, before the epochs
    /// `known` of each CPU.
    pub fn order_page(&mut self, pa: u64, known: &[u32]) {
        let Some(&at) = self.index.get(&(pa / PAGE)) else { return };
        let page = &mut self.pages[at as usize];
        let is_known = |by: u8, epoch: u32| known.get(usize::from(by)).is_some_and(|until| epoch < *until);
        if page.table {
            return;
        }
        if is_known(page.first_by, page.first_epoch) {
            page.unknown_seen = [0; WORDS / 64];
            page.first_by = u8::MAX;
        }
        for word in 0..WORDS {
            if page.older[word / 64] == 0 || !bit(&page.older, word) {
                continue;
            }
            let pa = pa / PAGE * PAGE + 8 * word as u64;
            let Some(older) = self.older.get_mut(&pa) else { continue };
            if let Some(last) = older.iter().rposition(|older| is_known(older.by, older.epoch)) {
                older.drain(..=last);
            }
            if older.is_empty() {
                self.older.remove(&pa);
                set(&mut page.older, word, false);
            }
        }
    }
}
