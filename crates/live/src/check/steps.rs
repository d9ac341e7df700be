//! The check of all steps of a plan, one after the other.

use linmap_table::TableWindow;
use linmap_table::cpu::Dsb;
use linmap_vmsa::Va;

use super::checker::{Checker, Combined};
use super::short_plan::is_accepted;
use super::valid_again::check_stays_valid;
use crate::exclusivity::Exclusivity;
use crate::plan::Outcome;
use crate::refused::{BrokenRule, Refused};
use crate::step::{Step, Store};
use crate::tree_context::TreeContext;

/// Who made the steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Author {
    /// A planner of this tree, which has been borrowed since. New tables translate what their block
    /// does, and so do the tables that blocks replace.
    Planner(Outcome),
    /// Unknown.
    Anybody,
}

/// Checks `steps` on the tree as it is in memory.
#[inline(always)]
pub(crate) fn check<W: TableWindow>(
    context: &TreeContext,
    exclusivity: Exclusivity,
    author: Author,
    steps: &[Step],
    window: &mut W,
) -> Result<(), Refused> {
    let is_short = author != Author::Anybody && is_accepted(context, exclusivity, steps, window);
    if is_short && !cfg!(debug_assertions) {
        return Ok(());
    }
    let compares = author == Author::Anybody || cfg!(debug_assertions);
    let checked = check_all(context, exclusivity, compares, steps, window);
    debug_assert!(
        !is_short || !matches!(checked, Err(refused) if !matches!(refused.rule, BrokenRule::Differs { .. })),
        "{checked:?} of a short plan that is accepted"
    );
    checked?;
    // Where hardware updates leaves, a planner may read two values of one.
    let may_break = context.updates.is_on() || cfg!(debug_assertions);
    if may_break && author == Author::Planner(Outcome::Mapped) {
        return check_stays_valid(context, steps, window);
    }
    Ok(())
}

#[inline(never)]
fn check_all<W: TableWindow>(
    context: &TreeContext,
    exclusivity: Exclusivity,
    compares: bool,
    steps: &[Step],
    window: &mut W,
) -> Result<(), Refused> {
    let mut checker = Checker::new(context, exclusivity, compares, steps, window);
    for (at, step) in steps.iter().enumerate() {
        let checked = match step {
            Step::Store(store) => checker.store(at, store),
            Step::EveryLeaf(leaves) => checker.every_leaf(at, leaves),
            // A DSB NSH orders nothing for other CPUs.
            Step::Dsb(Dsb::Nsh) => Ok(()),
            Step::Dsb(dsb) => {
                checker.dsb(at, *dsb);
                Ok(())
            }
            Step::Isb => {
                checker.isb();
                Ok(())
            }
            Step::Invalidate(invalidation) => checker.invalidate(*invalidation),
            Step::CleanInvalidate { va, len } => checker.clean(*va, *len),
            Step::Free { va, table, level } => checker.free(at, *va, *table, *level),
        };
        if let Err(rule) = checked {
            return Err(Refused { step: at, rule });
        }
    }
    checker.end().map_err(|rule| Refused { step: steps.len(), rule })
}

impl<W: TableWindow> Checker<'_, '_, W> {
    #[inline(always)]
    fn store(&mut self, at: usize, store: &Store) -> Result<(), BrokenRule> {
        self.locate(at, store)?;
        if self.every_leaf {
            return Err(BrokenRule::BehindEveryLeaf { va: store.va });
        }
        if self.exclusivity == Exclusivity::Parked {
            self.parked(at, store)?;
            self.outdates(store.va);
        } else {
            let asked = self.entries(at, store)?;
            if let Some(va) = asked.first(store.va) {
                self.pending.join(asked);
                self.outdates(va);
            }
        }
        self.compared = at + 1;
        self.unordered = true;
        self.unsynchronised = true;
        self.history.push(at, store);
        Ok(())
    }

    /// Notes that TLBs may hold old translations, for `va` among others.
    #[inline(always)]
    pub fn outdates(&mut self, va: Va) {
        self.stale = Some(va);
        self.stale_unordered = true;
        self.pending_ordered = None;
        self.combined = Combined::Held;
        self.everything_issued = false;
    }
}
