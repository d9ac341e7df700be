//! Changing the attributes of leaves.

use core::ops::Range;

use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Execute, Level, Regime, Va};

use crate::change::Change;
use crate::entry::{CONTIGUOUS, Entry, PAGE_BIT, VALID_BIT, entry};
use crate::exclusivity::Exclusivity;
use crate::gather::is_writable;
use crate::node::Node;
use crate::plan::Outcome;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::split::{Cut, Phase};
use crate::step::{Edit, Step};
use linmap_table::FrameSource;
use linmap_table::TableWindow;

/// A [`Change`] as the bits of a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BitChange {
    clear: u64,
    set: u64,
    /// If a leaf may become writable and executable, depending on the permission that stays: the
    /// bits of a leaf that nobody executes. Otherwise 0.
    never: u64,
    /// Whether the change makes leaves invalid.
    invalidates: bool,
}

impl BitChange {
    #[inline(always)]
    fn of(change: Change) -> Self {
        let (clear, set) = change.masks();
        let never = if change.may_become_both() { Execute::Never.bits() } else { 0 };
        Self { clear, set, never, invalidates: clear & VALID_BIT != 0 }
    }

    /// The same in any regime.
    #[cold]
    #[inline(never)]
    fn in_regime(change: Change, regime: Regime) -> Self {
        let (clear, set) = change.masks_in(regime);
        let may_become_both = change.may_become_both() && !regime.is_stage_2();
        let never = if may_become_both { Execute::Never.bits_in(regime) } else { 0 };
        Self { clear, set, never, invalidates: clear & VALID_BIT != 0 }
    }
}

/// Returns whether a leaf of stage 1 is both writable and executable, at any exception level.
/// `never` are the bits of one that nobody executes.
const fn is_both(bits: u64, never: u64) -> bool {
    is_writable(bits) && bits & never != never
}

/// Makes a run invalid until it is stored again.
const BREAK: Edit = Edit::Bits { clear: VALID_BIT, set: 0 };

/// The shortest contiguous run of any granule.
const SHORTEST_RUN: usize = 16;

/// What some leaves have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Bits set in every entry.
    pub and: u64,
    /// Bits set in some entry.
    pub or: u64,
}

impl Seen {
    #[inline]
    pub fn of(entries: &[u64]) -> Self {
        // Two folds in one loop, which the compiler can vectorise.
        let (mut and, mut or) = (u64::MAX, 0);
        for entry in entries {
            and &= *entry;
            or |= *entry;
        }
        Self { and, or }
    }

    /// Returns whether clearing and setting these bits changes any leaf.
    #[inline]
    pub const fn changes(self, clear: u64, set: u64) -> bool {
        self.and & set != set || self.or & clear != 0
    }
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to change all leaves in `first..=last`, after splitting those at the ends that reach
    /// over them.
    #[inline(never)]
    pub fn protect(&mut self, first: u64, last: u64, change: Change) -> Result<(), PlanError> {
        let change = BitChange::of(change);
        // The check asks in debug builds alone, since hardware updates nothing here.
        if cfg!(debug_assertions) && change.invalidates {
            self.outcome = Outcome::Unmapped;
        }
        self.protect_bits(first, last, &change, Some((change.clear, change.set)))
    }

    /// [`protect`](Self::protect) in any regime.
    pub fn protect_in_regime(&mut self, first: u64, last: u64, change: Change) -> Result<(), PlanError> {
        let regime = self.context.geometry.regime();
        self.protect_once(first, last, &BitChange::in_regime(change, regime))
    }

    /// Plans to clear and set bits of all leaves in `first..=last` that are no permissions, after
    /// splitting those at the ends that reach over them.
    pub fn mark(&mut self, first: u64, last: u64, clear: u64, set: u64) -> Result<(), PlanError> {
        let change = BitChange { clear, set, never: 0, invalidates: false };
        self.protect_once(first, last, &change)
    }

    /// Plans a change in any regime. Where hardware updates leaves, it decides first which of those
    /// that reach over the ends of the range stay as they are.
    fn protect_once(&mut self, first: u64, last: u64, change: &BitChange) -> Result<(), PlanError> {
        if change.invalidates {
            self.outcome = Outcome::Unmapped;
        }
        let wanted = (change.clear, change.set);
        if !self.context.updates.is_on() {
            return self.protect_bits(first, last, change, Some(wanted));
        }
        match self.without_spared(first, last, wanted)? {
            Some((first, last)) => self.protect_bits(first, last, change, None),
            None => Ok(()),
        }
    }

