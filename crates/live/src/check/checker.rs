//! The state of a check between two steps.

use linmap_table::TableWindow;
use linmap_vmsa::{Level, Va};

use crate::exclusivity::Exclusivity;
use crate::history::History;
use crate::invalidate::Span;
use crate::node::Node;
use crate::refused::BrokenRule;
use crate::step::{Step, Store};
use crate::tree_context::TreeContext;

/// A check of a plan before one of its steps.
pub(super) struct Checker<'c, 's, W> {
    pub context: &'c TreeContext,
    pub exclusivity: Exclusivity,
    /// Whether tables and blocks that replace each other are compared.
    pub compares: bool,
    pub steps: &'s [Step],
    pub window: &'c mut W,
    pub history: History<'s>,
    /// No TLB holds what stores before this step replaced.
    pub clean_from: usize,
    /// An address whose translation in TLBs may be out of date.
    pub stale: Option<Va>,
    /// Whether a store that made one out of date is not ordered yet.
    pub stale_unordered: bool,
    /// What has to be invalidated for the stores since everything was clean.
    pub pending: Asked,
    /// The first DSB after the last store that added to `pending`, if there is one.
    pub pending_ordered: Option<usize>,
    /// Whether an invalidation of everything was issued after all stores that need one.
    pub everything_issued: bool,
    /// Whether an invalidation was issued since the last DSB ISH.
    pub issued: bool,
    /// The first address whose memory type changed, and how many bytes did since the last cache
    /// maintenance.
    pub uncleaned: Option<(Va, u64)>,
    /// How far the invalidation of what combines both stages has come, at stage 2.
    pub combined: Combined,
    /// Whether there is a store that no DSB has ordered.
    pub unordered: bool,
    /// Whether a DSB has ordered what new tables hold.
    pub tables_ordered: bool,
    /// The step after the last DSB.
    pub ordered_to: usize,
    /// Whether a step since the last ISB needs one.
    pub unsynchronised: bool,
    /// The last address of the last table freed. Tables are freed in ascending order, so none is
    /// freed twice.
    pub freed_to: Option<u64>,
    /// Whether a step before this one changes all leaves.
    pub every_leaf: bool,
    /// Up to this step, tables and blocks that replace each other were compared.
    pub compared: usize,
    /// The table of the last store. The next walk starts there if the table translates its address.
    reached: Node,
}

/// What a TLB may hold of entries that combine both stages, where leaves of stage 2 changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Combined {
    /// All of them.
    Held,
    /// All of them. Invalidations by IPA are complete, so none arises any more.
    Left,
    /// VMALLE1IS was issued after that.
    Issued,
}

/// What has to be invalidated for stores.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Nothing,
    One(Span),
    /// More than one span. The stores are checked again, one by one.
    Many,
}

impl Asked {
    #[inline(always)]
    pub fn add(&mut self, span: Span) {
        self.join(Self::One(span));
    }

    /// Returns an address to invalidate after a store to entries from `va` on, or `None`.
    #[inline(always)]
    pub fn first(&self, va: Va) -> Option<Va> {
        match self {
            Self::Nothing => None,
            Self::One(span) => Some(Va(span.first)),
            Self::Many => Some(va),
        }
    }

    /// Adds what a later store needs, which must not be [`Nothing`](Self::Nothing).
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
            uncleaned: None,
            combined: Combined::Held,
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
    /// reaches.
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
        // The entries behind may be those of another part.
        if !self.context.holds(node.last(end.wrapping_sub(1))) {
            return Err(no_such_entries(store));
        }
        self.reached = node;
        Ok(())
    }

    /// Returns a table on the way to the one at `level` for `va`, an address of the half: the table
    /// of the last store if possible, otherwise the root.
    #[inline(always)]
    pub fn near(&self, va: u64, level: Level) -> Node {
        let reached = self.reached;
        if reached.level <= level && self.context.translates(reached, va) {
            reached
        } else {
            self.context.root(va)
        }
    }

    /// Walks from `node` for `va` with the stores before step `at` done. Returns the table at
    /// `level`, or the last one above it.
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
