//! The check of small plans: one store, or a table linked and a store to its pages, and what has to follow.
//!
//! Most edits are such plans, and nothing that came before can have changed what their stores meet. What is accepted
//! here the whole check accepts, too; what is not it looks at again.

use linmap_vmsa::bbm::{self, Requirement};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Decoded, Descriptor, Level};

use crate::cpu::Dsb;
use crate::live::covered::hit;
use crate::live::entry::CONTIGUOUS;
use crate::live::invalidate::Span;
use crate::live::regime::{Node, Regime};
use crate::live::step::{Edit, Invalidation, Reach, Step, Store};
use crate::live::target::Meanwhile;
use crate::walk::read;
use crate::window::TableWindow;

/// More entries in one store are worth the whole check.
const FEW: u16 = 16;

/// Whether `steps` are one store of a few entries that may be made in place, with the barriers, the invalidation and the
/// returned table that it asks for; or a table linked over a block, and such a store to a few pages that it leads to. A
/// table and a block that replace each other are not compared.
#[inline]
pub(super) fn is_accepted<W: TableWindow>(
    regime: &Regime,
    meanwhile: Meanwhile,
    steps: &[Step],
    window: &mut W,
) -> bool {
    let (tables_ordered, store, rest) = match steps {
        [Step::Store(store), rest @ ..] => (false, store, rest),
        [Step::Dsb(Dsb::Ishst), Step::Store(store), rest @ ..] => (true, store, rest),
        _ => return false,
    };
    let (pages, rest) = match rest {
        [Step::Store(pages), rest @ ..] => (Some(pages), rest),
        _ => (None, rest),
    };
    let (invalidation, frees) = match rest {
        [Step::Dsb(Dsb::Ishst), Step::Isb, frees @ ..] => (None, frees),
        [
            Step::Dsb(Dsb::Ishst),
            Step::Invalidate(invalidation),
            Step::Dsb(Dsb::Ish),
            Step::Isb,
            frees @ ..,
        ] => (Some(invalidation), frees),
        _ => return false,
    };
    if meanwhile == Meanwhile::Parked || store.count > FEW || !regime.holds(store.va.0) {
        return false;
    }
    let Some(node) = find(regime, regime.top, store, window) else { return false };
    match (store.edit, pages) {
        (Edit::Bits { .. }, None) => {
            frees.is_empty() && pages_accepted(regime, node, store, invalidation, window)
        }
        (Edit::Write { first, .. }, _) if store.count == 1 => {
            let index = store.index.into();
            let old = read(window, node.level, node.table, index);
            let linked =
                if node.level == Level::L3 { None } else { regime.next_table(first).filter(|_| first != old) };
            if linked.is_some() && !tables_ordered {
                return false;
            }
            let replaced = [old, first];
            let (Some(pages), Some(table)) = (pages, linked) else {
                return pages.is_none()
                    && replacement_accepted(regime, meanwhile, node, store, replaced, invalidation, frees);
            };
            // The link is in force as it is stored, and asks for no invalidation: what follows is for the pages alone.
            let below = regime.below(node, index, table);
            frees.is_empty()
                && pages.count <= FEW
                && pages.va.0.wrapping_sub(below.base) <= node.last(index).wrapping_sub(below.base)
                && replacement_accepted(regime, meanwhile, node, store, replaced, None, &[])
                && find(regime, below, pages, window)
                    .is_some_and(|node| pages_accepted(regime, node, pages, invalidation, window))
        }
        _ => false,
    }
}

/// The table that `store` names entries of, as the walk from `top` on, a table for its addresses, comes to it.
#[inline]
fn find<W: TableWindow>(regime: &Regime, top: Node, store: &Store, window: &mut W) -> Option<Node> {
    let Store { va, table, level, index, count, .. } = *store;
    let node = regime.descend(top, window, va.0, regime.shift(level), |_, _, memory| memory);
    let end = usize::from(index).wrapping_add(count.into());
    let fits = node.level == level && node.table == table && end <= regime.entries(level) && count > 0;
    (fits && va.0 == node.va(index.into())).then_some(node)
}

/// Permissions of pages, none of which is one of a run.
#[inline(always)]
fn pages_accepted<W: TableWindow>(
    regime: &Regime,
    node: Node,
    store: &Store,
    invalidation: Option<&Invalidation>,
    window: &mut W,
) -> bool {
    let Edit::Bits { clear, set } = store.edit else { return false };
    if node.level != Level::L3 || !bbm::never_breaks(clear, set) {
        return false;
    }
    let mut any = 0;
    for nth in 0..store.count {
        any |= read(window, node.level, node.table, store.index.wrapping_add(nth).into()).0;
    }
    let span = Span::leaves(store.va.0, store.count.into(), node.shift);
    any & CONTIGUOUS == 0 && invalidation.is_some_and(|invalidation| covers(regime, invalidation, span))
}

/// One entry that becomes another, neither of them one of a run.
#[inline]
fn replacement_accepted(
    regime: &Regime,
    meanwhile: Meanwhile,
    node: Node,
    store: &Store,
    [old, new]: [Descriptor; 2],
    invalidation: Option<&Invalidation>,
    frees: &[Step],
) -> bool {
    let Regime { geometry, bbm, .. } = *regime;
    if (old.0 | new.0) & CONTIGUOUS != 0 {
        return false;
    }
    let requirement = bbm::change(geometry, node.level, old, new, bbm);
    let resizes = bbm != BbmLevel::L3 && bbm::resizes(geometry, node.level, old, new);
    if requirement > Requirement::Invalidate || (meanwhile == Meanwhile::InUse && resizes) {
        return false;
    }
    let removed = match old.decode(geometry, node.level) {
        Decoded::Table(table) if new != old => Some(table),
        _ => None,
    };
    let freed = match (frees, removed, node.level.next()) {
        ([], _, _) => true,
        // The table itself is the only one that may go, and only once.
        ([Step::Free { va, table, level }], Some(removed), Some(next)) => {
            (*va, *table, *level) == (store.va, removed, next)
        }
        _ => false,
    };
    let span = match removed {
        Some(_) => Span::table(geometry, node.level, store.va.0),
        None => Span::leaves(store.va.0, 1, node.shift),
    };
    freed
        && match invalidation {
            Some(invalidation) => covers(regime, invalidation, span),
            None => requirement == Requirement::Nothing,
        }
}

/// Whether `invalidation` alone removes `span`, and an instruction can say it.
#[inline]
fn covers(regime: &Regime, invalidation: &Invalidation, span: Span) -> bool {
    let exact = match *invalidation {
        // As our planners do it for leaves: one for each.
        Invalidation::ByVa { va, count, shift, reach } => {
            return va.0 == span.first
                && shift == span.shift
                && u64::from(count) == span.entries()
                && (reach == Reach::AllLevels || span.reach == Reach::LastLevel);
        }
        Invalidation::ByRange { va, pages, .. } => regime.can_say(va, pages),
        Invalidation::All => true,
    };
    exact
        && hit(regime.page_shift, *invalidation, span)
            .is_some_and(|(first, last)| first <= span.first && span.last <= last)
}
