//! Going on behind a violation.
//!
//! One mistake must not be reported twice, and must not hide another. So the model forgets what
//! took part in the violation: the overwritten descriptors that one invalidation or barrier would
//! have removed, the stores that one DSB would have ordered, the context that one ISB would have
//! synchronized. All else stays as it is, and the event is carried out.

use linmap_trace::{Access, Domain, Event, Register};

use crate::cached::{Held, SEEN, run_shift};
use crate::culprit::Culprit;
use crate::descriptor::{Entry, read};
use crate::machine::{Machine, NO_TABLE, Root, TableUse};
use crate::regime::Regime;
use crate::rules::Rule;
use crate::scope::Scope;
use crate::space::Space;
use crate::step::MAX_WORK;
use crate::violation::Violation;

/// The most completed TLBIs that are remembered, to tell one that came too early.
pub(crate) const RECENT: usize = 256;

/// What became of an event that broke a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumed {
    /// It was carried out.
    Done,
    /// It breaks a rule by another mistake as well.
    Broken(Violation),
    /// The model can't go on behind this violation: what the event means is not known.
    Stuck,
}

/// What tells records apart.
fn key(held: &Held) -> (u32, i8, u64, u64, bool) {
    (held.root, held.level, held.va, held.value, held.combined)
}

impl Machine {
    /// Forgets what took part in the violation that [`step`](Self::step) has just reported, or this
    /// function, and carries out the rest of its `event`.
    pub fn resume(&mut self, event: &Event) -> Resumed {
        let Some(violation) = self.broken else { return Resumed::Done };
        if matches!(
            violation.rule,
            Rule::TooComplex | Rule::Unmodelled | Rule::TranslationControl | Rule::NoSuchCpu
        ) {
            return Resumed::Stuck;
        }
        self.broken = None;
        self.work = MAX_WORK;
        self.reported.insert(violation.mistake());
        self.forget(&violation, event);
        if self.mend_links().is_err() {
            return self.stuck(violation);
        }
        match self.again(event) {
            Ok(()) => self.done(),
            Err(found) if self.reported.contains(&found.mistake()) => {
                self.force(event);
                if self.mend_links().is_err() { self.stuck(violation) } else { self.done() }
            }
            Err(found) => {
                let found = Violation { event: violation.event, ..found };
                self.broken = Some(found);
                Resumed::Broken(found)
            }
        }
    }

    fn done(&mut self) -> Resumed {
        self.reported.clear();
        Resumed::Done
    }

    fn stuck(&mut self, violation: Violation) -> Resumed {
        self.broken = Some(violation);
        Resumed::Stuck
    }

    /// Forgets what took part in `violation`.
    fn forget(&mut self, violation: &Violation, event: &Event) {
        match violation.rule {
            Rule::NoIsb => {
                let cpus = violation.cpu.map_or(0..self.cpus.len(), |cpu| cpu..cpu + 1);
                for cpu in cpus {
                    // Nothing is left to be checked: the ISB counts as executed.
                    self.links_whole &= self.isb(cpu).is_ok();
                }
            }
            Rule::Unordered => self.order_near(violation),
            Rule::UnknownEntry => {
                if let Some(pa) = violation.pa {
                    let page = pa & !0xfff;
                    let words = (page..page + 0x1000).step_by(8);
                    let storing =
                        words.fold(self.memory.first_by(pa), |cpus, pa| cpus | self.memory.storing(pa));
                    self.order(storing);
                    self.memory.make_known(pa);
                    self.links_whole = false;
                }
            }
            Rule::LostUpdate => {
                let _ = violation.pa.map(|pa| self.hardware_updates(pa, None));
            }
            Rule::OtherValue => {
                if let (Some(pa), Some(found)) = (violation.pa, violation.new) {
                    self.memory.update(pa, found);
                    self.links_whole = false;
                    self.dirty.everything();
                }
            }
            Rule::MixedRun | Rule::IncompleteRun | Rule::MisalignedRun => self.excuse_run(violation),
            _ => self.forget_held(violation, event),
        }
    }

    /// Orders the stores of every CPU that has one to an entry for the violation's address, and
    /// forgets what they replaced.
    fn order_near(&mut self, violation: &Violation) {
        let near: Vec<u64> = self.memory.unordered().collect();
        let mut cpus = 0;
        for pa in near {
            let concerns = violation.pa == Some(pa)
                || violation.va.is_some_and(|va| self.is_entry_for(pa, va) || violation.pa.is_none());
            if concerns {
                cpus |= self.memory.storing(pa);
            }
        }
        self.order(cpus);
    }

