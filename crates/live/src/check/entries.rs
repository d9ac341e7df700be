//! The check of stores while TLBs may hold old values of the entries.

use linmap_vmsa::bbm::{self, Requirement};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Decoded, Descriptor, Level, Va};

use super::checker::{Asked, Checker};
use crate::entry::{CONTIGUOUS, VALID_BIT, attributes_of};
use crate::every_leaf::NOT_GLOBAL;
use crate::invalidate::Span;
use crate::refused::BrokenRule;
use crate::run::Run;
use crate::scope::Scope;
use crate::step::{Edit, Reach, Step, Store};
use crate::tlbi_coverage::covers;
use crate::tree_context::TreeContext;
use crate::uniform::uniform_below;
use crate::update::Update;
use linmap_table::TableWindow;

/// How many values of one entry are distinguished, beginning with its value when everything was
/// clean.
const VERSIONS: usize = 4;

impl<W: TableWindow> Checker<'_, '_, W> {
    /// Checks the new value of each entry of `store`, step `at`, and returns what has to be
    /// invalidated.
    #[inline(always)]
    pub fn entries(&mut self, at: usize, store: &Store) -> Result<Asked, BrokenRule> {
        if let Scope::Asid(_) = self.context.scope {
            self.check_non_global(store)?;
        }
        let types = self.memory_type_bits();
        let new_types = matches!(store.edit, Edit::Bits { clear, set } if (clear | set) & types != 0);
        if store.count > 1
            && !new_types
            && let Some(span) = self.together(at, store)
        {
            return Ok(span.map_or(Asked::Nothing, Asked::One));
        }
        let touched = self.history.touches(at, store);
        self.one_by_one(at, store, touched)
    }

    /// The bits of a leaf that say its memory type: AttrIndx, or MemAttr of stage 2.
    fn memory_type_bits(&self) -> u64 {
        if self.context.scope == Scope::Vmid { 0b1111 << 2 } else { 0b111 << 2 }
    }

    /// Notes that the memory of a leaf in memory, valid or not, gets another type by `new`.
    #[inline(always)]
    fn note_memory_type(&mut self, at: usize, va: u64, level: Level, memory: Descriptor, new: Descriptor) {
        if (memory.0 ^ new.0) & self.memory_type_bits() != 0
            && memory.0 != 0
            && new.is_valid()
            && at >= self.compared
        {
            self.note_new_type(va, level, memory, new);
        }
    }

    #[inline(never)]
    fn note_new_type(&mut self, va: u64, level: Level, memory: Descriptor, new: Descriptor) {
        let geometry = self.context.geometry;
        let old = Descriptor(memory.0 | VALID_BIT).decode(geometry, level);
        if let (Decoded::Leaf(old), Decoded::Leaf(new)) = (old, new.decode(geometry, level))
            && old == new
        {
            let bytes = 1u64 << self.context.shift(level);
            let (first, before) = self.uncleaned.unwrap_or((Va(va), 0));
            self.uncleaned = Some((first, before + bytes));
        }
    }

    /// Refuses a global leaf in the tree of a user space, which would be used in every ASID.
    #[cold]
    #[inline(never)]
    fn check_non_global(&self, store: &Store) -> Result<(), BrokenRule> {
        let Store { va, level, edit, .. } = *store;
        let makes_global = match edit {
            // The other leaves of the store differ in their addresses.
            Edit::Write { first, .. } | Edit::Update(Update::Leaf { first, .. }) => {
                first.0 & NOT_GLOBAL == 0
                    && matches!(first.decode(self.context.geometry, level), Decoded::Leaf(_))
            }
            Edit::Bits { clear, .. } | Edit::Update(Update::Bits { clear, .. }) => {
                clear & NOT_GLOBAL != 0 && clear & VALID_BIT == 0
            }
            Edit::Update(Update::Link { .. } | Update::Gather | Update::Collect { .. }) => false,
        };
        if makes_global { Err(BrokenRule::GlobalLeaf { va, level }) } else { Ok(()) }
    }

    #[inline(never)]
    fn one_by_one(&mut self, at: usize, store: &Store, touched: bool) -> Result<Asked, BrokenRule> {
        let mut asked = Asked::Nothing;
        let mut run = Run::default();
        for nth in 0..usize::from(store.count) {
            if let Some(span) = self.entry(at, store, nth, touched, &mut run)? {
                asked.add(span);
            }
        }
        Ok(asked)
    }

    /// Returns the first address that `store`, step `at`, needs to have invalidated and that the
    /// `invalidations` do not cover. The store was found to be legal.
    pub fn first_uncovered(&mut self, at: usize, store: &Store, invalidations: &[Step]) -> Option<Va> {
        let page_shift = self.context.page_shift;
        // From the first leaf that changes to the last there may be some that need no invalidation.
        // Where the whole span is not covered, each leaf is looked at.
        if let Some(span) = self.together(at, store)
            && span.is_none_or(|span| covers(page_shift, invalidations, span))
        {
            return None;
        }
        let touched = self.history.touches(at, store);
        let mut run = Run::default();
        (0..usize::from(store.count)).find_map(|nth| {
            let span = self.entry(at, store, nth, touched, &mut run).ok()??;
            if covers(page_shift, invalidations, span) {
                return None;
            }
            match span.reach {
                Reach::LastLevel => Some(Va(span.first)),
                Reach::AllLevels => self.first_held_below(at, store, nth, invalidations),
            }
        })
    }

    pub fn part_of_run(&self, store: &Store, index: usize) -> BrokenRule {
        let nth = (index - usize::from(store.index)) as u64;
        let va = Va(store.va.0 + (nth << self.context.shift(store.level)));
        BrokenRule::PartOfRun { va, table: store.table, level: store.level, index }
    }

