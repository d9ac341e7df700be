//! The fast path of the check, for the plans of most edits.
//!
//! Such a plan is one store, or a link to a new table and one store to its pages, with the
//! barriers, the invalidation and the freed table that they need. Each store can be checked by
//! itself, without a record of the steps before. Plans that are not accepted here go through the
//! check of all steps. With debug assertions accepted plans do too, and both must agree.
//!
//! The reason is the cost of the smallest edits, which without it exceeds its limits: 900 for one
//! page, 3 000 for one page of a 2M block and for a fold, 5 827 for one page of a 1G block.
//! Instructions of whole calls (AArch64, 4K granule, 48 bits, BBM level 3; the last three in a user
//! space of 39 bits, at level 0). Without this file each takes 300 to 2 200 more.
//!
//! | change | instructions |
//! |---|--:|
//! | a 2M block split | 2 239 |
//! | one page of a table of pages | 888 |
//! | one page of a 2M block | 2 820 |
//! | one page of a 1G block | 5 374 |
//! | a table of pages folded back to a 2M block | 2 922 |
//! | one page of a user space protected | 853 |
//! | one page of a user space remapped to a copy | 919 |
//! | one page of a user space unmapped | 1 002 |

use linmap_vmsa::bbm::{self, Requirement};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Level};

use crate::entry::{CONTIGUOUS, PAGE_BIT, VALID_BIT};
use crate::every_leaf::NOT_GLOBAL;
use crate::exclusivity::Exclusivity;
use crate::invalidate::Span;
use crate::node::Node;
use crate::scope::Scope;
use crate::step::{Edit, Invalidation, Reach, Step, Store};
use crate::tree_context::TreeContext;
use linmap_table::TableWindow;
use linmap_table::cpu::Dsb;

/// `AttrIndx[2:0]` of stage 1.
const MEMORY_TYPE: u64 = 0b111 << 2;

/// The steps of a short plan by name, in this order. It has no others.
#[derive(Clone, Copy, Debug)]
struct ShortPlan<'s> {
    /// A DSB ISHST, which orders what new tables hold.
    order: Option<&'s Step>,
    /// The store, or the link to a new table.
    store: &'s Store,
    /// A store right after it, without a barrier in between.
    pages: Option<&'s Store>,
    // A DSB ISHST.
    /// The invalidation, and a DSB ISH after it.
    invalidation: Option<&'s Invalidation>,
    // An ISB.
    /// The steps after the ISB.
    frees: &'s [Step],
}

impl<'s> ShortPlan<'s> {
    /// Returns the steps as a short plan, if they are one.
    #[inline(always)]
    fn of(steps: &'s [Step]) -> Option<Self> {
        let (order, store, rest) = match steps {
            [Step::Store(store), rest @ ..] => (None, store, rest),
            [first @ Step::Dsb(Dsb::Ishst), Step::Store(store), rest @ ..] => (Some(first), store, rest),
            _ => return None,
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
            _ => return None,
        };
        Some(Self { order, store, pages, invalidation, frees })
    }

    /// Returns whether it is one change of bits and an invalidation for it.
    #[inline(always)]
    fn is_change_in_place(&self) -> bool {
        self.order.is_none()
            && self.pages.is_none()
            && self.frees.is_empty()
            && self.invalidation.is_some()
            && matches!(self.store.edit, Edit::Bits { .. })
    }
}

/// Returns whether `steps` are a short plan and legal. A table and a block that replace each other
/// are not compared.
#[inline(always)]
pub(super) fn is_accepted<W: TableWindow>(
    context: &TreeContext,
    exclusivity: Exclusivity,
    steps: &[Step],
    window: &mut W,
) -> bool {
    let Some(plan) = ShortPlan::of(steps) else {
        return is_remap_accepted(context, exclusivity, steps, window);
    };
    // The plan for a change of one page has this form.
    if plan.is_change_in_place() {
        let store = plan.store;
        return exclusivity != Exclusivity::Parked
            && store.count <= context.few
            && context.holds(store.va.0)
            && find_pages(context, context.top, store, window)
                .is_some_and(|node| pages_accepted(context, node, store, plan.invalidation, window));
    }
    is_larger_accepted(context, exclusivity, plan, window)
}

