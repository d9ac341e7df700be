//! Barriers: what they order, complete and synchronize.

use linmap_trace::{Access, Domain, Tlbi};
use rustc_hash::FxHashSet;

use crate::descriptor::is_cacheable;
use crate::forget::RECENT;
use crate::machine::{Check, LeftRoot, Machine, Root};
use crate::memory::Memory;
use crate::places::EntryPlaces;
use crate::regime::REGIMES;
use crate::rules::Rule;
use crate::scope::{Context, Scope, Void, depends_on_host};
use crate::space::{SPACES, Space};
use crate::violation::Violation;

/// A word, a value that walkers saw there, the newest one, and whether a walker may see the former
/// still.
type Gone = (u64, Option<u64>, Option<u64>, bool);

/// Adds to `ordered` the values of the word at `pa` that an order has ruled out.
fn note_gone(ordered: &mut Vec<Gone>, memory: &Memory, pa: u64, gone: &[Option<u64>]) {
    let newest = memory.newest(pa);
    for &old in gone {
        // A store of another CPU may leave the value visible.
        let mut visible = false;
        memory.seen(pa, |seen| visible |= seen == old);
        ordered.push((pa, old, newest, visible && newest != old));
    }
}

impl Machine {
    pub(crate) fn dsb(&mut self, cpu: usize, domain: Domain, access: Access) -> Check {
        // It orders no stores and completes no TLBI. What the CPU loaded the trace does not say.
        if access == Access::Loads {
            return Ok(());
        }
        let own = 1u64 << cpu;
        let everyone = self.everyone();
        let mut ordered = Vec::new();
        let note = |memory: &Memory, pa: u64, gone: &[Option<u64>]| note_gone(&mut ordered, memory, pa, gone);
        // NSH reaches the CPU itself, which is the whole machine if it has one CPU.
        if domain != Domain::Nsh || everyone == own {
            if self.passed.any {
                self.dmb(cpu, domain, access);
                self.order_others(cpu, access)?;
            }
            if !self.alone.is_empty() {
                let words: FxHashSet<u64> = self.memory.unordered_by(cpu).collect();
                self.alone.retain(|(by, pa)| *by != cpu && !words.contains(pa));
            }
            self.memory.order(cpu, note);
            self.passed.linked[cpu].clear();
        } else {
            // The CPU's own walks are in the domain too.
            let words = self.walked_alone(cpu);
            self.memory.order_some(cpu, &words, note);
            self.alone.extend(words.into_iter().map(|pa| (cpu, pa)));
        }
        for (pa, old, newest, visible) in ordered {
            self.ordered(cpu, pa, old, newest, visible)?;
        }
        if access == Access::All {
            self.edit += 1;
            let mut issued = std::mem::take(&mut self.cpus[cpu].tlbis);
            // Invalidations that one DSB completes may have executed in any order. A leaf that was
            // invalidated alone is cached again while a walk cache leads to it, so the worst order
            // is last levels first. All other forms remove the pointers too.
            issued.sort_by_key(|(scope, _)| !scope.last_level);
            for (scope, since) in issued {
                // NSH completes what is for this CPU alone (Arm ARM D8.17, RPSMWS).
                if scope.broadcast && domain == Domain::Nsh {
                    self.cpus[cpu].tlbis.push((scope, since));
                } else {
                    if self.recent.len() == RECENT {
                        self.recent.pop_front();
                    }
                    self.recent.push_back((scope, since));
                    self.invalidate(cpu, &scope, since, if scope.broadcast { everyone } else { own })?;
                }
            }
        }
        Ok(())
    }

    /// Orders the stores of other CPUs that `cpu` knows of.
    fn order_others(&mut self, cpu: usize, access: Access) -> Check {
        for (other, until) in self.ordered_for_others(cpu, access) {
            self.passed.linked[other].retain(|_, epoch| *epoch >= until);
            let mut ordered = Vec::new();
            self.memory
                .order_until(other, until, |memory, pa, gone| note_gone(&mut ordered, memory, pa, gone));
            for (pa, old, newest, visible) in ordered {
                self.ordered(other, pa, old, newest, visible)?;
            }
        }
        Ok(())
    }

    /// The words with unordered stores of `cpu` that no other CPU's walk can read.
    fn walked_alone(&self, cpu: usize) -> Vec<u64> {
        let is_alone = |pa: u64| {
            let mut cpus = 0;
            self.each_place(pa, |place| cpus |= self.roots[place.root as usize].cpus);
            cpus == 1 << cpu
        };
        self.memory.unordered_by(cpu).filter(|pa| is_alone(*pa)).collect()
    }

