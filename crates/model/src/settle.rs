//! Software relies on the tables as they are: everything that may be cached must agree with them.

use crate::cached::{Held, SEEN, run_shift};
use crate::compare::Side;
use crate::descriptor::{Entry, Leaf, as_stored, is_cacheable, read};
use crate::dirty::{Dirty, Progress};
use crate::limits::Limits;
use crate::machine::{Check, Machine, Root, first_cpu};
use crate::rules::Rule;
use crate::space::Space;
use crate::violation::Violation;

/// Level and address before those of all records.
const FIRST: (i8, u64) = (-1, 0);

/// The records that are taken from the set at once.
const AT_ONCE: usize = 256;

/// All addresses.
const EVERYWHERE: (u64, u64) = (0, u64::MAX);

impl Machine {
    /// Checks that software may rely on the tables as they are in memory now.
    pub(crate) fn check_settled(&mut self) -> Check {
        for space in self.spaces() {
            let (dirty, mut progress) = self.dirty.take(space);
            if let Err(violation) = self.check_space(space, &dirty, &mut progress) {
                // It is due when this event is carried out again.
                self.dirty.put_back(space, dirty, progress);
                return Err(violation);
            }
        }
        for cpu in 0..self.cpus.len() {
            let invalidated = self.cpus[cpu].invalidated.clone();
            for held in invalidated {
                self.check_held(Held { cpus: 1 << cpu, ..held }, EVERYWHERE)
                    .map_err(|violation| Violation { rule: Rule::NoIsb, ..violation })?;
            }
        }
        if let Some((cpu, va)) = self.fresh.forgotten() {
            return Err(Violation::new(Rule::NoIsb).on_cpu(cpu).at_va(va));
        }
        self.check_ordered()?;
        self.check_runs()
    }

    /// Checks what is `dirty` in `space`, from `progress` on, which is where it stops.
    fn check_space(&mut self, space: Space, dirty: &Dirty, progress: &mut Option<Progress>) -> Check {
        let everywhere = [EVERYWHERE];
        let ranges = match dirty {
            Dirty::Everything => &everywhere[..],
            Dirty::Ranges(ranges) => ranges,
        };
        let (first, mut from) = progress.take().map_or((0, FIRST), |(nth, level, va)| (nth, (level, va)));
        for (nth, &within) in ranges.iter().enumerate().skip(first) {
            self.check_records(space, from, within).map_err(|(level, va, violation)| {
                *progress = Some((nth, level, va));
                violation
            })?;
            from = FIRST;
            (0..self.cpus.len()).try_for_each(|cpu| self.check_left(space, cpu, within))?;
        }
        Ok(())
    }

    /// Checks the records for the addresses `within`, from level and address `from` on. A
    /// violation comes with the level and address of its record.
    fn check_records(
        &mut self,
        space: Space,
        mut from: (i8, u64),
        within: (u64, u64),
    ) -> Result<(), (i8, u64, Violation)> {
        let shape = self.shapes[space.index()];
        let mut run = None;
        loop {
            // Some at a time: behind a violation the check begins again where it was.
            let held = self.cached.of(space).touching_from(shape, within, from, AT_ONCE);
            let Some(Held { level, va, .. }) = held.last().copied() else { return Ok(()) };
            for held in held {
                // The leaves of one run mostly translate the whole run in one way, which is checked
                // once.
                let says = self.whole_run(&held);
                if says.is_none() || says != run {
                    self.check_held(held, within).map_err(|found| (held.level, held.va, found))?;
                    run = says;
                }
            }
            from = match va.checked_add(1) {
                Some(next) => (level, next),
                None => (level + 1, 0),
            };
        }
    }

    /// The contiguous run that CPUs may hold as one entry because of `held`: its first address, the
    /// leaf of that entry, the root and the CPUs.
    fn whole_run(&self, held: &Held) -> Option<(u64, Leaf, Limits, u32, u64)> {
        let leaf = self.leaf(held.root, held.level, held.value)?;
        let start = held.va & (u64::MAX << run_shift(self.roots[held.root as usize].shape, held.level));
        let leaf = Leaf { pa: leaf.pa.wrapping_sub(held.va - start), ..leaf };
        (held.runs == held.cpus && held.since != SEEN).then_some((
            start,
            leaf,
            held.limits,
            held.root,
            held.cpus,
        ))
    }