/// Accepts the plan that gives a page outside of runs another frame: it is made invalid, that is
/// invalidated, and the new page is stored.
#[inline(never)]
fn is_remap_accepted<W: TableWindow>(
    context: &TreeContext,
    exclusivity: Exclusivity,
    steps: &[Step],
    window: &mut W,
) -> bool {
    let [
        Step::Store(broken),
        Step::Dsb(Dsb::Ishst),
        Step::Invalidate(invalidation),
        Step::Dsb(Dsb::Ish),
        Step::Store(made),
        Step::Dsb(Dsb::Ishst),
        Step::Isb,
    ] = steps
    else {
        return false;
    };
    let breaks = matches!(exclusivity, Exclusivity::Retried | Exclusivity::Quiescent);
    let same = broken.table == made.table
        && (broken.va, broken.level, broken.index, broken.count, 1)
            == (made.va, made.level, made.index, made.count, made.count);
    let (Edit::Bits { clear: VALID_BIT, set: 0 }, Edit::Write { first, .. }) = (broken.edit, made.edit)
    else {
        return false;
    };
    if !breaks || !same || broken.count > context.few || !context.holds(broken.va.0) {
        return false;
    }
    let Some(node) = find_pages(context, context.top, broken, window) else { return false };
    let old = context.read(window, node.level, node.table, broken.index.into());
    // A new memory type takes more steps, and so does a global leaf in the tree of one ASID.
    let is_page = |bits: u64| bits & (CONTIGUOUS | PAGE_BIT | VALID_BIT) == PAGE_BIT | VALID_BIT;
    let keeps = MEMORY_TYPE | if matches!(context.scope, Scope::Asid(_)) { NOT_GLOBAL } else { 0 };
    is_page(old.0)
        && is_page(first.0)
        && (old.0 ^ first.0) & keeps == 0
        && covers(context, invalidation, Span::leaves(broken.va.0, 1, node.shift))
}

/// [`is_accepted`] for plans of other shapes.
#[inline(never)]
fn is_larger_accepted<W: TableWindow>(
    context: &TreeContext,
    exclusivity: Exclusivity,
    plan: ShortPlan<'_>,
    window: &mut W,
) -> bool {
    let ShortPlan { order, store, pages, invalidation, frees } = plan;
    if exclusivity == Exclusivity::Parked || store.count > context.few || !context.holds(store.va.0) {
        return false;
    }
    let Some(node) = find(context, context.top, store, window) else { return false };
    match (store.edit, pages) {
        (Edit::Bits { .. }, None) => {
            frees.is_empty() && pages_accepted(context, node, store, invalidation, window)
        }
        // The new leaves of a user space are looked at one by one.
        (Edit::Write { first, .. }, _)
            if store.count == 1
                && (matches!(context.scope, Scope::Every) || first == Descriptor::INVALID) =>
        {
            let index = store.index.into();
            let old = context.read(window, node.level, node.table, index);
            let linked = if node.level == Level::L3 {
                None
            } else {
                context.next_table(first).filter(|_| first != old)
            };
            if linked.is_some() && order.is_none() {
                return false;
            }
            let replaced = [old, first];
            let (Some(pages), Some(table)) = (pages, linked) else {
                return pages.is_none()
                    && replacement_accepted(
                        context,
                        exclusivity,
                        node,
                        store,
                        replaced,
                        invalidation,
                        frees,
                    );
            };
            // The link needs no invalidation, so the one that follows is for the pages.
            let below = context.below(node, index, table);
            frees.is_empty()
                && pages.count <= context.few
                && ![table, pages.table].contains(&node.table)
                && pages.va.0.wrapping_sub(below.base) <= node.last(index).wrapping_sub(below.base)
                && replacement_accepted(context, exclusivity, node, store, replaced, None, &[])
                && find_pages(context, below, pages, window)
                    .is_some_and(|node| pages_accepted(context, node, pages, invalidation, window))
        }
        _ => false,
    }
}

/// Returns the table of `store`, if the walk from `top` on, a table for its addresses, reaches it.
#[inline(always)]
fn find<W: TableWindow>(context: &TreeContext, top: Node, store: &Store, window: &mut W) -> Option<Node> {
    let Store { va, table, level, index, count, .. } = *store;
    let node = context.table_at(top, window, va.0, level)?;
    let end = usize::from(index).wrapping_add(count.into());
    let fits = node.table == table && end <= context.entries(level) && count > 0;
    (fits && va.0.wrapping_sub(node.base) == u64::from(index).wrapping_shl(node.shift)).then_some(node)
}

/// [`find`] for a store to pages, which a table of `1 << index_bits` entries has.
#[inline(always)]
fn find_pages<W: TableWindow>(
    context: &TreeContext,
    top: Node,
    store: &Store,
    window: &mut W,
) -> Option<Node> {
    let Store { va, table, level, index, count, .. } = *store;
    if level != Level::L3 {
        return None;
    }
    let node = context.descend_to(top, window, va.0, context.page_shift, |_, _, _, memory| memory);
    let fits = node.shift == context.page_shift
        && node.table == table
        && usize::from(index).wrapping_add(count.into()) <= context.page_entries()
        && count > 0;
    (fits && va.0.wrapping_sub(node.base) == u64::from(index).wrapping_shl(context.page_shift))
        .then_some(Node { level, ..node })
}

