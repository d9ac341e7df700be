//! The check of a plan: every step against the memory as it is, what the steps before have made of it, and what TLBs may
//! still hold.
//!
//! It knows nothing of how plans are made. A plan that it accepts breaks no rule of Arm ARM D8.16 on CPUs with the tree's BBM
//! level, whoever made it; it may refuse unusual ones that would be legal.

mod entries;
mod parked;
mod single;

use linmap_vmsa::{Level, Pa, Va};

use crate::exclusivity::Exclusivity;
use crate::history::History;
use crate::invalidate::Span;
use crate::node::Node;
use crate::refused::{BrokenRule, Refused};
use crate::small::Small;
use crate::step::{Invalidation, Step, Store};
use crate::tlbi_coverage::covered;
use crate::tree_context::TreeContext;
use linmap_table::TableWindow;
use linmap_table::cpu::Dsb;

/// Who made the steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Author {
    /// A planner of this tree, which is borrowed since: what it wrote in a new table is what the block said, and the tables
    /// that it folds say one thing.
    Planner,
    /// Nothing is known.
    Anybody,
}

/// Checks `steps` on the tree as it is in memory. Returns them as a small plan where they were checked as one.
#[inline(always)]
pub(crate) fn check<'s, W: TableWindow>(
    context: &TreeContext,
    exclusivity: Exclusivity,
    author: Author,
    steps: &'s [Step],
    window: &mut W,
) -> Result<Option<Small<'s>>, Refused> {
    let compares = author == Author::Anybody || cfg!(debug_assertions);
    let may_be_small = !compares || cfg!(debug_assertions);
    let small = if may_be_small { Small::of(steps) } else { None };
    let small = small.filter(|small| single::is_accepted(context, exclusivity, small, window));
    if small.is_some() && !compares {
        return Ok(small);
    }
    let result = whole(context, exclusivity, compares, steps, window);
    debug_assert!(
        small.is_none()
            || !matches!(result, Err(refused) if !matches!(refused.rule, BrokenRule::Differs { .. })),
        "{result:?} of a plan that is accepted as one store"
    );
    result.map(|()| small)
}

/// Checks all steps one after the other.
#[inline(never)]
fn whole<W: TableWindow>(
    context: &TreeContext,
    exclusivity: Exclusivity,
    compares: bool,
    steps: &[Step],
    window: &mut W,
) -> Result<(), Refused> {
    let mut checker = Checker {
        context,
        exclusivity,
        compares,
        steps,
        window,
        history: History::new(context.geometry, steps),
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
        every_leaf: false,
        compared: 0,
        reached: None,
    };
    for (at, step) in steps.iter().enumerate() {
        checker.step(at, step).map_err(|rule| Refused { step: at, rule })?;
    }
    checker.end().map_err(|rule| Refused { step: steps.len(), rule })
}

