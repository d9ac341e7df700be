//! The check of a plan: every step against the memory as it is, what the steps before have made of it, and what TLBs may
//! still hold.
//!
//! It knows nothing of how plans are made. A plan that it accepts breaks no rule of Arm ARM D8.16 on CPUs with the tree's BBM
//! level, whoever made it; it may refuse unusual ones that would be legal.

use core::slice;

use linmap_vmsa::bbm::{self, Requirement};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::tlbi::RangeOperand;
use linmap_vmsa::{Decoded, Descriptor, Level, Pa, Va};

use super::entry::{CONTIGUOUS, attributes_of};
use super::fold::uniform;
use super::history::History;
use super::invalidate::Span;
use super::plan::{Edit, Invalidation, Reach, Step, Store};
use super::refused::{Refused, Violation};
use super::{Node, Regime};
use crate::cpu::Dsb;
use crate::walk::read;
use crate::window::TableWindow;

/// Checks `steps` on the tree as it is in memory.
pub(super) fn check<W: TableWindow>(
    regime: Regime,
    quiescent: bool,
    steps: &[Step],
    window: &mut W,
) -> Result<(), Refused> {
    let mut checker = Checker {
        regime,
        quiescent,
        steps,
        window,
        history: History::new(regime.geometry, steps),
        clean_from: 0,
        stale: None,
        stale_unordered: false,
        hull: Hull::Nothing,
        everything_issued: false,
        issued: false,
        unordered: false,
        tables_ordered: false,
        ordered_to: 0,
        unsynchronised: false,
        freed_to: None,
        compared: 0,
        reached: None,
    };
    for (at, step) in steps.iter().enumerate() {
        checker.step(at, step).map_err(|violation| Refused { step: at, violation })?;
    }
    checker.end().map_err(|violation| Refused { step: steps.len(), violation })
}

struct Checker<'c, 's, W> {
    regime: Regime,
    quiescent: bool,
    steps: &'s [Step],
    window: &'c mut W,
    history: History<'s>,
    /// What stores in front of this step replaced is in no TLB any more.
    clean_from: usize,
    /// An address whose translation in TLBs may be out of date.
    stale: Option<Va>,
    /// Whether a store that made one so is not ordered yet.
    stale_unordered: bool,
    /// What the stores since everything was clean ask to be invalidated together, and the last that asks.
    hull: Hull,
    /// Whether everything is being invalidated, behind all stores that ask for it.
    everything_issued: bool,
    /// Whether anything is being invalidated.
    issued: bool,
    unordered: bool,
    tables_ordered: bool,
    /// The step behind the last DSB.
    ordered_to: usize,
    unsynchronised: bool,
    /// The last address of the last table freed. They are freed in ascending order, so that none is freed twice.
    freed_to: Option<u64>,
    /// Up to this step, tables and blocks that replace each other were compared.
    compared: usize,
    /// The last table that a walk has come to.
    reached: Option<Node>,
}

/// What all stores since everything was clean ask to be invalidated.
#[derive(Clone, Copy, Debug)]
enum Hull {
    Nothing,
    /// All of one span, the last part of it by the store at this step.
    One(Span, usize),
    /// More than one span.
    Many,
}

/// How many values of one entry are told apart since everything was clean.
const VERSIONS: usize = 4;

/// What a single store to a single entry asks for.
enum Need {
    Nothing,
    Invalidate(Span),
}

impl<W: TableWindow> Checker<'_, '_, W> {
    fn step(&mut self, at: usize, step: &Step) -> Result<(), Violation> {
        match step {
            Step::Store(store) => self.store(at, store),
            Step::Dsb(Dsb::Nsh) => Ok(()),
            Step::Dsb(dsb) => {
                self.unordered = false;
                self.tables_ordered = true;
                self.ordered_to = at + 1;
                self.stale_unordered = false;
                if *dsb == Dsb::Ish && self.issued {
                    self.complete(at);
                }
                Ok(())
            }
            Step::Isb => {
                self.unsynchronised = self.unordered || self.stale.is_some();
                Ok(())
            }
            Step::Invalidate(invalidation) => self.invalidate(*invalidation),
            Step::Free { va, table, level } => self.free(at, *va, *table, *level),
        }
    }

    fn end(&self) -> Result<(), Violation> {
        if self.unordered {
            return Err(Violation::StoresUnordered);
        }
        if let Some(va) = self.stale {
            return Err(Violation::NotInvalidated { va });
        }
        if self.unsynchronised {
            return Err(Violation::NoIsb);
        }
        Ok(())
    }

