//! TLB invalidations: what each reaches.
//!
//! A TLBI is complete only when a DSB (of reads and writes) of the CPU that issued it completes. By
//! then it has removed everything that no walker could see when it was issued. What a walker could
//! still see then may have been cached again since. Other CPUs hold nothing that was removed once
//! the DSB completes (Arm ARM D8.17, RYNJCP); the CPU that issued it, once its context is
//! synchronized after the DSB (RBLDZX).

use crate::cached::{Held, run_shift};
use crate::descriptor::{Entry, is_cacheable, read};
use crate::machine::{Check, LeftRoot, Machine, Retired, Root};
use crate::regime::Regime;
use crate::scope::Scope;
use crate::space::Space;

impl Machine {
    /// Completes, on the CPUs in `reached`, a TLBI that `by` issued at `since`.
    pub(crate) fn invalidate(&mut self, by: usize, scope: &Scope, since: u64, reached: u64) -> Check {
        if scope.void.is_some() {
            return Ok(());
        }
        for space in self.spaces() {
            let el1 = matches!(space, Space::Low | Space::High);
            if scope.reaches(space) && (!el1 || self.is_of_guest(scope)) {
                self.invalidate_held(space, by, scope, since, reached)?;
                self.invalidate_roots(space, by, scope, since, reached)?;
            }
        }
        // VMALLE1 also reaches what combines both stages, of the current VMID.
        if scope.is_all_of_el1() {
            self.invalidate_combined(by, scope, since, reached)?;
            self.forget_asids(Regime::El1, reached);
        }
        if scope.is_all_of_el2() {
            self.forget_asids(Regime::El2, reached);
        }
        Ok(())
    }

    fn invalidate_held(&mut self, space: Space, by: usize, scope: &Scope, since: u64, reached: u64) -> Check {
        if self.cached.of(space).is_empty() {
            return Ok(());
        }
        let shape = self.shapes[space.index()];
        let (start, last) = scope.range.unwrap_or((0, u64::MAX));
        let lasting = self.lasting(by, scope);
        let taken = self.cached.of_mut(space).take(shape, start, last, |held| {
            held.since <= since && held.cpus & reached != 0 && !lasting.contains(&held.root)
        });
        for held in taken {
            self.invalidate_one(space, by, scope, reached, held)?;
        }
        Ok(())
    }

    /// The roots of whose entries a TLBI by `by` proves nothing, because it is not broadcast.
    fn lasting(&self, by: usize, scope: &Scope) -> Vec<u32> {
        if scope.broadcast || self.common.iter().all(|cpus| *cpus == 0) {
            return Vec::new();
        }
        (0..self.roots.len() as u32).filter(|root| self.outlives_local(by, *root)).collect()
    }

    /// Applies the TLBI to `held`, which was removed from the records, and records what is left of
    /// it.
    fn invalidate_one(&mut self, space: Space, by: usize, scope: &Scope, reached: u64, held: Held) -> Check {
        let root = self.roots[held.root as usize];
        let shape = root.shape;
        let last = held.va + ((1u64 << shape.shift(held.level)) - 1);
        let touched = scope.touches(held.va, last);
        let left = Held { cpus: held.cpus & !reached, runs: held.runs & !reached, ..held };
        // Only translations that combine both stages are left, if no CPU holds more.
        let alone = match held.cpus & !reached {
            0 if !held.combined => Held { combined: true, since: self.now, ..held },
            _ => held,
        };
        let kept = match read(shape, space, held.level, held.value) {
            Entry::Invalid => return Ok(()),
            Entry::Leaf(leaf) => {
                let hinted = scope.hint.is_none_or(|hint| hint == held.level);
                if !hinted || !scope.is_of(space, root.id, leaf.global) {
                    held
                } else if scope.stage2_alone && touched {
                    alone
                } else if scope.stage2_alone && !held.combined && held.runs & reached != 0 {
                    // A neighbour, as below; what combines both stages for the whole run stays.
                    let runs = held.runs & reached;
                    let combined = Held { combined: true, since: self.now, cpus: runs, runs, ..held };
                    self.cached.of_mut(space).add(combined);
                    Held { runs: left.runs, ..held }
                } else if scope.stage2_alone || held.combined && scope.range.is_some() {
                    held
                } else if touched {
                    left
                } else {
                    // A neighbour in its contiguous run: an entry for the whole run is removed, its
                    // own entry is not.
                    Held { runs: left.runs, ..held }
                }
            }
            Entry::Table(table) => {
                let hinted = scope.hint.is_none_or(|hint| hint > held.level);
                if scope.last_level || !hinted || !scope.is_of(space, root.id, false) {
                    held
                } else {
                    let whole = scope.covers(held.va, last) && scope.hint.is_none() && !scope.spare_global;
                    if !whole {
                        // The pointer is removed, what was found through it is not.
                        self.scatter(by, scope, held.cpus & reached, &held, table)?;
                    }
                    if scope.stage2_alone { alone } else { left }
                }
            }
        };
        if held.cpus & !kept.cpus & 1 << by != 0 {
            self.cpus[by].invalidated.push(held);
        }
        if kept.cpus == 0 || self.cached.of_mut(space).add(kept) {
            self.release(held.root, held.level, held.va, held.value)?;
        }
        Ok(())
    }