/// Accepts a change of permissions of pages outside of runs.
#[inline(always)]
fn pages_accepted<W: TableWindow>(
    context: &TreeContext,
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
        any |= context.read(window, node.level, node.table, store.index.wrapping_add(nth).into()).0;
    }
    let span = Span::leaves(store.va.0, store.count.into(), node.shift);
    any & CONTIGUOUS == 0 && invalidation.is_some_and(|invalidation| covers(context, invalidation, span))
}

/// Accepts the replacement of one entry, neither the old nor the new one part of a run.
#[inline(always)]
fn replacement_accepted(
    context: &TreeContext,
    exclusivity: Exclusivity,
    node: Node,
    store: &Store,
    [old, new]: [Descriptor; 2],
    invalidation: Option<&Invalidation>,
    frees: &[Step],
) -> bool {
    let TreeContext { geometry, bbm, .. } = *context;
    if (old.0 | new.0) & CONTIGUOUS != 0 {
        return false;
    }
    let requirement = bbm::change(geometry, node.level, old, new, bbm);
    let resizes = bbm != BbmLevel::L3 && bbm::resizes(geometry, node.level, old, new);
    if requirement > Requirement::Invalidate || (!exclusivity.allows_resizes() && resizes) {
        return false;
    }
    let removed = if node.level == Level::L3 { None } else { context.next_table(old).filter(|_| new != old) };
    let freed = match (frees, removed) {
        ([], _) => true,
        // Only the table that the store unlinks may be freed, and only once.
        ([Step::Free { va, table, level }], Some(removed)) => {
            *va == store.va && *table == removed && Some(*level) == node.level.next()
        }
        _ => false,
    };
    let span = match removed {
        Some(_) => Span::table(geometry, node.level, store.va.0),
        None => Span::leaves(store.va.0, 1, node.shift),
    };
    freed
        && match invalidation {
            Some(invalidation) => covers(context, invalidation, span),
            None => requirement == Requirement::Nothing,
        }
}

/// Returns whether `invalidation` covers exactly `span`, or everything, and can be encoded.
#[inline(always)]
fn covers(context: &TreeContext, invalidation: &Invalidation, span: Span) -> bool {
    // Planners invalidate leaves this way: one TLBI for each.
    if let Invalidation::ByVa { va, count, shift, reach } = *invalidation {
        return va.0 == span.first
            && shift == span.shift
            && u64::from(count) == span.entries()
            && (reach == Reach::AllLevels || span.reach == Reach::LastLevel);
    }
    let Span { first, shift, reach, .. } = span;
    covers_range(context, invalidation, first, span.entries(), shift, reach)
}