    /// Checks a record against the present tables of each CPU that may hold it.
    fn check_held(&mut self, held: Held, within: (u64, u64)) -> Check {
        let violation = |rule| {
            Violation::new(rule)
                .on_cpu(first_cpu(held.cpus))
                .at_va(held.va)
                .with_values(held.value, held.value)
        };
        if held.since == SEEN {
            return Err(violation(Rule::Unordered));
        }
        let space = self.roots[held.root as usize].space;
        let mut roots = Vec::new();
        for cpu in 0..self.cpus.len() {
            let Some(&root) = self.cpus[cpu].walks[space.index()].last() else { continue };
            if held.cpus >> cpu & 1 == 0 || roots.contains(&root) || self.is_asleep(cpu, space) {
                continue;
            }
            roots.push(root);
            let side = Side {
                root: held.root,
                level: held.level,
                va: held.va,
                value: held.value,
                run: held.runs >> cpu & 1 == 1,
                again: false,
            };
            self.check_agrees(root, side, held.limits, within).map_err(|found| Violation {
                va: found.va.or(Some(held.va)),
                ..violation(found.rule).on_cpu(cpu)
            })?;
        }
        Ok(())
    }

    /// Checks trees that `cpu` left but may hold a part of against the tree that it walks.
    fn check_left(&mut self, space: Space, cpu: usize, within: (u64, u64)) -> Check {
        let state = &self.cpus[cpu];
        let Some((&root, before)) = state.walks[space.index()].split_last() else { return Ok(()) };
        if self.is_asleep(cpu, space) {
            return Ok(());
        }
        // So it is almost always.
        if before.is_empty() && state.left[space.index()].is_empty() && self.common[space.index()] == 0 {
            return Ok(());
        }
        let left = state.left[space.index()].iter().map(|left| (left.root, left.invalidated));
        let own = before.iter().map(|root| (*root, false)).chain(left);
        let borrowed = self.borrowed(cpu, space).into_iter().map(|root| (root, false));
        for (other, invalidated) in own.chain(borrowed).collect::<Vec<_>>() {
            let Root { table, shape, .. } = self.roots[other as usize];
            if table == self.roots[root as usize].table {
                continue;
            }
            let below =
                Below { root: other, table, level: shape.start, va: shape.base(space), limits: Limits::NONE };
            self.check_agrees_below(root, below, within).map_err(|violation| {
                let rule = if invalidated { Rule::NoIsb } else { violation.rule };
                Violation { rule, ..violation }.on_cpu(cpu).at_pa(table)
            })?;
        }
        Ok(())
    }

    /// Checks that a DSB has ordered every store to an entry that can be walked.
    fn check_ordered(&self) -> Check {
        let mut first: Option<(u64, u64)> = None;
        for pa in self.memory.unordered() {
            if first.is_some_and(|(first, _)| first < pa) {
                continue;
            }
            self.each_place(pa, |place| first = Some((pa, place.va)));
        }
        match first {
            Some((pa, va)) => Err(Violation::new(Rule::Unordered).at_va(va).at_pa(pa)),
            None => Ok(()),
        }
    }