    /// Checks that `cpu` may begin to walk the tree of `root`: other CPUs may have ordered stores
    /// to it for themselves alone.
    pub(crate) fn check_ordered_for(&self, cpu: usize, root: u32) -> Check {
        for &(by, pa) in self.alone.iter().filter(|(by, _)| *by != cpu) {
            let mut is_in = false;
            self.each_place(pa, |place| is_in |= place.root == root);
            if is_in {
                return Err(Violation::new(Rule::Unordered).on_cpu(by).at_pa(pa));
            }
        }
        Ok(())
    }

    /// Checks that the CPUs that walk the tree of `root` may read the table from `table` to `end`,
    /// as [`check_ordered_for`](Self::check_ordered_for).
    pub(crate) fn check_ordered_in(&self, root: u32, table: u64, end: u64) -> Check {
        let walkers = self.roots[root as usize].cpus;
        let is_unordered = |(by, pa): &&(usize, u64)| (table..end).contains(pa) && walkers & !(1 << *by) != 0;
        match self.alone.iter().find(is_unordered) {
            Some(&(by, pa)) => Err(Violation::new(Rule::Unordered).on_cpu(by).at_pa(pa)),
            None => Ok(()),
        }
    }

    /// Records that no walker sees `old` at `pa` as an older value, unless it is still `visible`.
    /// As the newest value it may be cached anyway.
    pub(crate) fn ordered(
        &mut self,
        cpu: usize,
        pa: u64,
        old: Option<u64>,
        newest: Option<u64>,
        visible: bool,
    ) -> Check {
        let mut places = EntryPlaces::default();
        match self.only_place(pa) {
            Some(place) => places.push(place),
            None => self.each_place(pa, |place| places.push(place)),
        }
        for place in places.iter() {
            let Root { space, shape, cpus, .. } = self.roots[place.root as usize];
            let valid = |value: Option<u64>| value.filter(|value| is_cacheable(shape, place.level, *value));
            match valid(old) {
                Some(old) if !visible => {
                    let now = self.now;
                    let held = self.cached.of_mut(space).find(place.root, place.level, place.va, old);
                    if let Some(held) = held {
                        held.since = held.since.min(now);
                    }
                }
                Some(_) => {}
                None if valid(newest).is_some() => {
                    let shift = shape.shift(place.level);
                    self.fresh.became_valid(self.now, (space, place.level, place.va), shift, cpu, cpus);
                }
                None => {}
            }
        }
        Ok(())
    }

    pub(crate) fn isb(&mut self, cpu: usize) -> Check {
        let now = self.now;
        self.cpus[cpu].control_pending = [false; SPACES];
        self.cpus[cpu].mair_pending = [0; REGIMES];
        self.cpus[cpu].asid_pending = [false; REGIMES];
        self.cpus[cpu].host_pending = false;
        self.cpus[cpu].invalidated.clear();
        for space in self.spaces().map(Space::index) {
            let left = std::mem::take(&mut self.cpus[cpu].left[space]);
            let (gone, kept): (Vec<_>, Vec<_>) = left.into_iter().partition(|left| left.invalidated);
            self.cpus[cpu].left[space] = kept;
            for left in gone {
                self.leave(cpu, left.root)?;
            }
            let state = &mut self.cpus[cpu];
            let certain = state.walks[space].len().saturating_sub(1);
            let kept = state.walks[space].last().copied();
            let mut gone = Vec::new();
            for root in state.walks[space].drain(..certain) {
                if Some(root) != kept && !state.left[space].iter().any(|left| left.root == root) {
                    state.left[space].push(LeftRoot { root, since: now, invalidated: false });
                    gone.push(root);
                }
            }
            for root in gone {
                self.end_if_empty(root)?;
            }
        }
        self.fresh.synchronized(cpu, now);
        Ok(())
    }

    pub(crate) fn tlbi(&mut self, cpu: usize, tlbi: Tlbi, operand: u64) {
        let scope = self.scope_of(cpu, tlbi, operand);
        self.cpus[cpu].tlbis.push((scope, self.now));
    }

    /// What `tlbi` reaches when `cpu` issues it.
    pub(crate) fn scope_of(&self, cpu: usize, tlbi: Tlbi, operand: u64) -> Scope {
        // Until an ISB a VTTBR that was just written may not be the current one.
        let mut vmids =
            self.cpus[cpu].walks[Space::Stage2.index()].iter().map(|root| self.roots[*root as usize].id);
        let first = vmids.next().unwrap_or(0);
        let vmid = vmids.all(|vmid| vmid == first).then_some(first);
        let context = Context { is_host: self.is_host(cpu), vmid };
        let mut scope = Scope::of(tlbi, operand, &self.shapes, context);
        let is_uncertain = self.cpus[cpu].host_pending && depends_on_host(tlbi.scope);
        scope.void = scope.void.or(is_uncertain.then_some(Void::Regime));
        scope
    }
}