    fn store(&mut self, at: usize, store: &Store) -> Result<(), Violation> {
        let Store { va, table, level, index, count, .. } = *store;
        let geometry = self.regime.geometry;
        let entries = geometry.entries(level);
        let fits = level >= geometry.start_level()
            && count > 0
            && usize::from(index) + usize::from(count) <= entries
            && geometry.index(va, level) == usize::from(index)
            && va.0 & (geometry.entry_bytes(level) - 1) == 0
            && va.0 >> geometry.va_bits() == self.regime.base() >> geometry.va_bits();
        if !fits {
            return Err(Violation::NoSuchEntries { va, level, index, count });
        }
        if !self.is_reached(at, va.0, level, table) {
            return Err(Violation::OtherTable { va, level, table });
        }
        let mut stale = None;
        let mut hull = self.hull;
        self.needs(at, store, |span| {
            stale = Some(Va(span.first));
            hull = match hull {
                Hull::Nothing => Hull::One(span, at),
                Hull::One(before, _) => before.joined(span).map_or(Hull::Many, |span| Hull::One(span, at)),
                Hull::Many => Hull::Many,
            };
            true
        })?;
        self.hull = hull;
        self.compared = at + 1;
        if stale.is_some() {
            self.stale = stale;
            self.stale_unordered = true;
            self.everything_issued = false;
        }
        self.unordered = true;
        self.unsynchronised = true;
        if self.reached.is_some_and(|reached| reached.level > level) {
            self.reached = None;
        }
        self.history.push(at, store);
        Ok(())
    }

    /// Whether the walk for `va`, with the stores before step `at` done, comes to `table` at `level`.
    fn is_reached(&mut self, at: usize, va: u64, level: Level, table: Pa) -> bool {
        let geometry = self.regime.geometry;
        let near = self.reached.filter(|node| {
            let index = va.wrapping_sub(node.base) >> geometry.shift(node.level);
            node.level <= level && index < geometry.entries(node.level) as u64
        });
        let node = self.walk(at, near.unwrap_or(self.regime.top()), va, level);
        self.reached = Some(node);
        node.level == level && node.table == table
    }

    /// The table at `level`, or the last above it, that the walk for `va` from `node` on comes to, with the stores before step
    /// `at` done.
    fn walk(&mut self, at: usize, node: Node, va: u64, level: Level) -> Node {
        let shift = self.regime.geometry.shift(level);
        let value = |table, index, memory| self.history.values(at, (table, index, va), memory, |_, _| {});
        self.regime.descend(node, self.window, va, |above| above > shift, value)
    }

    /// Runs `need` on each part of what `store`, step `at`, asks to be invalidated, until it returns false.
    fn needs(
        &mut self,
        at: usize,
        store: &Store,
        mut need: impl FnMut(Span) -> bool,
    ) -> Result<(), Violation> {
        let shift = self.regime.geometry.shift(store.level);
        let touched = self.history.touches(at, store.va.0, self.history.last(store));
        // Permissions of pages: the bits decide, whatever the entries are.
        if let Edit::Bits { clear, set } = store.edit
            && store.level == Level::L3
            && !touched
            && bbm::never_breaks(clear, set)
            && (self.regime.bbm != BbmLevel::L0 || !self.any_contiguous(store))
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
        // writes to it meanwhile: the tree's one `LiveTree` is borrowed, and hardware updates are off.
        let entries =
            unsafe { slice::from_raw_parts(pointer.as_ptr().add(store.index.into()), store.count.into()) };
        let any = entries.iter().fold(0, |any, entry| any | entry);
        self.window.close(store.level);
        any & CONTIGUOUS != 0
    }