    /// Checks entry `nth` of `store`, step `at`, and returns what has to be invalidated.
    #[inline(always)]
    fn entry(
        &mut self,
        at: usize,
        store: &Store,
        nth: usize,
        touched: bool,
        run: &mut Run,
    ) -> Result<Option<Span>, BrokenRule> {
        let Store { table, level, edit, .. } = *store;
        let index = usize::from(store.index) + nth;
        let va = store.va.0.wrapping_add((nth as u64) << self.context.shift(level));
        let memory = self.context.read(self.window, level, table, index);
        if !touched {
            let new = edit.of(memory, nth);
            self.check_update(at, (va, index, store), memory, new)?;
            self.note_memory_type(at, va, level, memory, new);
            self.stored(va, store, index, memory, new, run)?;
            return self.replaced(at, va, store, index, [memory; 2], new);
        }
        // What TLBs may hold: the entry's value when all was clean, and its values since.
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
                // The last slot holds the latest value. A plan that changes an entry more often
                // either breaks a rule for one of the values in the slots, or repeats one of them.
                held[versions.min(VERSIONS - 1)] = value;
                versions = (versions + 1).min(VERSIONS);
            }
        });
        if unfolding && at >= self.compared {
            return Err(BrokenRule::RunUnordered { va: Va(va) });
        }
        let new = edit.of(now, nth);
        self.check_update(at, (va, index, store), now, new)?;
        self.note_memory_type(at, va, level, memory, new);
        self.stored(va, store, index, now, new, run)?;
        if memory.is_valid() && !now.is_valid() && new.is_valid() && !self.exclusivity.allows_breaks() {
            return Err(BrokenRule::InUse { va: Va(va), old: memory, new });
        }
        let mut result = None;
        for held in held.into_iter().take(versions) {
            if let span @ Some(_) = self.replaced(at, va, store, index, [held, now], new)? {
                result = span;
            }
        }
        Ok(result)
    }

    /// Checks the new value of an entry whose value was `now` just before.
    #[inline(always)]
    fn stored(
        &self,
        va: u64,
        store: &Store,
        index: usize,
        now: Descriptor,
        new: Descriptor,
        run: &mut Run,
    ) -> Result<(), BrokenRule> {
        // As hardware, these may change one entry of a run.
        if !matches!(store.edit, Edit::Update(Update::Gather | Update::Collect { .. })) {
            run.check(self.context, store, index, now, new).ok_or_else(|| self.part_of_run(store, index))?;
        }
        if !self.tables_ordered
            && new != now
            && let Decoded::Table(next) = new.decode(self.context.geometry, store.level)
        {
            return Err(BrokenRule::TableUnordered { va: Va(va), table: next });
        }
        Ok(())
    }

    /// Checks `new` where TLBs may hold `held` and the entry was `now` just before, and returns
    /// what has to be invalidated.
    #[inline(always)]
    fn replaced(
        &mut self,
        at: usize,
        va: u64,
        store: &Store,
        index: usize,
        [held, now]: [Descriptor; 2],
        new: Descriptor,
    ) -> Result<Option<Span>, BrokenRule> {
        let Store { table, level, .. } = *store;
        let TreeContext { geometry, bbm, .. } = *self.context;
        // From BBM level 1 on a TLB may still hold the run when a table replaces one of its former
        // blocks.
        let unfolded = held != now
            && bbm != BbmLevel::L0
            && matches!(held.decode(geometry, level), Decoded::Leaf(_))
            && matches!(new.decode(geometry, level), Decoded::Table(_));
        let old = if unfolded { Descriptor(held.0 & !CONTIGUOUS) } else { held };
        let mut requirement = bbm::change(geometry, level, old, new, bbm);
        if self.context.updates.is_on() {
            requirement = requirement.max(self.updated_requirement(store, old, now, new));
        }
        if requirement > Requirement::Invalidate {
            let va = Va(va);
            return Err(BrokenRule::Forbidden { va, table, level, index, old, new, requirement, bbm });
        }
        if !self.exclusivity.allows_resizes()
            && bbm != BbmLevel::L3
            && bbm::resizes(geometry, level, old, new)
        {
            return Err(BrokenRule::InUse { va: Va(va), old, new });
        }
        if self.compares && at >= self.compared {
            // The store that unfolds a run also gives all of its entries what hardware has updated
            // in one.
            self.check_identical(va, level, if unfolded { now } else { old }, new)?;
        }
        if requirement != Requirement::Invalidate {
            return Ok(None);
        }
        Ok(Some(match old.decode(geometry, level) {
            Decoded::Table(_) => Span::table(geometry, level, va),
            _ => Span::leaves(va, 1, self.context.shift(level)),
        }))
    }

    /// Refuses a table that replaces a block, or the reverse, unless both translate identically.
    pub fn check_identical(
        &mut self,
        va: u64,
        level: Level,
        old: Descriptor,
        new: Descriptor,
    ) -> Result<(), BrokenRule> {
        if self.context.updates.is_on() {
            return self.check_identical_updated(va, level, old, new);
        }
        let geometry = self.context.geometry;
        let (link, table, block, pa) = match (old.decode(geometry, level), new.decode(geometry, level)) {
            (Decoded::Leaf(pa), Decoded::Table(table)) => (new, table, old, pa),
            (Decoded::Table(table), Decoded::Leaf(pa)) => (old, table, new, pa),
            _ => return Ok(()),
        };
        let said = level.next().and_then(|next| uniform_below(self.context, self.window, link, table, next));
        if said == Some((attributes_of(geometry, block), pa)) {
            return Ok(());
        }
        Err(BrokenRule::Differs { va: Va(va), table, block })
    }
}
