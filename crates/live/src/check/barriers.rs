//! The check of what follows stores: barriers, invalidations, and freeing tables that nothing
//! reaches any more.

use linmap_table::TableWindow;
use linmap_table::cpu::Dsb;
use linmap_vmsa::{Level, Pa, Va};

use super::checker::{Asked, Checker, Combined};
use crate::exclusivity::Exclusivity;
use crate::refused::BrokenRule;
use crate::scope::Scope;
use crate::step::{Invalidation, Step};
use crate::tlbi_coverage::covers;

impl<W: TableWindow> Checker<'_, '_, W> {
    /// Notes the DSB ISHST or DSB ISH at step `at`.
    #[inline(always)]
    pub fn dsb(&mut self, at: usize, dsb: Dsb) {
        self.unordered = false;
        self.tables_ordered = true;
        self.ordered_to = at + 1;
        self.stale_unordered = false;
        if self.pending_ordered.is_none() {
            self.pending_ordered = Some(at);
        }
        if dsb == Dsb::Ish && self.issued {
            self.complete(at);
        }
    }

    #[inline(always)]
    pub fn isb(&mut self) {
        self.unsynchronised = self.unordered || self.stale.is_some();
    }

    /// Refuses the plan if it ends here too early.
    #[inline(always)]
    pub fn end(&self) -> Result<(), BrokenRule> {
        if self.unordered {
            return Err(BrokenRule::StoresUnordered);
        }
        if let Some(va) = self.stale {
            if self.combined != Combined::Held {
                return Err(BrokenRule::CombinedHeld { va });
            }
            return Err(BrokenRule::NotInvalidated { va });
        }
        if self.unsynchronised {
            return Err(BrokenRule::NoIsb);
        }
        if let Some((va, _)) = self.uncleaned {
            return Err(BrokenRule::NotCleaned { va });
        }
        Ok(())
    }

    /// Notes cache maintenance of `len` bytes, by an address that the caller answers for.
    pub fn clean(&mut self, va: Va, len: u64) -> Result<(), BrokenRule> {
        if self.unordered || self.stale.is_some() || self.unsynchronised {
            return Err(BrokenRule::CleanedEarly { va });
        }
        self.uncleaned = self.uncleaned.filter(|(_, bytes)| *bytes > len);
        Ok(())
    }

    #[inline(always)]
    pub fn invalidate(&mut self, invalidation: Invalidation) -> Result<(), BrokenRule> {
        if self.stale_unordered {
            return Err(BrokenRule::InvalidationUnordered);
        }
        let possible = match invalidation {
            Invalidation::All => {
                self.everything_issued = true;
                true
            }
            Invalidation::Stage1 => {
                if self.combined == Combined::Left {
                    self.combined = Combined::Issued;
                }
                self.context.scope == Scope::Vmid
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

    /// Notes that the DSB at step `at` completes the invalidations before it. If they cover all
    /// that changed, everything is clean.
    #[inline(always)]
    fn complete(&mut self, at: usize) {
        self.issued = false;
        if self.exclusivity == Exclusivity::Parked && !self.everything_issued {
            // CPUs may have left at different times, so everything must be invalidated, whatever
            // changed.
            return;
        }
        let invalidated = self.everything_issued
            || match self.pending {
                Asked::Nothing => true,
                Asked::One(span) => {
                    let from = self.pending_ordered.unwrap_or(at);
                    covers(self.context.page_shift, self.steps.get(from..at).unwrap_or_default(), span)
                }
                Asked::Many => false,
            };
        if !invalidated && let Some(open) = self.first_open(at) {
            self.stale = Some(open);
            return;
        }
        if self.context.scope == Scope::Vmid && !self.everything_issued && !self.removes_combined() {
            return;
        }
        self.everything_issued = false;
        self.stale = None;
        self.pending = Asked::Nothing;
        self.clean_from = at;
    }

    /// Notes that a DSB completes the invalidations by IPA of all that changed, or the one for what
    /// combines both stages after that. Returns whether TLBs hold nothing of it any more.
    #[cold]
    #[inline(never)]
    fn removes_combined(&mut self) -> bool {
        let removed = matches!(self.pending, Asked::Nothing) || self.combined == Combined::Issued;
        self.combined = if removed { Combined::Held } else { Combined::Left };
        removed
    }

    /// Returns the first address that has to be invalidated for a store since everything was clean,
    /// and that no invalidation covers. An invalidation covers a store if a DSB between them orders
    /// the store.
    #[inline(never)]
    fn first_open(&mut self, at: usize) -> Option<Va> {
        let steps = self.steps;
        let mut open = None;
        let mut ordered_from = 0;
        for step in self.clean_from..at {
            let Some(Step::Store(store)) = steps.get(step) else { continue };
            if ordered_from <= step {
                let orders = |at: &usize| matches!(steps.get(*at), Some(Step::Dsb(Dsb::Ishst | Dsb::Ish)));
                ordered_from = (step..at).find(orders).unwrap_or(at);
            }
            let invalidations = steps.get(ordered_from..at).unwrap_or_default();
            open = self.first_uncovered(step, store, invalidations);
            if open.is_some() {
                break;
            }
        }
        open
    }

    /// Refuses to free `table`, step `at`, unless the steps before have removed it from the tree
    /// and from every TLB and walk cache.
    #[inline(never)]
    pub fn free(&mut self, at: usize, va: Va, table: Pa, level: Level) -> Result<(), BrokenRule> {
        if self.unordered || self.stale.is_some() {
            return Err(BrokenRule::FreedEarly { va, table });
        }
        let context = self.context;
        let last = va.0.wrapping_add(context.table_bytes(level).wrapping_sub(1));
        let is_table = level > context.top.level && va.0 & !last == 0 && context.holds(va.0);
        let is_removed = is_table
            && self.freed_to.is_none_or(|freed| freed < va.0)
            && self.is_unlinked(at, va.0, level, table);
        if !is_removed {
            return Err(BrokenRule::NotRemoved { va, table });
        }
        if context.updates.is_on() {
            let parent = self.walk(at, context.root(va.0), va.0, level);
            self.check_collected(at, va, (parent.table, parent.level), table)?;
        }
        self.freed_to = Some(last);
        Ok(())
    }

    /// Returns whether the walk for `va` reaches `table` at `level` in memory, but not with the
    /// stores before step `at` done.
    #[inline(always)]
    fn is_unlinked(&mut self, at: usize, va: u64, level: Level, table: Pa) -> bool {
        let near = self.near(va, level);
        // If no store changes a table above `near`, the walk in memory reaches it as well.
        let from = if self.history.is_at_or_below(near.level) { near } else { self.context.root(va) };
        let was = self.context.descend(from, self.window, va, level);
        if was.level != level || was.table != table {
            return false;
        }
        let is = self.walk(at, near, va, level);
        is.level != level || is.table != table
    }
}