    /// Takes a DSB of `cpus` as executed before this event, and with it what invalidations would
    /// have removed that came after their stores.
    fn order(&mut self, cpus: u64) {
        let now = self.now;
        let mut late = Vec::new();
        for space in Space::ALL {
            late.extend(
                self.cached.of(space).all().filter(|held| held.since == SEEN).map(|held| (space, *held)),
            );
        }
        for cpu in (0..self.cpus.len()).filter(|cpu| cpus >> cpu & 1 == 1) {
            // Stores are ordered without a check.
            self.links_whole &= self.dsb(cpu, Domain::Ish, Access::Stores).is_ok();
        }
        // Every ISB since comes after it.
        for cpu in 0..self.cpus.len() {
            self.fresh.synchronized(cpu, now);
        }
        for (space, Held { root, level, va, value, replaced, .. }) in late {
            let shape = self.shapes[space.index()];
            if replaced < now {
                let taken = self.cached.of_mut(space).take(shape, va, va, |held| {
                    (held.root, held.level, held.va, held.value) == (root, level, va, value)
                        && held.since == now
                });
                self.release_all(taken);
            } else if let Some(held) = self.cached.of_mut(space).find(root, level, va, value) {
                held.since = now;
            }
        }
    }

    /// Excuses the contiguous run of the violation until software relies on it whole.
    fn excuse_run(&mut self, violation: &Violation) {
        let Some(pa) = violation.pa else { return };
        let mut runs = Vec::new();
        self.each_place(pa, |place| {
            let run = self.roots[place.root as usize].shape.run(place.level).max(1) as u64;
            runs.push((place.root, place.level, pa & !(8 * run - 1)));
        });
        self.excused.extend(runs);
    }

    /// Forgets what CPUs hold because of the mistake, and what relies on it.
    fn forget_held(&mut self, violation: &Violation, event: &Event) {
        let found =
            Space::ALL.into_iter().find_map(|space| Some((space, Culprit::entry(self, violation, space)?)));
        let relies =
            matches!(violation.rule, Rule::MayFault | Rule::MayAbort | Rule::WrongAddress | Rule::MayPass);
        let is_access = matches!(event, Event::Access { .. } | Event::Faults { .. } | Event::Uses { .. });
        match found {
            Some((space, held)) if held.since == SEEN && held.replaced < self.now => {
                // The store that replaced it was not ordered.
                self.order_near(&Violation { pa: None, va: Some(held.va), ..*violation });
                self.forget_edit(space, held);
            }
            Some((space, held)) => self.forget_edit(space, held),
            None if relies && !is_access => self.forget_uses(violation),
            None => self.forget_trees(violation),
        }
    }

    /// Forgets the promise that the violation's address is in use.
    fn forget_uses(&mut self, violation: &Violation) {
        let (Some(cpu), Some(va)) = (violation.cpu, violation.va) else { return };
        self.cpus[cpu].uses.retain(|in_use| va < in_use.va || in_use.last < va);
    }

    /// Forgets the trees that CPUs left.
    fn forget_trees(&mut self, violation: &Violation) {
        self.links_whole = false;
        self.dirty.everything();
        let cpus = violation.cpu.map_or(0..self.cpus.len(), |cpu| cpu..cpu + 1);
        for cpu in cpus {
            for space in 0..self.cpus[cpu].left.len() {
                self.cpus[cpu].left[space].clear();
                let walks = &mut self.cpus[cpu].walks[space];
                let certain = walks.len().saturating_sub(1);
                walks.drain(..certain);
            }
        }
        for root in &mut self.roots {
            root.retired = None;
        }
    }

