//! How far a check has come through a plan, and what it knows there.

use linmap_table::TableWindow;
use linmap_vmsa::{Level, Va};

use crate::exclusivity::Exclusivity;
use crate::history::History;
use crate::invalidate::Span;
use crate::node::Node;
use crate::refused::BrokenRule;
use crate::step::{Step, Store};
use crate::tree_context::TreeContext;

/// A check of a plan, in front of one of its steps.
pub(super) struct Checker<'c, 's, W> {
    pub context: &'c TreeContext,
    pub exclusivity: Exclusivity,
    /// Whether tables and blocks that replace each other are compared.
    pub compares: bool,
    pub steps: &'s [Step],
    pub window: &'c mut W,
    pub history: History<'s>,
    /// No TLB holds what stores in front of this step replaced.
    pub clean_from: usize,
    /// An address whose translation in TLBs may be out of date.
    pub stale: Option<Va>,
    /// Whether a store that made one so is not ordered yet.
    pub stale_unordered: bool,
    /// What the stores since everything was clean ask to be invalidated.
    pub pending: Asked,
    /// The first DSB behind the last store that added to `pending`, if there is one.
    pub pending_ordered: Option<usize>,
    /// Whether everything is being invalidated, behind all stores that ask for it.
    pub everything_issued: bool,
    /// Whether anything is being invalidated.
    pub issued: bool,
    /// Whether there is a store that no DSB has ordered.
    pub unordered: bool,
    /// Whether a DSB has ordered what new tables hold.
    pub tables_ordered: bool,
    /// The step behind the last DSB.
    pub ordered_to: usize,
    /// Whether there is anything that this CPU may not see before an ISB.
    pub unsynchronised: bool,
    /// The last address of the last table freed. They are freed in ascending order, so that none is
    /// freed twice.
    pub freed_to: Option<u64>,
    /// Whether a change of all leaves has been met.
    pub every_leaf: bool,
    /// Up to this step, tables and blocks that replace each other were compared.
    pub compared: usize,
    /// The table of the last store, where the walk for the next one starts if its address lies
    /// below.
    reached: Node,
}

/// What stores ask to be invalidated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Nothing,
    One(Span),
    /// More than one span: the stores are asked again, one after the other.
    Many,
}

impl Asked {
    #[inline(always)]
    pub fn add(&mut self, span: Span) {
        self.join(Self::One(span));
    }

    /// An address of what a store to entries from `va` on asks for, or `None` when that is nothing.
    #[inline(always)]
    pub fn first(&self, va: Va) -> Option<Va> {
        match self {
            Self::Nothing => None,
            Self::One(span) => Some(Va(span.first)),
            Self::Many => Some(va),
        }
    }

    /// Adds what a later store asks for, which asks for something.
    #[inline(always)]
    pub fn join(&mut self, later: Self) {
        *self = match (*self, later) {
            (Self::Nothing, later) => later,
            (Self::One(before), Self::One(span)) => before.joined(span).map_or(Self::Many, Self::One),
            _ => Self::Many,
        };
    }
}

impl<'c, 's, W: TableWindow> Checker<'c, 's, W> {
    #[inline(always)]
    pub fn new(
        context: &'c TreeContext,
        exclusivity: Exclusivity,
        compares: bool,
        steps: &'s [Step],
        window: &'c mut W,
    ) -> Self {
        Self {
            context,
            exclusivity,
            compares,
            steps,
            window,
            history: History::new(context.geometry, steps),
            clean_from: 0,
            stale: None,
            stale_unordered: false,
            pending: Asked::Nothing,
            pending_ordered: None,
            everything_issued: false,
            issued: false,
            unordered: false,
            tables_ordered: false,
            ordered_to: 0,
            unsynchronised: false,
            freed_to: None,
            every_leaf: false,
            compared: 0,
            reached: context.top,
        }
    }

    /// Refuses `store`, step `at`, unless it names entries of a table that the walk for its address
    /// comes to.
    #[inline(always)]
    pub fn locate(&mut self, at: usize, store: &Store) -> Result<(), BrokenRule> {
        let Store { va, table, level, index, count, .. } = *store;
        if !self.context.holds(va.0) {
            return Err(no_such_entries(store));
        }
        let near = self.near(va.0, level);
        let node = self.walk(at, near, va.0, level);
        if node.level != level || node.table != table {
            return Err(BrokenRule::OtherTable { va, level, table });
        }
        let end = usize::from(index).wrapping_add(count.into());
        let begins = va.0.wrapping_sub(node.base) == u64::from(index).wrapping_shl(node.shift);
        if count == 0 || end > self.context.entries(level) || !begins {
            return Err(no_such_entries(store));
        }
        self.reached = node;
        Ok(())
    }

    /// A table on the way to the one at `level` for `va`, an address of the half: that of the last
    /// store if it is one.
    #[inline(always)]
    pub fn near(&self, va: u64, level: Level) -> Node {
        let reached = self.reached;
        if reached.level <= level && self.context.translates(reached, va) {
            reached
        } else {
            self.context.top
        }
    }

    /// The table at `level`, or the last above it, that the walk for `va` from `node` on comes to,
    /// with the stores before step `at` done.
    #[inline(always)]
    pub fn walk(&mut self, at: usize, node: Node, va: u64, level: Level) -> Node {
        if self.history.is_empty() {
            return self.context.descend(node, self.window, va, level);
        }
        self.walk_changed(at, node, va, level)
    }

    #[inline(never)]
    fn walk_changed(&mut self, at: usize, node: Node, va: u64, level: Level) -> Node {
        let history = &self.history;
        self.context.descend_by(node, self.window, va, level, |level, table, index, memory| {
            history.value(at, level, (table, index, va), memory)
        })
    }
}

#[cold]
#[inline(never)]
fn no_such_entries(store: &Store) -> BrokenRule {
    let Store { va, level, index, count, .. } = *store;
    BrokenRule::NoSuchEntries { va, level, index, count }
}