    #[inline(always)]
    fn protect_bits(
        &mut self,
        first: u64,
        last: u64,
        change: &BitChange,
        wanted: Option<(u64, u64)>,
    ) -> Result<(), PlanError> {
        self.split(Cut::Ends { first, last, wanted })?;
        self.order_runs()?;
        self.protect_leaves_in(first, last, change)
    }

    /// Plans to change all leaves in `first..=last`. The leaves at its ends lie in the range or
    /// have the attributes already.
    #[inline(always)]
    fn protect_leaves_in(&mut self, first: u64, last: u64, change: &BitChange) -> Result<(), PlanError> {
        let top = self.top;
        if self.exclusivity.breaks_runs(self.context.bbm) && !self.is_page_outside_runs(first, last) {
            return self.protect_by_breaks(top, first, last, change);
        }
        self.protect_below(top, first, last, change, Phase::InPlace)
    }

    /// As [`protect_below`](Self::protect_below), where valid runs change by break-before-make.
    #[inline(never)]
    fn protect_by_breaks(
        &mut self,
        top: Node,
        first: u64,
        last: u64,
        change: &BitChange,
    ) -> Result<(), PlanError> {
        let from = self.script.len();
        self.protect_below(top, first, last, change, Phase::Break)?;
        let broken = from..self.script.len();
        self.settle()?;
        // A run that becomes invalid stays so.
        if change.invalidates { Ok(()) } else { self.remake_runs(broken, change) }
    }

    /// Returns whether the range is one page that is not part of a run: it changes in place.
    #[inline(always)]
    fn is_page_outside_runs(&mut self, first: u64, last: u64) -> bool {
        let top = self.top;
        top.level == Level::L3
            && first ^ last == (1 << self.context.page_shift) - 1
            && !self.read(top, top.index(first)).is_contiguous()
    }

    /// Plans to change what lies in `first..=last` in the table `node` and below.
    #[inline(always)]
    fn protect_below(
        &mut self,
        node: Node,
        first: u64,
        last: u64,
        change: &BitChange,
        phase: Phase,
    ) -> Result<(), PlanError> {
        if node.level == Level::L3 {
            self.protect_pages(node, first, last, change, phase)
        } else {
            self.protect_upper(node, first, last, change, phase)
        }
    }

    /// Plans to change what lies in `first..=last` in a table above the level of pages, and below
    /// it.
    #[inline(never)]
    fn protect_upper(
        &mut self,
        node: Node,
        first: u64,
        last: u64,
        change: &BitChange,
        phase: Phase,
    ) -> Result<(), PlanError> {
        let (from, to) = self.indices(node, first, last);
        let geometry = self.context.geometry;
        let mut leaves = from..from;
        for index in from..=to {
            // Only entries at the ends of the range are split.
            let split = index == from || index == to;
            let descriptor = if split { self.after_split(node, index) } else { self.read(node, index) };
            match entry(geometry, node.level, descriptor) {
                Entry::Leaf(_) => {
                    if leaves.end != index {
                        leaves = index..index;
                    }
                    leaves.end = index + 1;
                }
                Entry::Table(table) => {
                    self.protect_leaves(node, leaves, change, phase)?;
                    leaves = index + 1..index + 1;
                    let below = self.context.below(node, index, table);
                    self.protect_below(below, first, last, change, phase)?;
                }
                Entry::Empty => {
                    let va = Va(node.va(index).max(first));
                    return Err(PlanError::Hole { va });
                }
                Entry::Foreign => return Err(self.foreign(node, index, descriptor)),
            }
        }
        self.protect_leaves(node, leaves, change, phase)
    }

