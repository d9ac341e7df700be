//! The check of small plans: one store, and what has to follow it.
//!
//! Most edits are such plans, and nothing that came before can have changed what their one store meets. What is accepted
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
/// returned table that it asks for. A table and a block that replace each other are not compared.
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
    let Some(node) = find(regime, store, window) else { return false };
    match (store.edit, frees) {
        (Edit::Bits { clear, set }, []) if node.level == Level::L3 && bbm::never_breaks(clear, set) => {
            pages_accepted(regime, node, store, invalidation, window)
        }
        (Edit::Write { first, .. }, _) if store.count == 1 => {
            let old = read(window, node.level, node.table, store.index.into());
            if matches!(first.decode(regime.geometry, node.level), Decoded::Table(_)) && !tables_ordered {
                return false;
            }
            replacement_accepted(regime, meanwhile, node, store, [old, first], invalidation, frees)
        }
        _ => false,
    }
}

/// The table that `store` names entries of.
#[inline]
fn find<W: TableWindow>(regime: &Regime, store: &Store, window: &mut W) -> Option<Node> {
    let Store { va, table, level, index, count, .. } = *store;
    let node = regime.lowest_to(window, va.0, level);
    let end = usize::from(index).wrapping_add(count.into());
    let fits = node.level == level && node.table == table && end <= regime.entries(level) && count > 0;
    (fits && va.0 == node.va(index.into())).then_some(node)
}

/// Permissions of pages, none of which is one of a run.
#[inline]
fn pages_accepted<W: TableWindow>(
    regime: &Regime,
    node: Node,
    store: &Store,
    invalidation: Option<&Invalidation>,
    window: &mut W,
) -> bool {
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