    /// Checks that `side`, from which the tables above it took away what `limits` say, translates
    /// the addresses `within` as the tables of `root` do now, if a CPU that walks those can use it.
    fn check_agrees(&mut self, root: u32, side: Side, limits: Limits, within: (u64, u64)) -> Check {
        self.spend()?;
        let [own, now] = [side.root, root].map(|root| self.roots[root as usize]);
        let Root { shape, space, .. } = own;
        let leaf = match read(shape, space, side.level, side.value) {
            Entry::Invalid => return Ok(()),
            Entry::Table(table) => {
                let limits = limits.below(shape, side.value);
                let below = Below { root: side.root, table, level: side.level + 1, va: side.va, limits };
                return self.check_agrees_below(root, below, within);
            }
            Entry::Leaf(leaf) => leaf,
        };
        // What hardware updates in an entry of this tree it updates in memory, too. What was
        // overwritten, or is another tree's, may say that an update was made which the present
        // entry does not have.
        let stored = match side.root == root {
            true => as_stored(shape, space, side.level, side.value),
            false => leaf,
        };
        if !leaf.global && own.id != now.id {
            return Ok(());
        }
        let reach = self.reach(&side);
        let last = (side.va | (reach - 1)).min(within.1);
        let mut va = (side.va & !(reach - 1)).max(within.0);
        while va <= last {
            self.spend()?;
            let violation = |rule| Err(Violation::new(rule).at_va(va));
            let Some(Now { leaf: found, stored: now_stored, level, end }) = self.now_at(root, va, last)
            else {
                return violation(Rule::StaleTranslation);
            };
            let start = va & (u64::MAX << found.shift);
            let same = found.pa.wrapping_add(va - start) == leaf.pa.wrapping_add(va.wrapping_sub(side.va))
                && limits.each().all(|limit| {
                    let may_be = leaf.within(limit).permissions;
                    // Held as dirty, a page that is clean now would be written unmarked. Held as
                    // clean, one that is dirty now agrees: a write through such an entry makes
                    // hardware update the descriptor in memory, by an atomic read-modify-write
                    // which finds it dirty and leaves it so (Arm ARM D8.5, FEAT_HAFDBS). Hardware
                    // brings this about by itself, when another CPU's write marks the page, and
                    // no software invalidates anything then.
                    let is_dirty = stored.within(limit).permissions == may_be;
                    may_be == found.permissions && (!is_dirty || now_stored.permissions == found.permissions)
                })
                && found.global == leaf.global
                && (now_stored.accessed || !stored.accessed)
                && self.memory_type(space, found.memory) == self.memory_type(space, leaf.memory)
                && found.share == leaf.share
                && found.pa_space == leaf.pa_space;
            if !same {
                return violation(Rule::StaleTranslation);
            }
            let sized = level == side.level && found.contiguous == leaf.contiguous;
            if (!sized && matches!(self.config.bbm, 1 | 2)) || (leaf.no_translation && !found.no_translation)
            {
                return violation(Rule::MayAbort);
            }
            match end.checked_add(1) {
                Some(next) => va = next,
                None => break,
            }
        }
        Ok(())
    }

    /// Checks all entries of a table in the same way.
    fn check_agrees_below(&mut self, root: u32, below: Below, within: (u64, u64)) -> Check {
        let Below { root: other, table, level, va, limits } = below;
        let Root { shape, .. } = self.roots[other as usize];
        if within.1 < va {
            return Ok(());
        }
        let index = |address: u64| address.saturating_sub(va) >> shape.shift(level);
        let entries = shape.entries(level) as u64;
        for index in index(within.0)..entries.min(index(within.1) + 1) {
            let Some(value) = self.memory.newest(table + 8 * index) else { continue };
            if is_cacheable(shape, level, value) {
                let va = va + (index << shape.shift(level));
                let side = Side { root: other, level, va, value, run: false, again: false };
                self.check_agrees(root, side, limits, within)?;
            }
        }
        Ok(())
    }

    /// The leaf that the tables of `root` have for `va` now, with the permissions that the tables
    /// above leave it, and how far it stands for what
    /// follows, of which `last` is the last address of interest.
    fn now_at(&self, root: u32, va: u64, last: u64) -> Option<Now> {
        let Root { shape, space, table, .. } = self.roots[root as usize];
        let (mut table, mut level) = (table, shape.start);
        let mut base = shape.base(space);
        let mut limit = 0;
        loop {
            let shift = shape.shift(level);
            let index = (va - base) >> shift;
            let value = self.memory.newest(table + 8 * index)?;
            match read(shape, space, level, value) {
                Entry::Invalid => return None,
                Entry::Leaf(leaf) if !leaf.accessed => return None,
                Entry::Leaf(leaf) => {
                    let stored = as_stored(shape, space, level, value);
                    let to = ((last - base) >> shift).min(shape.entries(level) as u64 - 1);
                    let to = if self.is_in_step_between(root, table, level, index, to) { to } else { index };
                    let end = base + (to << shift) + ((1 << shift) - 1);
                    let (leaf, stored) = (leaf.within(limit), stored.within(limit));
                    return Some(Now { leaf, stored, level, end });
                }
                Entry::Table(next) => {
                    base += index << shift;
                    limit |= Limits::of(shape, value);
                    (table, level) = (next, level + 1);
                }
            }
        }
    }
}

/// A table of a tree that may be held.
struct Below {
    root: u32,
    table: u64,
    level: i8,
    /// The first address that it translates.
    va: u64,
    /// What the tables above it, and the pointer to it, took away.
    limits: Limits,
}

/// What the tables have for an address now.
struct Now {
    leaf: Leaf,
    /// The same without updates by hardware.
    stored: Leaf,
    level: i8,
    /// The last address up to which leaves in step with it follow.
    end: u64,
}