    /// Records what CPUs that lost the pointer `held` may still hold of its table.
    fn scatter(&mut self, by: usize, scope: &Scope, cpus: u64, held: &Held, table: u64) -> Check {
        let Root { shape, space, .. } = self.roots[held.root as usize];
        let level = held.level + 1;
        // If another CPU has issued an invalidation of leaves alone without a DSB since, a walk
        // through the pointer may have cached such leaves again.
        let last = held.va + ((1u64 << shape.shift(held.level)) - 1);
        let pends = |(scope, _): &(Scope, _)| scope.last_level && scope.touches(held.va, last);
        let leaves_pend = self.cpus.iter().any(|cpu| cpu.tlbis.iter().any(pends));
        let since = if leaves_pend { self.now } else { held.since };
        let run = (1u64 << run_shift(shape, level)) - 1;
        let limits = held.limits.below(shape, held.value);
        for index in 0..shape.entries(level) as u64 {
            self.spend()?;
            let mut values = Vec::new();
            self.memory.seen(table + 8 * index, |value| values.extend(value));
            values.retain(|value| is_cacheable(shape, level, *value));
            for value in values {
                let va = held.va + (index << shape.shift(level));
                if let Entry::Table(next) = read(shape, space, level, value) {
                    self.link(held.root, next, level + 1, va)?;
                }
                let in_run = self.leaf(held.root, level, value).is_some_and(|leaf| leaf.contiguous);
                let runs = if in_run && shape.run(level) > 0 { cpus } else { 0 };
                let part = Held { level, va, value, since, cpus, runs, limits, ..*held };
                let last = va + ((1u64 << shape.shift(level)) - 1);
                self.dirty.of_mut(space).add(va & !run, va | run);
                if scope.touches(va, last) || runs != 0 {
                    self.invalidate_one(space, by, scope, cpus, part)?;
                } else if self.cached.of_mut(space).add(part) {
                    self.release(held.root, level, va, value)?;
                }
            }
        }
        Ok(())
    }

    fn invalidate_roots(
        &mut self,
        space: Space,
        by: usize,
        scope: &Scope,
        since: u64,
        reached: u64,
    ) -> Check {
        if scope.range.is_some() || scope.stage2_alone {
            // Only a part of the tree is invalidated, so the tree may still be held.
            return Ok(());
        }
        for cpu in 0..self.cpus.len() {
            if reached >> cpu & 1 == 0 {
                continue;
            }
            let left = std::mem::take(&mut self.cpus[cpu].left[space.index()]);
            let mut kept = Vec::new();
            for left in left {
                let id = self.roots[left.root as usize].id;
                let gone = left.since <= since
                    && (scope.broadcast || !self.outlives_local(by, left.root))
                    && scope.is_of(space, id, false)
                    && !(scope.spare_global && self.may_have_global(left.root)?);
                if gone && cpu != by {
                    self.leave(cpu, left.root)?;
                } else {
                    kept.push(LeftRoot { invalidated: left.invalidated || gone, ..left });
                }
            }
            self.cpus[cpu].left[space.index()] = kept;
        }
        Ok(())
    }

    /// Whether what CPUs may hold of a tree that they left may be global.
    fn may_have_global(&mut self, root: u32) -> Check<bool> {
        Ok(self.roots[root as usize].retired == Some(Retired::All) || self.has_global(root)?)
    }

    pub(crate) fn has_global(&mut self, root: u32) -> Check<bool> {
        let Root { shape, table, .. } = self.roots[root as usize];
        self.has_global_below(root, table, shape.start)
    }

    pub(crate) fn has_global_below(&mut self, root: u32, table: u64, level: i8) -> Check<bool> {
        let Root { shape, space, .. } = self.roots[root as usize];
        for index in 0..shape.entries(level) as u64 {
            self.spend()?;
            let found = match read(shape, space, level, self.memory.newest(table + 8 * index).unwrap_or(0)) {
                Entry::Invalid => false,
                Entry::Leaf(leaf) => leaf.global,
                Entry::Table(next) => self.has_global_below(root, next, level + 1)?,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn invalidate_combined(&mut self, by: usize, scope: &Scope, since: u64, reached: u64) -> Check {
        let shape = self.shapes[Space::Stage2.index()];
        let lasting = self.lasting(by, scope);
        let gone = self.cached.of_mut(Space::Stage2).take(shape, 0, u64::MAX, |held| {
            held.combined
                && held.since <= since
                && held.cpus & !reached == 0
                && Some(self.roots[held.root as usize].id) == scope.vmid
                && !lasting.contains(&held.root)
        });
        for held in gone {
            self.release(held.root, held.level, held.va, held.value)?;
        }
        Ok(())
    }
}