    /// Refuses a store of permissions that begins or ends within a contiguous run.
    fn ends_of_runs(&mut self, store: &Store) -> Result<(), Violation> {
        let Some(run) = self.regime.run(store.level) else { return Ok(()) };
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

    /// Whether the walk from the root, with the stores before step `at` done, comes to `table` at `level`.
    fn leads_to(&mut self, at: usize, va: u64, level: Level, table: Pa) -> bool {
        let node = self.walk(at, self.regime.top(), va, level);
        node.level == level && node.table == table
    }

    fn part_of_run(&self, store: &Store, index: usize) -> Violation {
        let nth = (index - usize::from(store.index)) as u64;
        let va = Va(store.va.0 + (nth << self.regime.geometry.shift(store.level)));
        Violation::PartOfRun { va, table: store.table, level: store.level, index }
    }

    /// What entry `nth` of `store`, step `at`, asks for.
    fn entry(
        &mut self,
        at: usize,
        store: &Store,
        nth: usize,
        touched: bool,
        run: &mut Run,
    ) -> Result<Need, Violation> {
        let Store { table, level, edit, .. } = *store;
        let Regime { geometry, bbm, .. } = self.regime;
        let index = usize::from(store.index) + nth;
        let va = store.va.0 + ((nth as u64) << geometry.shift(level));
        let memory = read(self.window, level, table, index);
        // What TLBs may hold: what the entry was when all was clean, and all that it has been since.
        let mut held = [memory; VERSIONS];
        let mut versions = 1;
        let mut now = memory;
        if touched {
            let clean_from = self.clean_from;
            let ordered_to = self.ordered_to;
            let mut before = memory;
            let mut unfolding = false;
            now = self.history.values(at, (table, index, va), memory, |step, value| {
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
                return Err(Violation::RunUnordered { va: Va(va) });
            }
        }
        let new = edit.of(now, nth);
        run.check(self.regime, store, index, now, new).ok_or_else(|| self.part_of_run(store, index))?;
        let back = memory.is_valid() && !now.is_valid() && new.is_valid();
        if back && !self.quiescent {
            return Err(Violation::InUse { va: Va(va), old: memory, new });
        }
        if let Decoded::Table(next) = new.decode(geometry, level)
            && new != now
            && !self.tables_ordered
        {
            return Err(Violation::TableUnordered { va: Va(va), table: next });
        }
        let mut result = Need::Nothing;
        for held in held.into_iter().take(versions) {
            // From BBM level 1 on a TLB may still hold a run that is none any more when a table replaces one of its blocks.
            let unfolded = held != now
                && bbm != BbmLevel::L0
                && matches!(held.decode(geometry, level), Decoded::Leaf(_))
                && matches!(new.decode(geometry, level), Decoded::Table(_));
            let old = if unfolded { Descriptor(held.0 & !CONTIGUOUS) } else { held };
            let requirement = bbm::change(geometry, level, old, new, bbm);
            if requirement > Requirement::Invalidate {
                let va = Va(va);
                return Err(Violation::Forbidden { va, table, level, index, old, new, requirement, bbm });
            }
            if !self.quiescent && bbm != BbmLevel::L3 && bbm::resizes(geometry, level, old, new) {
                return Err(Violation::InUse { va: Va(va), old, new });
            }
            if at >= self.compared {
                self.alike(va, level, old, new)?;
            }
            if requirement == Requirement::Invalidate {
                result = match old.decode(geometry, level) {
                    Decoded::Table(_) => Need::Invalidate(Span::table(geometry, level, va)),
                    _ => Need::Invalidate(Span::leaves(va, 1, geometry.shift(level))),
                };
            }
        }
        Ok(result)
    }

    /// Refuses a table in the place of a block, or a block in that of a table, that does not say the same.
    fn alike(&mut self, va: u64, level: Level, old: Descriptor, new: Descriptor) -> Result<(), Violation> {
        let geometry = self.regime.geometry;
        let (table, block, pa) = match (old.decode(geometry, level), new.decode(geometry, level)) {
            (Decoded::Leaf(pa), Decoded::Table(table)) => (table, old, pa),
            (Decoded::Table(table), Decoded::Leaf(pa)) => (table, new, pa),
            _ => return Ok(()),
        };
        let said = level.next().and_then(|next| uniform(geometry, self.window, table, next));
        if said == Some((attributes_of(geometry, block), pa)) {
            return Ok(());
        }
        Err(Violation::Differs { va: Va(va), table, block })
    }

    fn invalidate(&mut self, invalidation: Invalidation) -> Result<(), Violation> {
        if self.stale_unordered {
            return Err(Violation::InvalidationUnordered);
        }
        let possible = match invalidation {
            Invalidation::All => {
                self.everything_issued = true;
                true
            }
            Invalidation::ByVa { count, shift, .. } => count > 0 && shift < 64,
            Invalidation::ByRange { va, pages, .. } => {
                let operand = RangeOperand::any_asid(self.regime.geometry, va, pages);
                self.regime.range_invalidation && operand.is_some_and(|(_, covered)| covered == pages)
            }
        };
        if !possible {
            return Err(Violation::NoSuchInvalidation(invalidation));
        }
        self.issued = true;
        self.unsynchronised = true;
        Ok(())
    }

    /// A DSB at step `at` has completed the invalidations before it: whether those cover all that changed.
    fn complete(&mut self, at: usize) {
        self.issued = false;
        let page_shift = self.regime.geometry.granule().shift();
        let invalidated = match self.hull {
            Hull::One(span, step) => {
                let from = self.next_dsb(step, at).unwrap_or(at);
                covered(page_shift, self.steps.get(from..at).unwrap_or_default(), span)
            }
            Hull::Nothing => true,
            Hull::Many => false,
        };
        if !self.everything_issued && !invalidated {
            let mut open = None;
            let mut ordered_from = 0;
            for step in self.clean_from..at {
                let Some(Step::Store(store)) = self.steps.get(step) else { continue };
                if ordered_from <= step {
                    ordered_from = self.next_dsb(step, at).unwrap_or(at);
                }
                let steps = self.steps.get(ordered_from..at).unwrap_or_default();
                // What was legal when the store was checked still is.
                let _ = self.needs(step, store, |span| {
                    if !covered(page_shift, steps, span) {
                        open = Some(Va(span.first));
                    }
                    open.is_none()
                });
                if open.is_some() {
                    self.stale = open;
                    return;
                }
            }
        }
        self.everything_issued = false;
        self.stale = None;
        self.hull = Hull::Nothing;
        self.clean_from = at;
    }

    /// The first step behind `step` and before `end` that orders it.
    fn next_dsb(&self, step: usize, end: usize) -> Option<usize> {
        (step..end).find(|at| matches!(self.steps.get(*at), Some(Step::Dsb(Dsb::Ishst | Dsb::Ish))))
    }

    fn free(&mut self, at: usize, va: Va, table: Pa, level: Level) -> Result<(), Violation> {
        if self.unordered || self.stale.is_some() {
            return Err(Violation::FreedEarly { va, table });
        }
        let geometry = self.regime.geometry;
        let removed = level > geometry.start_level()
            && va.0 >> geometry.va_bits() == self.regime.base() >> geometry.va_bits()
            && self.freed_to.is_none_or(|last| last < va.0)
            && self.leads_to(0, va.0, level, table)
            && !self.leads_to(at, va.0, level, table);
        let reach = (geometry.entries(level) as u64) << geometry.shift(level);
        if !removed || va.0 & (reach - 1) != 0 {
            return Err(Violation::NotRemoved { va, table });
        }
        self.freed_to = Some(va.0 + (reach - 1));
        Ok(())
    }
}

/// A contiguous run on its way through the entries of a store.
#[derive(Debug, Default)]
struct Run {
    /// What the first entry of the run becomes, and the index behind the last.
    lead: Option<(Descriptor, usize, usize)>,
}

impl Run {
    /// Looks at the next entry of `store`, which changes from `now` to `new`. `None` when it belongs to a run of which not
    /// all is changed, or not alike.
    fn check(
        &mut self,
        regime: Regime,
        store: &Store,
        index: usize,
        now: Descriptor,
        new: Descriptor,
    ) -> Option<()> {
        let shift = regime.geometry.shift(store.level);
        if let Some((lead, start, end)) = self.lead
            && index < end
        {
            let expected = lead.0.wrapping_add(((index - start) as u64) << shift);
            return (new.0 == expected).then_some(());
        }
        let one_of_run = |descriptor: Descriptor| {
            descriptor.is_contiguous()
                && matches!(descriptor.decode(regime.geometry, store.level), Decoded::Leaf(_))
        };
        if !one_of_run(now) && !one_of_run(new) {
            return Some(());
        }
        let count = regime.run(store.level)?;
        let start = index & !(count - 1);
        let whole = usize::from(store.index) <= start
            && start + count <= usize::from(store.index) + usize::from(store.count);
        if !whole {
            return None;
        }
        if !one_of_run(new) {
            return Some(());
        }
        // A run begins with its first entry, at an address that is a multiple of its size.
        let Decoded::Leaf(pa) = new.decode(regime.geometry, store.level) else { return None };
        if index != start || pa.0 & (((count as u64) << shift) - 1) != 0 {
            return None;
        }
        self.lead = Some((new, start, start + count));
        Some(())
    }
}

/// Whether the invalidations among `steps` together cover `span`.
fn covered(page_shift: u32, steps: &[Step], span: Span) -> bool {
    let mut next = span.first;
    loop {
        let before = next;
        for step in steps {
            let Step::Invalidate(invalidation) = step else { continue };
            let Some((first, last)) = hit(page_shift, *invalidation, span) else { continue };
            if first <= next && next <= last {
                if last >= span.last {
                    return true;
                }
                next = last + 1;
            }
        }
        if next == before {
            return false;
        }
    }
}

/// The first and the last address of the entries of `span`'s size that `invalidation` removes.
fn hit(page_shift: u32, invalidation: Invalidation, span: Span) -> Option<(u64, u64)> {
    let (va, count, shift, reach) = match invalidation {
        Invalidation::All => return Some((0, u64::MAX)),
        Invalidation::ByVa { va, count, shift, reach } => (va, u64::from(count), shift, reach),
        Invalidation::ByRange { va, pages, reach } => (va, pages, page_shift, reach),
    };
    if span.reach == Reach::AllLevels && reach == Reach::LastLevel {
        return None;
    }
    let entry = (1u64 << span.shift) - 1;
    let last = if shift > span.shift {
        // Addresses further apart than the entries: only the first is sure.
        va.0
    } else {
        va.0.checked_add(count.checked_sub(1)?.checked_mul(1 << shift)?)?
    };
    Some((va.0 & !entry, last | entry))
}