    /// Forgets `held`, and whatever the same edit left behind because of the same mistake: if a DSB
    /// is missing, all that it would have done; else the neighbours, which one TLBI removes.
    fn forget_edit(&mut self, space: Space, held: Held) {
        let shape = self.shapes[space.index()];
        // A TLBI that reaches it waits for a DSB: all that wait for the same are complete.
        let waiting = (0..self.cpus.len()).find(|&cpu| {
            self.cpus[cpu]
                .tlbis
                .iter()
                .any(|(scope, since)| *since >= held.since && self.is_in_scope(scope, &held))
        });
        if let Some(cpu) = waiting {
            let everyone = self.everyone();
            for (scope, since) in std::mem::take(&mut self.cpus[cpu].tlbis) {
                let reached = if scope.broadcast { everyone } else { 1 << cpu };
                self.links_whole &= self.invalidate(cpu, &scope, since, reached).is_ok();
            }
            self.cpus[cpu].invalidated.clear();
        }
        // A TLBI that reaches it came before the DSB that ordered the store: so did all that were
        // ordered with it.
        if self.is_early(&held) {
            for early in self.early_as(space, &held) {
                let same = |other: &Held| key(other) == key(&early);
                let taken = self.cached.of_mut(space).take(shape, early.va, early.va, same);
                self.release_all(taken);
            }
        }
        // What the same edit left behind beside it, up to the next TLBI of that edit.
        let last_of = |held: &Held| held.va + ((1u64 << shape.shift(held.level)) - 1);
        let tlbis =
            self.recent.iter().filter(|(scope, issued)| *issued > held.replaced && scope.reaches(space));
        let ranges: Vec<(u64, u64)> = tlbis.filter_map(|(scope, _)| scope.range).collect();
        let after = ranges.iter().map(|(from, _)| *from).filter(|from| *from > held.va).min();
        let before = ranges.iter().map(|(_, to)| *to).filter(|to| *to < held.va).max();
        let (mut first, mut last) = (held.va, last_of(&held));
        for other in self.cached.of(space).of_edit(held.edit).filter(|other| other.root == held.root) {
            let (from, to) = (other.va, last_of(other));
            if before.is_none_or(|before| before < from) && after.is_none_or(|after| to < after) {
                (first, last) = (first.min(from), last.max(to));
            }
        }
        // All entries of a run are held as one.
        let run = (1u64 << run_shift(shape, held.level)) - 1;
        let (first, last) = if held.runs != 0 { (first & !run, last | run) } else { (first, last) };
        let taken = self.cached.of_mut(space).take(shape, first, last, |other| other.edit == held.edit);
        self.release_all(taken);
        self.forget_beside(space, held);
        for cpu in &mut self.cpus {
            cpu.invalidated.retain(|other| other.edit != held.edit || other.va < first || last < other.va);
        }
    }

    /// Whether a completed TLBI reaches `held`, but was issued before the store that replaced it
    /// was ordered.
    fn is_early(&self, held: &Held) -> bool {
        held.since != SEEN
            && self.recent.iter().any(|(scope, issued)| {
                *issued < held.since && *issued > held.replaced && self.is_in_scope(scope, held)
            })
    }

    /// The records that were ordered with `held`, and that a TLBI reached as early.
    fn early_as(&self, space: Space, held: &Held) -> Vec<Held> {
        let shape = self.shapes[space.index()];
        let scopes =
            self.recent.iter().filter(|(scope, issued)| *issued < held.since && scope.reaches(space));
        // The addresses that the TLBIs name: all, if one names none.
        let ranges: Option<Vec<_>> = scopes.map(|(scope, _)| scope.range).collect();
        let mut ranges = ranges.unwrap_or_else(|| vec![(0, u64::MAX)]);
        ranges.sort_unstable();
        ranges.dedup();
        let near =
            ranges.iter().flat_map(|(first, last)| self.cached.of(space).touching(shape, *first, *last));
        near.filter(|other| other.since == held.since && self.is_early(other)).collect()
    }

    /// Forgets what else may be held for the address of `held`, as a block that was split before:
    /// the invalidation that is missing would have removed it, too. One of leaves would not have
    /// removed a pointer.
    fn forget_beside(&mut self, space: Space, held: Held) {
        if held.since == SEEN {
            return;
        }
        let shape = self.shapes[space.index()];
        let last = held.va + ((1u64 << shape.shift(held.level)) - 1);
        let is_leaf = |held: &Held| matches!(read(shape, space, held.level, held.value), Entry::Leaf(_));
        let all = !is_leaf(&held);
        let taken = self.cached.of_mut(space).take(shape, held.va, last, |other| {
            other.since != SEEN && other.root == held.root && (all || is_leaf(other))
        });
        self.release_all(taken);
    }

    /// Ends that the pointers among `taken`, which are no longer held, lead to tables.
    fn release_all(&mut self, taken: Vec<Held>) {
        for Held { root, level, va, value, .. } in taken {
            self.links_whole &= self.release(root, level, va, value).is_ok();
        }
    }

    /// Whether `scope` reaches the addresses of `held`.
    fn is_in_scope(&self, scope: &Scope, held: &Held) -> bool {
        let root = self.roots[held.root as usize];
        let last = held.va + ((1u64 << root.shape.shift(held.level)) - 1);
        scope.void.is_none() && scope.reaches(root.space) && scope.touches(held.va, last)
    }

    /// Carries out the rest of `event`. What was done already is not done again.
    fn again(&mut self, event: &Event) -> Result<(), Violation> {
        self.work = MAX_WORK;
        self.run(event)
    }