    /// Plans to change the pages of a table that lie in `first..=last`.
    #[inline(always)]
    fn protect_pages(
        &mut self,
        node: Node,
        first: u64,
        last: u64,
        change: &BitChange,
        phase: Phase,
    ) -> Result<(), PlanError> {
        let (from, to) = self.indices(node, first, last);
        // Every page has bit 1 set, valid or invalidated. An entry without it is a hole or foreign.
        let seen = if from == to {
            // As for most changes.
            let found = self.read(node, from).0;
            Seen { and: found, or: found }
        } else {
            self.look(node, from, to, Seen::of)
        };
        if seen.and & PAGE_BIT == 0 {
            for index in from..=to {
                let found = self.read(node, index);
                match entry(self.context.geometry, node.level, found) {
                    Entry::Leaf(_) => {}
                    Entry::Empty => return Err(PlanError::Hole { va: Va(node.va(index)) }),
                    Entry::Table(_) | Entry::Foreign => return Err(self.foreign(node, index, found)),
                }
            }
        }
        if self.can_grow(node, from, to, seen) {
            self.may_fold = true;
        }
        self.protect_seen(node, from..to + 1, seen, change, phase)
    }

    /// Returns whether some of the leaves `from..=to` could become one larger leaf that lies in the
    /// range: a block, or a contiguous run that they are not yet.
    #[inline(always)]
    fn can_grow(&self, node: Node, from: usize, to: usize, seen: Seen) -> bool {
        let count = to.wrapping_sub(from).wrapping_add(1);
        count >= SHORTEST_RUN && self.can_many_grow(node, from, count, seen)
    }

    #[inline(never)]
    fn can_many_grow(&self, node: Node, from: usize, count: usize, seen: Seen) -> bool {
        if count == self.context.entries(node.level) {
            return true;
        }
        let Some(run) = self.context.new_run(node.level) else { return false };
        seen.and & CONTIGUOUS == 0 && from.next_multiple_of(run) + run <= from + count
    }

    /// Plans to change some leaves of a table above the level of pages, or none.
    fn protect_leaves(
        &mut self,
        node: Node,
        leaves: Range<usize>,
        change: &BitChange,
        phase: Phase,
    ) -> Result<(), PlanError> {
        if leaves.is_empty() {
            return Ok(());
        }
        let seen = self.look(node, leaves.start, leaves.end - 1, Seen::of);
        self.may_fold |= self.can_grow(node, leaves.start, leaves.end - 1, seen);
        self.protect_seen(node, leaves, seen, change, phase)
    }

    /// Plans to change one or more leaves, which `seen` summarises.
    #[inline(always)]
    fn protect_seen(
        &mut self,
        node: Node,
        leaves: Range<usize>,
        seen: Seen,
        change: &BitChange,
        phase: Phase,
    ) -> Result<(), PlanError> {
        let (from, to) = (leaves.start, leaves.end - 1);
        let BitChange { clear, set, never, .. } = *change;
        if never != 0 {
            let writable = is_writable(seen.and & !clear | set) || is_writable(seen.or & !clear | set);
            let executable = (seen.and & !clear | set) & never != never;
            if writable && executable {
                let both = |bits: &u64| is_both(bits & !clear | set, never);
                if let Some(nth) = self.look(node, from, to, |entries| entries.iter().position(both)) {
                    return Err(PlanError::WritableAndExecutable { va: Va(node.va(from + nth)) });
                }
            }
        }
        if !seen.changes(clear, set) {
            return Ok(());
        }
        // From the first leaf that changes to the last. Leaves between may be stored unchanged.
        let (mut lead, mut end) = (from, to);
        if from != to {
            let changes = |bits: &u64| bits & !clear | set != *bits;
            let ends = self.look(node, from, to, |entries| {
                Some((entries.iter().position(changes)?, entries.iter().rposition(changes)?))
            });
            let Some(ends) = ends else { return Ok(()) };
            (lead, end) = (from + ends.0, from + ends.1);
        }
        if seen.or & CONTIGUOUS != 0 {
            (lead, end) = self.whole_runs(node, from, lead, end, to);
        }
        if self.context.bbm == BbmLevel::L0
            && self.exclusivity != Exclusivity::Parked
            && !change.invalidates
            && seen.or & (CONTIGUOUS | VALID_BIT) == CONTIGUOUS | VALID_BIT
        {
            return self.protect_runs(node, lead, end, (clear, set), seen, phase);
        }
        self.protect_stretch(node, lead, end, (clear, set), seen)
    }

