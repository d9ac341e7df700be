//! The check of stores while TLBs may hold what the entries were.

use core::slice;

use linmap_vmsa::bbm::{self, Requirement};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Decoded, Descriptor, Level, Va};

use super::Checker;
use crate::entry::{CONTIGUOUS, attributes_of};
use crate::exclusivity::Exclusivity;
use crate::fold::uniform;
use crate::invalidate::Span;
use crate::refused::BrokenRule;
use crate::run::Run;
use crate::step::{Edit, Store};
use crate::tree_context::TreeContext;
use linmap_table::TableWindow;
use linmap_table::read;

/// How many values of one entry are told apart since everything was clean.
const VERSIONS: usize = 4;

/// What a single store to a single entry asks for.
enum Need {
    Nothing,
    Invalidate(Span),
}

impl<W: TableWindow> Checker<'_, '_, W> {
    /// Runs `need` on each part of what `store`, step `at`, asks to be invalidated, until it returns false.
    pub(crate) fn needs(
        &mut self,
        at: usize,
        store: &Store,
        mut need: impl FnMut(Span) -> bool,
    ) -> Result<(), BrokenRule> {
        let shift = self.context.shift(store.level);
        let touched = self.history.touches(at, store.va.0, self.history.last(store));
        // Permissions of pages: the bits decide, whatever the entries are.
        if let Edit::Bits { clear, set } = store.edit
            && store.level == Level::L3
            && !touched
            && bbm::never_breaks(clear, set)
            && (self.context.bbm != BbmLevel::L0 || !self.any_contiguous(store))
        {
            self.ends_of_runs(store)?;
            // From the first leaf that a TLB may hold and that changes to the last.
            let mut changes = |nth: &usize| {
                let index = usize::from(store.index) + nth;
                let found = read(self.window, store.level, store.table, index);
                found.is_valid() && store.edit.of(found, *nth) != found
            };
            let count = usize::from(store.count);
            if let Some(first) = (0..count).find(&mut changes) {
                let end = (first..count).rfind(changes).unwrap_or(first) + 1;
                need(Span::leaves(store.va.0 + ((first as u64) << shift), end - first, shift));
            }
            return Ok(());
        }
        let mut pending: Option<Span> = None;
        let mut run = Run::default();
        for nth in 0..usize::from(store.count) {
            if let Need::Invalidate(span) = self.entry(at, store, nth, touched, &mut run)? {
                pending = match pending.map(|pending| (pending, pending.joined(span))) {
                    Some((_, Some(joined))) => Some(joined),
                    Some((pending, None)) => {
                        if !need(pending) {
                            return Ok(());
                        }
                        Some(span)
                    }
                    None => Some(span),
                };
            }
        }
        if let Some(pending) = pending {
            need(pending);
        }
        Ok(())
    }

    /// Whether an entry that `store` changes has the contiguous bit in memory.
    fn any_contiguous(&mut self, store: &Store) -> bool {
        let pointer = self.window.open(store.level, store.table);
        // SAFETY: an open table is valid for reads of a whole granule, the store was found to lie in it, and nothing
        // writes to it exclusivity: the tree's one `LiveTree` is borrowed, and hardware updates are off.
        let entries =
            unsafe { slice::from_raw_parts(pointer.as_ptr().add(store.index.into()), store.count.into()) };
        let any = entries.iter().fold(0, |any, entry| any | entry);
        self.window.close(store.level);
        any & CONTIGUOUS != 0
    }

    /// Refuses a store of permissions that begins or ends within a contiguous run.
    pub(crate) fn ends_of_runs(&mut self, store: &Store) -> Result<(), BrokenRule> {
        let Some(run) = self.context.run(store.level) else { return Ok(()) };
        let (first, end) = (usize::from(store.index), usize::from(store.index) + usize::from(store.count));
        for (index, whole) in [(first, first % run == 0), (end - 1, end % run == 0)] {
            if whole {
                continue;
            }
            let found = read(self.window, store.level, store.table, index);
            if found.is_valid() && found.is_contiguous() {
                return Err(self.part_of_run(store, index));
            }
        }
        Ok(())
    }

    pub(crate) fn part_of_run(&self, store: &Store, index: usize) -> BrokenRule {
        let nth = (index - usize::from(store.index)) as u64;
        let va = Va(store.va.0 + (nth << self.context.shift(store.level)));
        BrokenRule::PartOfRun { va, table: store.table, level: store.level, index }
    }