/// [`covers`] for other invalidations. Its arguments are the parts of the span: a whole `Span`
/// would be written to memory on every call of `covers`.
#[inline(never)]
fn covers_range(
    context: &TreeContext,
    invalidation: &Invalidation,
    first: u64,
    entries: u64,
    shift: u32,
    asked: Reach,
) -> bool {
    match *invalidation {
        Invalidation::All => true,
        Invalidation::ByVa { .. } | Invalidation::Stage1 => false,
        Invalidation::ByRange { va, pages, reach } => {
            va.0 == first
                && shift == context.page_shift
                && pages == entries
                && (reach == Reach::AllLevels || asked == Reach::LastLevel)
                && context.can_say(va, pages)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::half::Half;
    use linmap_table::OffsetWindow;
    use linmap_vmsa::{Access, Attributes, Geometry, Pa, Va};
    use std::{vec, vec::Vec};

    const G: Geometry = Geometry::K4_48;
    const BLOCK: u64 = 0x4020_0000;
    const PAGE: u64 = BLOCK + 0x5000;

    /// Tables of 512 entries; table n is at PA n × 0x1000. Three levels lead to a block, and a
    /// table for it follows.
    fn tables() -> Vec<u64> {
        let mut entries = vec![0; 512 * 6];
        let mut link = |table: usize, index: usize, bits: u64| entries[table * 512 + index] = bits;
        link(1, 0, Descriptor::table(G, Pa(0x2000)).0);
        link(2, 1, Descriptor::table(G, Pa(0x3000)).0);
        link(3, 1, Descriptor::leaf(G, Level::L2, Pa(BLOCK), Attributes::KERNEL_DATA).unwrap().0);
        for table in [4, 5] {
            for index in 0..512 {
                let pa = Pa(BLOCK + ((index as u64) << 12));
                link(table, index, Descriptor::page(G, pa, Attributes::KERNEL_DATA).0);
            }
        }
        entries
    }

    /// The plan that makes one page of the block read-only.
    fn plan() -> [Step; 7] {
        let first = Descriptor::table(G, Pa(0x4000));
        let link = Edit::Write { first, step: 0 };
        let pages = Edit::Bits { clear: 0, set: Access::KernelReadOnly.bits() };
        let store = |va, table, level, index, edit| {
            Step::Store(Store { va: Va(va), table: Pa(table), level, index, count: 1, edit })
        };
        let (count, shift, reach) = (1, 12, Reach::LastLevel);
        [
            Step::Dsb(Dsb::Ishst),
            store(BLOCK, 0x3000, Level::L2, 1, link),
            store(PAGE, 0x4000, Level::L3, 5, pages),
            Step::Dsb(Dsb::Ishst),
            Step::Invalidate(Invalidation::ByVa { va: Va(PAGE), count, shift, reach }),
            Step::Dsb(Dsb::Ish),
            Step::Isb,
        ]
    }

    fn accepts_with(bbm: BbmLevel, exclusivity: Exclusivity, mut entries: Vec<u64>, steps: &[Step]) -> bool {
        let context = TreeContext::new(G, Pa(0x1000), Half::Low, bbm);
        // SAFETY: the frames of all tables lie in `entries`, which nothing else accesses until the
        // end of the call.
        let mut window = unsafe { OffsetWindow::new(entries.as_mut_ptr().expose_provenance() as u64) };
        is_accepted(&context, exclusivity, steps, &mut window)
    }

    fn accepts(steps: &[Step]) -> bool {
        accepts_with(BbmLevel::L3, Exclusivity::InUse, tables(), steps)
    }

    #[test]
    fn a_table_linked_and_one_of_its_pages_changed_is_accepted_at_level_3_alone() {
        assert!(accepts(&plan()));
        assert!(accepts_with(BbmLevel::L3, Exclusivity::Quiescent, tables(), &plan()));
        assert!(!accepts_with(BbmLevel::L3, Exclusivity::Parked, tables(), &plan()));
        for bbm in [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2] {
            assert!(!accepts_with(bbm, Exclusivity::InUse, tables(), &plan()));
        }
    }

    #[test]
    fn a_run_under_either_store_is_left_to_the_whole_check() {
        for (table, index) in [(3, 1), (4, 5)] {
            let mut entries = tables();
            entries[table * 512 + index] |= CONTIGUOUS;
            assert!(!accepts_with(BbmLevel::L3, Exclusivity::InUse, entries, &plan()));
        }
    }

    #[test]
    fn a_step_less_is_one_too_few() {
        for missing in 0..plan().len() {
            let mut steps = plan().to_vec();
            steps.remove(missing);
            assert!(!accepts(&steps), "without {}", plan()[missing]);
        }
    }

    #[test]
    fn a_store_to_pages_elsewhere_or_of_more_than_permissions_is_not_accepted() {
        let with = |change: fn(&mut Store)| {
            let mut steps = plan();
            let Step::Store(store) = &mut steps[2] else { panic!("a store") };
            change(store);
            accepts(&steps)
        };
        assert!(with(|_| {}));
        assert!(!with(|store| store.table = Pa(0x5000)));
        assert!(!with(|store| store.va = Va(PAGE + 0x1000)));
        assert!(!with(|store| store.va = Va(PAGE + 0x20_0000)));
        assert!(!with(|store| store.index = 6));
        assert!(!with(|store| store.count = 0));
        assert!(!with(|store| store.count = 2), "the invalidation is for one");
        assert!(!with(|store| store.level = Level::L2));
        assert!(!with(|store| store.edit = Edit::Bits { clear: 0, set: 1 }));
        assert!(!with(|store| store.edit = Edit::Write { first: Descriptor::INVALID, step: 0 }));
    }

    #[test]
    fn an_invalidation_of_another_page_or_a_table_freed_is_not_accepted() {
        let mut steps = plan();
        let (count, shift, reach) = (1, 12, Reach::LastLevel);
        steps[4] = Step::Invalidate(Invalidation::ByVa { va: Va(BLOCK), count, shift, reach });
        assert!(!accepts(&steps));
        let mut steps = plan().to_vec();
        steps.push(Step::Free { va: Va(BLOCK), table: Pa(0x4000), level: Level::L3 });
        assert!(!accepts(&steps));
    }

    #[test]
    fn a_table_linked_below_itself_is_not_accepted() {
        let mut steps = plan();
        let Step::Store(store) = &mut steps[1] else { panic!("a store") };
        store.edit = Edit::Write { first: Descriptor::table(G, Pa(0x3000)), step: 0 };
        let Step::Store(store) = &mut steps[2] else { panic!("a store") };
        store.table = Pa(0x3000);
        assert!(!accepts(&steps));
    }
}
