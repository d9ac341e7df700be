//! The check of plans for trees that hardware updates: no store loses an update.
//!
//! The values that the check follows are those of leaves that hardware leaves alone. It may set the
//! access flag, and make tracked leaves dirty, until the plan is applied.

use linmap_table::TableWindow;
use linmap_vmsa::bbm::{self, Requirement};
use linmap_vmsa::{Decoded, Descriptor, Level, Pa, Va};

use super::checker::Checker;
use crate::apply_update::is_collected;
use crate::entry::{CONTIGUOUS, VALID_BIT, attributes_of};
use crate::exclusivity::Exclusivity;
use crate::hierarchy::loses_nothing;
use crate::refused::BrokenRule;
use crate::step::{Edit, Step, Store};
use crate::uniform_updated::uniform_updated;
use crate::update::Update;

impl<W: TableWindow> Checker<'_, '_, W> {
    /// What hardware may make of an entry before the plan is applied.
    fn updated(&self, level: Level, found: Descriptor) -> Descriptor {
        let geometry = self.context.geometry;
        match found.decode(geometry, level) {
            Decoded::Leaf(_) => self.context.updates.of_leaf(geometry.regime(), found),
            Decoded::Table(_) | Decoded::Invalid => found,
        }
    }

    /// Refuses a change of entry `index` of `store`, step `at`, from `now` to `new` that loses what
    /// hardware updates.
    #[inline(always)]
    pub fn check_update(
        &self,
        at: usize,
        entry: (u64, usize, &Store),
        now: Descriptor,
        new: Descriptor,
    ) -> Result<(), BrokenRule> {
        if self.context.updates.is_on() { self.loses_no_update(at, entry, now, new) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn loses_no_update(
        &self,
        at: usize,
        (va, index, store): (u64, usize, &Store),
        now: Descriptor,
        new: Descriptor,
    ) -> Result<(), BrokenRule> {
        let Store { table, level, edit, .. } = *store;
        let va = Va(va);
        match edit {
            Edit::Write { .. } | Edit::Bits { .. } if self.updated(level, now) != now => {
                return Err(BrokenRule::UpdateLost { va, table, level, index });
            }
            Edit::Update(Update::Link { over, .. }) => {
                let regime = self.context.geometry.regime();
                let whole = |found: Descriptor| {
                    self.context.updates.of_leaf(regime, Descriptor(found.0 & !(VALID_BIT | CONTIGUOUS)))
                };
                if whole(over) != whole(now) {
                    return Err(BrokenRule::UpdateLost { va, table, level, index });
                }
            }
            Edit::Update(Update::Gather) if !self.may_gather() => {
                return Err(BrokenRule::GatheredEarly { va });
            }
            Edit::Update(Update::Collect { .. }) if !self.may_gather() || store.count != 1 => {
                return Err(BrokenRule::GatheredEarly { va });
            }
            _ => {}
        }
        // A run whose entries go their own ways.
        if now.is_contiguous() && !new.is_contiguous() && new.0 != 0 && level_has(level, now) {
            // A table gets what was gathered; leaves may get it later, and valid ones must.
            let to_table = matches!(new.decode(self.context.geometry, level), Decoded::Table(_));
            let from = if now.is_valid() && !to_table { at + 1 } else { 0 };
            let to = if to_table { at } else { self.steps.len() };
            if !self.is_gathered(self.steps.get(from..to).unwrap_or_default(), table, index) {
                return Err(BrokenRule::NotGathered { va });
            }
        }
        Ok(())
    }

    /// Whether no TLB holds any more what the plan has changed so far.
    fn may_gather(&self) -> bool {
        self.exclusivity == Exclusivity::Parked || self.stale.is_none()
    }

    /// Returns whether one of the steps gathers what hardware updated in the run around entry
    /// `index` of `table`.
    fn is_gathered(&self, steps: &[Step], table: Pa, index: usize) -> bool {
        steps.iter().any(|step| {
            let Step::Store(store @ Store { edit: Edit::Update(Update::Gather), .. }) = step else {
                return false;
            };
            let run = self.context.run(store.level).unwrap_or(1);
            let start = usize::from(store.index);
            store.table == table
                && start.is_multiple_of(run)
                && usize::from(store.count).is_multiple_of(run)
                && (start..start + usize::from(store.count)).contains(&index)
        })
    }

    /// What a change needs where hardware has updated the entry first.
    #[cold]
    #[inline(never)]
    pub fn updated_requirement(
        &self,
        store: &Store,
        held: Descriptor,
        now: Descriptor,
        new: Descriptor,
    ) -> Requirement {
        let geometry = self.context.geometry;
        let level = store.level;
        // A TLB that keeps a run would let a CPU write to one of its former entries unmarked.
        let unfolds = held.is_valid()
            && new.is_valid()
            && held.is_contiguous()
            && !new.is_contiguous()
            && matches!(new.decode(geometry, level), Decoded::Leaf(_));
        let least = if unfolds { Requirement::Invalidate } else { Requirement::Nothing };
        let held = self.updated(level, held);
        let new = match store.edit {
            Edit::Update(update @ (Update::Bits { .. } | Update::Gather | Update::Collect { .. })) => {
                update.of(self.updated(level, now), 0)
            }
            Edit::Update(Update::Leaf { .. } | Update::Link { .. })
            | Edit::Write { .. }
            | Edit::Bits { .. } => new,
        };
        bbm::change(geometry, level, held, new, self.context.bbm).max(least)
    }

    /// [`check_identical`](Self::check_identical) but for what hardware updates.
    #[cold]
    #[inline(never)]
    pub fn check_identical_updated(
        &mut self,
        va: u64,
        level: Level,
        old: Descriptor,
        new: Descriptor,
    ) -> Result<(), BrokenRule> {
        let context = self.context;
        let geometry = context.geometry;
        let (link, table, block, pa) = match (old.decode(geometry, level), new.decode(geometry, level)) {
            (Decoded::Leaf(pa), Decoded::Table(table)) => (new, table, old, pa),
            (Decoded::Table(table), Decoded::Leaf(pa)) => (old, table, new, pa),
            _ => return Ok(()),
        };
        let updated = |leaf| context.updates.of_leaf(geometry.regime(), leaf);
        let said = level.next().and_then(|next| uniform_updated(context, self.window, table, next, updated));
        let block_says = attributes_of(geometry, updated(block));
        if said == Some((block_says, pa)) && loses_nothing(geometry, link, block_says) {
            return Ok(());
        }
        Err(BrokenRule::Differs { va: Va(va), table, block })
    }

    /// Refuses to free `table`, step `at`, to which an entry of `parent` at `level` led, while a
    /// block in that entry lacks what hardware updated in the table.
    #[cold]
    #[inline(never)]
    pub fn check_collected(
        &mut self,
        at: usize,
        va: Va,
        (parent, level): (Pa, Level),
        table: Pa,
    ) -> Result<(), BrokenRule> {
        let index = self.context.geometry.index(va, level);
        let memory = self.context.read(self.window, level, parent, index);
        let found = self.history.values(at, (parent, index, va.0), memory, |_, _| {});
        let steps = self.steps.get(..at).unwrap_or_default();
        if found.0 != 0 && !found.may_be_table() && !is_collected(steps, table) {
            return Err(BrokenRule::NotCollected { va, table });
        }
        Ok(())
    }
}

/// Whether a contiguous entry at `level` is a leaf, valid or not.
fn level_has(level: Level, found: Descriptor) -> bool {
    level == Level::L3 || !found.may_be_table()
}
