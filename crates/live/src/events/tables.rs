//! Tables, and what the steps of a plan do to them, as events.

use linmap_table::TableWindow;
use linmap_table::cpu::Dsb;
use linmap_trace::{Access, Domain, Event, Line, Tlbi, TlbiScope};
use linmap_vmsa::tlbi::{RangeOperand, VaOperand};
use linmap_vmsa::{Decoded, Descriptor, Geometry, Level, Pa, Va};

use super::fills::{EDITOR, Fills};
use crate::step::{Edit, EveryLeaf, Invalidation, Reach, Step, Store};
use crate::update::Update;

/// Tables as they are when the steps in `before` have been applied to them.
pub(super) struct Tables<'t, W> {
    pub geometry: Geometry,
    pub window: &'t mut W,
    pub before: &'t [Step],
}

impl<W: TableWindow> Tables<'_, W> {
    /// An entry of `table`; `index` is below the number of its entries.
    fn entry(&mut self, level: Level, table: Pa, index: usize) -> Descriptor {
        // SAFETY: by the promise of `TracedTree::new` the window reaches the table. `open` gives a
        // whole one, and every caller's index is one of its entries. The table may be live, so the
        // read is volatile.
        let mut entry = Descriptor(unsafe { self.window.open(level, table).add(index).read_volatile() });
        self.window.close(level);
        for step in self.before {
            if let Step::Store(store) = step
                && store.table == table
                && let Some(nth) = index.checked_sub(usize::from(store.index))
                && nth < usize::from(store.count)
            {
                entry = store.edit.of(entry, nth);
            }
        }
        entry
    }

    /// The table that an entry leads to, and its level.
    fn below(&mut self, level: Level, table: Pa, index: usize) -> Option<(Level, Pa)> {
        let next = level.next()?;
        match self.entry(level, table, index).decode(self.geometry, level) {
            Decoded::Table(below) => Some((next, below)),
            Decoded::Leaf(_) | Decoded::Invalid => None,
        }
    }

    /// Emits the content of `table` and of all tables below it, the lowest first.
    pub fn content(&mut self, emit: &mut impl FnMut(Line), level: Level, table: Pa) {
        let entries = self.geometry.entries(level);
        for index in 0..entries {
            if let Some((next, below)) = self.below(level, table, index) {
                self.content(emit, next, below);
            }
        }
        let mut fills = Fills::new(emit);
        for index in 0..entries {
            fills.store(table.0 + 8 * index as u64, self.entry(level, table, index).0);
        }
        fills.end();
    }

    /// Emits the content of every table that a store of `steps` links, and of all tables below it.
    pub fn new_tables(&mut self, emit: &mut impl FnMut(Line), steps: &[Step]) {
        for step in steps {
            let Step::Store(Store { level, count, edit, .. }) = step else { continue };
            if !matches!(edit, Edit::Write { .. } | Edit::Update(Update::Link { .. })) {
                continue;
            }
            let Some(next) = level.next() else { continue };
            for nth in 0..usize::from(*count) {
                if let Decoded::Table(table) = edit.of(Descriptor::INVALID, nth).decode(self.geometry, *level)
                {
                    self.content(emit, next, table);
                }
            }
        }
    }

    /// Emits the frames that `steps` free.
    pub fn frees(&mut self, emit: &mut impl FnMut(Line), steps: &[Step]) {
        for step in steps {
            if let Step::Free { table, level, .. } = *step {
                self.free(emit, level, table);
            }
        }
    }

    /// Emits that the frames of `table` and of all tables below it are freed, the lowest first.
    fn free(&mut self, emit: &mut impl FnMut(Line), level: Level, table: Pa) {
        for index in 0..self.geometry.entries(level) {
            if let Some((next, below)) = self.below(level, table, index) {
                self.free(emit, next, below);
            }
        }
        emit(Event::Free { pa: table.0, len: self.geometry.granule().bytes() }.into());
    }

    /// Emits a step of a plan for the tree at `root`, which translates from `base`. Frames that it
    /// frees are left to [`frees`](Self::frees).
    pub fn step(&mut self, emit: &mut impl FnMut(Line), (root, base): (Pa, Va), step: &Step) {
        let dsb = |domain, access| Event::Dsb { cpu: EDITOR, domain, access }.into();
        match step {
            Step::Store(store) => self.store(emit, store),
            Step::EveryLeaf(leaves) => {
                self.every_leaf(emit, leaves, root, self.geometry.start_level(), base);
            }
            Step::Dsb(Dsb::Ishst) => emit(dsb(Domain::Ish, Access::Stores)),
            Step::Dsb(Dsb::Ish) => emit(dsb(Domain::Ish, Access::All)),
            Step::Dsb(Dsb::Nsh) => emit(dsb(Domain::Nsh, Access::All)),
            Step::Isb => emit(Event::Isb { cpu: EDITOR }.into()),
            Step::Invalidate(invalidation) => invalidate(emit, self.geometry, *invalidation),
            // The model has no caches.
            Step::CleanInvalidate { .. } | Step::Free { .. } => {}
        }
    }

    fn store(&mut self, emit: &mut impl FnMut(Line), store: &Store) {
        if let Edit::Update(_) = store.edit {
            return self.update(emit, store);
        }
        let mut fills = Fills::new(emit);
        for nth in 0..usize::from(store.count) {
            let index = usize::from(store.index) + nth;
            let value = match store.edit {
                Edit::Write { .. } => store.edit.of(Descriptor::INVALID, nth),
                Edit::Bits { .. } | Edit::Update(_) => {
                    store.edit.of(self.entry(store.level, store.table, index), nth)
                }
            };
            fills.store(store.table.0 + 8 * index as u64, value.0);
        }
        fills.end();
    }

    /// Emits atomic updates, with the values that entries get if hardware updates nothing.
    fn update(&mut self, emit: &mut impl FnMut(Line), store: &Store) {
        for nth in 0..usize::from(store.count) {
            let index = usize::from(store.index) + nth;
            let old = self.entry(store.level, store.table, index);
            let (value, old) = (store.edit.of(old, nth).0, Some(old.0));
            let pa = store.table.0 + 8 * index as u64;
            emit(Event::Update { cpu: EDITOR, pa, value, old, via: None }.into());
        }
    }

    /// Emits stores to the leaves, valid or invalidated, that `leaves` names in `table` and below.
    /// `table` translates from `base`.
    fn every_leaf(
        &mut self,
        emit: &mut impl FnMut(Line),
        leaves: &EveryLeaf,
        table: Pa,
        level: Level,
        base: Va,
    ) {
        let bytes = self.geometry.entry_bytes(level);
        let entries = self.geometry.entries(level);
        let va = |index: usize| base.0 + index as u64 * bytes;
        let is_named = |index: usize| va(index) <= leaves.last.0 && leaves.first.0 <= va(index) + (bytes - 1);
        for index in (0..entries).filter(|index| is_named(*index)) {
            if let Some((next, below)) = self.below(level, table, index) {
                self.every_leaf(emit, leaves, below, next, Va(va(index)));
            }
        }
        let mut fills = Fills::new(emit);
        for index in (0..entries).filter(|index| is_named(*index)) {
            let entry = self.entry(level, table, index);
            if entry != Descriptor::INVALID && self.below(level, table, index).is_none() {
                fills.store(table.0 + 8 * index as u64, entry.0 & !leaves.clear | leaves.set);
            }
        }
        fills.end();
    }
}