    /// Plans to change the leaves `lead..=end` at BBM level 0, run by run. A valid run that changes
    /// is made invalid first; other runs may be invalid, or have the attributes already.
    #[inline(never)]
    fn protect_runs(
        &mut self,
        node: Node,
        lead: usize,
        end: usize,
        masks: (u64, u64),
        seen: Seen,
        phase: Phase,
    ) -> Result<(), PlanError> {
        let changes = |bits: &u64| bits & !masks.0 | masks.1 != *bits;
        let run = self.context.run(node.level).unwrap_or(1);
        let mut index = lead;
        while index <= end {
            let last = (index | (run - 1)).min(end);
            let found = self.after_split(node, index);
            // Hardware updates any entry for the run: one that changes is enough.
            if self.look(node, index, last, |entries| entries.iter().any(changes)) {
                if found.is_contiguous() && found.is_valid() {
                    self.remake_run(node, index, last, phase)?;
                } else {
                    self.protect_stretch(node, index, last, masks, seen)?;
                }
            }
            index = last + 1;
        }
        Ok(())
    }

    /// Plans to change a valid contiguous run at BBM level 0, where its entries must not differ
    /// while they are valid (Arm ARM D8.7.1).
    fn remake_run(&mut self, node: Node, first: usize, last: usize, phase: Phase) -> Result<(), PlanError> {
        let count = last - first + 1;
        match phase {
            Phase::InPlace | Phase::Make | Phase::Unfold | Phase::Gather => {
                Err(PlanError::RunInUse { va: Va(node.va(first)) })
            }
            Phase::Break => {
                self.store(node, first, count, BREAK)?;
                self.invalidate_leaves(node, first, count);
                Ok(())
            }
        }
    }

    /// Plans to make the runs valid again, with the change, that the steps `broken` make invalid.
    fn remake_runs(&mut self, broken: Range<usize>, change: &BitChange) -> Result<(), PlanError> {
        let edit = Edit::Bits { clear: change.clear, set: change.set | VALID_BIT };
        for at in broken {
            if let Some(Step::Store(store)) = self.script.steps().get(at).copied()
                && store.edit == BREAK
            {
                let shift = self.context.shift(store.level);
                let base = store.va.0.wrapping_sub(u64::from(store.index) << shift);
                let node = Node { table: store.table, base, shift, level: store.level };
                self.store(node, store.index.into(), store.count.into(), edit)?;
            }
        }
        Ok(())
    }

    /// Plans to change some of the leaves `lead..=end` in place.
    #[inline(always)]
    fn protect_stretch(
        &mut self,
        node: Node,
        lead: usize,
        end: usize,
        (clear, set): (u64, u64),
        seen: Seen,
    ) -> Result<(), PlanError> {
        let count = end - lead + 1;
        self.store(node, lead, count, Edit::Bits { clear, set })?;
        if self.exclusivity == Exclusivity::Parked {
            return Ok(());
        }
        if seen.and & VALID_BIT != 0 || self.changes_valid(node, lead, end, (clear, set)) {
            self.invalidate_leaves(node, lead, count);
        }
        Ok(())
    }

    /// Returns whether a valid leaf of `lead..=end` changes, as hardware may have updated it. No
    /// TLB holds an invalid entry, and an unchanged one may stay there.
    #[inline(never)]
    fn changes_valid(&mut self, node: Node, lead: usize, end: usize, (clear, set): (u64, u64)) -> bool {
        let context = self.context;
        let changes = |bits: &u64| {
            let bits = context.updates.of_leaf(context.geometry.regime(), Descriptor(*bits)).0;
            bits & VALID_BIT != 0 && bits & !clear | set != bits
        };
        self.look(node, lead, end, |entries| entries.iter().any(changes))
    }

    /// Returns `lead..=end` extended to whole contiguous runs within `from..=to`, since the entries
    /// of a run change together.
    fn whole_runs(&mut self, node: Node, from: usize, lead: usize, end: usize, to: usize) -> (usize, usize) {
        let Some(run) = self.context.run(node.level) else { return (lead, end) };
        let mut grown = (lead, end);
        if self.after_split(node, lead).is_contiguous() {
            grown.0 = (lead & !(run - 1)).max(from);
        }
        if self.after_split(node, end).is_contiguous() {
            grown.1 = (end | (run - 1)).min(to);
        }
        grown
    }
}