struct Checker<'c, 's, W> {
    context: &'c TreeContext,
    exclusivity: Exclusivity,
    /// Whether tables and blocks that replace each other are compared.
    compares: bool,
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
    /// Whether a change of all leaves has been met.
    every_leaf: bool,
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

impl<W: TableWindow> Checker<'_, '_, W> {
    fn step(&mut self, at: usize, step: &Step) -> Result<(), BrokenRule> {
        match step {
            Step::Store(store) => self.store(at, store),
            Step::EveryLeaf(leaves) => self.every_leaf(at, leaves),
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

    fn end(&self) -> Result<(), BrokenRule> {
        if self.unordered {
            return Err(BrokenRule::StoresUnordered);
        }
        if let Some(va) = self.stale {
            return Err(BrokenRule::NotInvalidated { va });
        }
        if self.unsynchronised {
            return Err(BrokenRule::NoIsb);
        }
        Ok(())
    }

    fn store(&mut self, at: usize, store: &Store) -> Result<(), BrokenRule> {
        let Store { va, table, level, index, count, .. } = *store;
        let no_such = BrokenRule::NoSuchEntries { va, level, index, count };
        if !self.context.holds(va.0) {
            return Err(no_such);
        }
        let node = self.reach(at, va.0, level);
        if node.level != level || node.table != table {
            return Err(BrokenRule::OtherTable { va, level, table });
        }
        let end = usize::from(index) + usize::from(count);
        if count == 0 || end > self.context.entries(level) || va.0 != node.va(usize::from(index)) {
            return Err(no_such);
        }
        if self.every_leaf {
            return Err(BrokenRule::BehindEveryLeaf { va });
        }
        let mut stale = None;
        if self.exclusivity == Exclusivity::Parked {
            self.parked(at, store)?;
            stale = Some(va);
        } else {
            let mut hull = self.hull;
            self.needs(at, store, |span| {
                stale = Some(Va(span.first));
                hull = match hull {
                    Hull::Nothing => Hull::One(span, at),
                    Hull::One(before, _) => {
                        before.joined(span).map_or(Hull::Many, |span| Hull::One(span, at))
                    }
                    Hull::Many => Hull::Many,
                };
                true
            })?;
            self.hull = hull;
        }
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

    /// As [`walk`](Self::walk) from the root, but from the last table that a store was found in, where that lies on the way.
    fn reach(&mut self, at: usize, va: u64, level: Level) -> Node {
        let near = self.reached.filter(|node| {
            let index = va.wrapping_sub(node.base) >> node.shift;
            node.level <= level && index < self.context.entries(node.level) as u64
        });
        let node = self.walk(at, near.unwrap_or(self.context.top), va, level);
        self.reached = Some(node);
        node
    }

    /// The table at `level`, or the last above it, that the walk for `va` from `node` on comes to, with the stores before step
    /// `at` done.
    fn walk(&mut self, at: usize, node: Node, va: u64, level: Level) -> Node {
        if self.history.is_empty() {
            return self.context.descend(node, self.window, va, level, |_, _, memory| memory);
        }
        let value = |table, index, memory| self.history.values(at, (table, index, va), memory, |_, _| {});
        self.context.descend(node, self.window, va, level, value)
    }

    /// Whether the walk from the root, with the stores before step `at` done, comes to `table` at `level`.
    fn leads_to(&mut self, at: usize, va: u64, level: Level, table: Pa) -> bool {
        let node = self.walk(at, self.context.top, va, level);
        node.level == level && node.table == table
    }

    fn invalidate(&mut self, invalidation: Invalidation) -> Result<(), BrokenRule> {
        if self.stale_unordered {
            return Err(BrokenRule::InvalidationUnordered);
        }
        let possible = match invalidation {
            Invalidation::All => {
                self.everything_issued = true;
                true
            }
            Invalidation::ByVa { count, shift, .. } => count > 0 && shift < 64,
            Invalidation::ByRange { va, pages, .. } => self.context.can_say(va, pages),
        };
        if !possible {
            return Err(BrokenRule::NoSuchInvalidation(invalidation));
        }
        self.issued = true;
        self.unsynchronised = true;
        Ok(())
    }

    /// A DSB at step `at` has completed the invalidations before it: whether those cover all that changed.
    fn complete(&mut self, at: usize) {
        self.issued = false;
        if self.exclusivity == Exclusivity::Parked && !self.everything_issued {
            // The CPUs that come back have left at any time: everything is invalidated, whatever changed.
            return;
        }
        let page_shift = self.context.geometry.granule().shift();
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

    fn free(&mut self, at: usize, va: Va, table: Pa, level: Level) -> Result<(), BrokenRule> {
        if self.unordered || self.stale.is_some() {
            return Err(BrokenRule::FreedEarly { va, table });
        }
        let geometry = self.context.geometry;
        let removed = level > geometry.start_level()
            && self.context.holds(va.0)
            && self.freed_to.is_none_or(|last| last < va.0)
            && self.leads_to(0, va.0, level, table)
            && !self.leads_to(at, va.0, level, table);
        let reach = (geometry.entries(level) as u64) << geometry.shift(level);
        if !removed || va.0 & (reach - 1) != 0 {
            return Err(BrokenRule::NotRemoved { va, table });
        }
        self.freed_to = Some(va.0 + (reach - 1));
        Ok(())
    }
}