    /// Carries out `event`, whatever the rules say.
    fn force(&mut self, event: &Event) {
        self.work = MAX_WORK;
        match *event {
            Event::Store { cpu, pa, value, .. } | Event::Update { cpu, pa, value, .. } => {
                let _ = self.store(cpu, pa, value);
            }
            Event::Fill { cpu, pa, count, first, step } => {
                for nth in 0..count.min(1 << 20) {
                    let _ = self.store(cpu, pa + 8 * nth, first.wrapping_add(step.wrapping_mul(nth)));
                }
            }
            Event::Write { cpu, register, value } => {
                let space = match register {
                    Register::Ttbr0 => Space::Low,
                    Register::Ttbr1 => Space::High,
                    Register::Ttbr0El2 => Space::El2,
                    Register::Ttbr1El2 => Space::El2High,
                    Register::Ttbr0El3 => Space::El3,
                    Register::Vttbr => Space::Stage2,
                    Register::Mair => return self.force_mair(Regime::El1, value),
                    Register::MairEl2 => return self.force_mair(Regime::El2, value),
                    Register::MairEl3 => return self.force_mair(Regime::El3, value),
                    Register::Tcr
                    | Register::TcrEl2
                    | Register::TcrEl3
                    | Register::Vtcr
                    | Register::Hcr
                    | Register::Sctlr
                    | Register::SctlrEl2
                    | Register::SctlrEl3 => return,
                };
                if let (Ok(table), Ok(id)) =
                    (self.base_table(cpu, space, value), self.base_id(cpu, space, value))
                {
                    let root = self.root(space, table, id);
                    self.cpus[cpu].walks[space.index()] = vec![root];
                    self.links_whole = false;
                    self.dirty.everything();
                }
            }
            Event::Free { pa, len } => {
                self.memory.forget(pa, len);
                self.links_whole = false;
                self.freed.extend((pa..pa.saturating_add(len)).step_by(0x1000).take(1 << 20));
            }
            Event::Settled => self.settled = Some(self.events - 1),
            _ => {}
        }
    }

    fn force_mair(&mut self, regime: Regime, value: u64) {
        self.mair[regime.index()] = Some(value);
    }

    /// Records anew which tables walks can reach, if that is not known exactly.
    fn mend_links(&mut self) -> Result<(), Violation> {
        if self.links_whole { Ok(()) } else { self.link_all() }
    }

    /// Records anew which tables walks can reach, without judging them.
    fn link_all(&mut self) -> Result<(), Violation> {
        self.work = MAX_WORK;
        self.straight = None;
        self.places = 0;
        let tables: Vec<u64> = self.tables.drain().map(|(table, _)| table).collect();
        for table in tables {
            // A root has up to 16 tables.
            for page in (table..table.saturating_add(16 * self.config.granule)).step_by(0x1000) {
                if self.memory.is_table(page) {
                    self.memory.mark_table(page, false);
                }
            }
        }
        self.alive.clear();
        for nth in 0..self.roots.len() as u32 {
            let Root { space, table, shape, .. } = self.roots[nth as usize];
            let at = space.index();
            let holds = |cpu: &crate::machine::Cpu| {
                cpu.walks[at].contains(&nth) || cpu.left[at].iter().any(|left| left.root == nth)
            };
            let cpus = self.cpus.iter().enumerate().filter(|(_, cpu)| holds(cpu));
            let cpus = cpus.fold(0, |set, (cpu, _)| set | 1 << cpu);
            self.roots[nth as usize].cpus = cpus;
            if cpus != 0 {
                self.alive.push(nth);
            }
            if cpus != 0 && table != NO_TABLE {
                self.link_unjudged(nth, table, shape.start, shape.base(space))?;
            }
        }
        for space in self.spaces() {
            let held: Vec<Held> = self.cached.of(space).all().copied().collect();
            for Held { root, level, va, value, .. } in held {
                let Root { shape, .. } = self.roots[root as usize];
                if let Entry::Table(table) = read(shape, space, level, value) {
                    self.link_unjudged(root, table, level + 1, va)?;
                }
            }
        }
        self.links_whole = true;
        Ok(())
    }

    fn link_unjudged(&mut self, root: u32, table: u64, level: i8, va: u64) -> Result<(), Violation> {
        self.spend()?;
        let Root { space, shape, .. } = self.roots[root as usize];
        let bytes = 8 * shape.entries(level) as u64;
        if self.freed.contains(&(table & !0xfff)) || !self.memory.holds(table, bytes) {
            return Ok(());
        }
        let list = self.tables.entry(table).or_default();
        if let Some(at) = list.iter_mut().find(|at| (at.root, at.level, at.va) == (root, level, va)) {
            at.references += 1;
            return Ok(());
        }
        list.push(TableUse { root, level, va, references: 1 });
        self.places += 1;
        for page in (table..table + bytes).step_by(0x1000) {
            self.memory.mark_table(page, true);
        }
        if level == 3 && self.roots[root as usize].global {
            return Ok(());
        }
        for index in 0..shape.entries(level) as u64 {
            let value = self.memory.newest(table + 8 * index).unwrap_or(0);
            self.note_global(root, level, value);
            if let Entry::Table(next) = read(shape, space, level, value) {
                self.link_unjudged(root, next, level + 1, va + (index << shape.shift(level)))?;
            }
        }
        Ok(())
    }
}