    /// What entry `nth` of `store`, step `at`, asks for.
    fn entry(
        &mut self,
        at: usize,
        store: &Store,
        nth: usize,
        touched: bool,
        run: &mut Run,
    ) -> Result<Need, BrokenRule> {
        let Store { table, level, edit, .. } = *store;
        let index = usize::from(store.index) + nth;
        let va = store.va.0.wrapping_add((nth as u64) << self.context.shift(level));
        let memory = read(self.window, level, table, index);
        if !touched {
            let new = edit.of(memory, nth);
            self.stored(va, store, index, memory, new, run)?;
            return self.replaced(at, va, store, index, [memory; 2], new);
        }
        // What TLBs may hold: what the entry was when all was clean, and all that it has been since.
        let mut held = [memory; VERSIONS];
        let mut versions = 1;
        let clean_from = self.clean_from;
        let ordered_to = self.ordered_to;
        let mut before = memory;
        let mut unfolding = false;
        let now = self.history.values(at, (table, index, va), memory, |step, value| {
            unfolding |= step >= ordered_to && before.is_valid() && before.0 & !value.0 & CONTIGUOUS != 0;
            before = value;
            if step < clean_from {
                held[0] = value;
            } else {
                // The last slot stands for the latest value: a plan that changes an entry more often is refused
                // by the other ones or goes back to what it was.
                held[versions.min(VERSIONS - 1)] = value;
                versions = (versions + 1).min(VERSIONS);
            }
        });
        if unfolding && at >= self.compared {
            return Err(BrokenRule::RunUnordered { va: Va(va) });
        }
        let new = edit.of(now, nth);
        self.stored(va, store, index, now, new, run)?;
        if memory.is_valid() && !now.is_valid() && new.is_valid() && self.exclusivity == Exclusivity::InUse {
            return Err(BrokenRule::InUse { va: Va(va), old: memory, new });
        }
        let mut result = Need::Nothing;
        for held in held.into_iter().take(versions) {
            if let need @ Need::Invalidate(_) = self.replaced(at, va, store, index, [held, now], new)? {
                result = need;
            }
        }
        Ok(result)
    }

    /// Checks what an entry becomes for itself, when it was `now` just before.
    #[inline]
    fn stored(
        &self,
        va: u64,
        store: &Store,
        index: usize,
        now: Descriptor,
        new: Descriptor,
        run: &mut Run,
    ) -> Result<(), BrokenRule> {
        run.check(self.context, store, index, now, new).ok_or_else(|| self.part_of_run(store, index))?;
        if !self.tables_ordered
            && new != now
            && let Decoded::Table(next) = new.decode(self.context.geometry, store.level)
        {
            return Err(BrokenRule::TableUnordered { va: Va(va), table: next });
        }
        Ok(())
    }

    /// What `new` asks for where TLBs may hold `held`, and the entry was `now` just before.
    #[inline]
    fn replaced(
        &mut self,
        at: usize,
        va: u64,
        store: &Store,
        index: usize,
        [held, now]: [Descriptor; 2],
        new: Descriptor,
    ) -> Result<Need, BrokenRule> {
        let Store { table, level, .. } = *store;
        let TreeContext { geometry, bbm, .. } = *self.context;
        // From BBM level 1 on a TLB may still hold a run that is none any more when a table replaces one of its blocks.
        let unfolded = held != now
            && bbm != BbmLevel::L0
            && matches!(held.decode(geometry, level), Decoded::Leaf(_))
            && matches!(new.decode(geometry, level), Decoded::Table(_));
        let old = if unfolded { Descriptor(held.0 & !CONTIGUOUS) } else { held };
        let requirement = bbm::change(geometry, level, old, new, bbm);
        if requirement > Requirement::Invalidate {
            let va = Va(va);
            return Err(BrokenRule::Forbidden { va, table, level, index, old, new, requirement, bbm });
        }
        if self.exclusivity == Exclusivity::InUse
            && bbm != BbmLevel::L3
            && bbm::resizes(geometry, level, old, new)
        {
            return Err(BrokenRule::InUse { va: Va(va), old, new });
        }
        if self.compares && at >= self.compared {
            self.alike(va, level, old, new)?;
        }
        if requirement != Requirement::Invalidate {
            return Ok(Need::Nothing);
        }
        Ok(Need::Invalidate(match old.decode(geometry, level) {
            Decoded::Table(_) => Span::table(geometry, level, va),
            _ => Span::leaves(va, 1, self.context.shift(level)),
        }))
    }

    /// Refuses a table in the place of a block, or a block in that of a table, that does not say the same.
    pub(crate) fn alike(
        &mut self,
        va: u64,
        level: Level,
        old: Descriptor,
        new: Descriptor,
    ) -> Result<(), BrokenRule> {
        let geometry = self.context.geometry;
        let (table, block, pa) = match (old.decode(geometry, level), new.decode(geometry, level)) {
            (Decoded::Leaf(pa), Decoded::Table(table)) => (table, old, pa),
            (Decoded::Table(table), Decoded::Leaf(pa)) => (table, new, pa),
            _ => return Ok(()),
        };
        let said = level.next().and_then(|next| uniform(geometry, self.window, table, next));
        if said == Some((attributes_of(geometry, block), pa)) {
            return Ok(());
        }
        Err(BrokenRule::Differs { va: Va(va), table, block })
    }
}