/// Emits the instructions of one invalidation.
fn invalidate(emit: &mut impl FnMut(Line), geometry: Geometry, invalidation: Invalidation) {
    let mut tlbi = |scope, operand| {
        emit(Event::Tlbi { cpu: EDITOR, tlbi: Tlbi { scope, broadcast: true }, operand }.into());
    };
    match invalidation {
        Invalidation::All | Invalidation::Stage1 => tlbi(TlbiScope::AllEl1, 0),
        Invalidation::ByVa { va, count, shift, reach } => {
            let scope = match reach {
                Reach::LastLevel => TlbiScope::VaAnyAsidLast,
                Reach::AllLevels => TlbiScope::VaAnyAsid,
            };
            for nth in 0..u64::from(count) {
                tlbi(scope, VaOperand::any_asid(Va(va.0.wrapping_add(nth << shift))).0);
            }
        }
        Invalidation::ByRange { va, pages, reach } => {
            let scope = match reach {
                Reach::LastLevel => TlbiScope::RangeAnyAsidLast,
                Reach::AllLevels => TlbiScope::RangeAnyAsid,
            };
            match RangeOperand::any_asid(geometry, va, pages) {
                Some((operand, _)) => tlbi(scope, operand.0),
                // A range that no operand can express is invalidated as a whole.
                None => tlbi(TlbiScope::AllEl1, 0),
            }
        }
    }
}
