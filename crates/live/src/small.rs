//! The shape of small plans, which most edits are: one store, or a table linked and a store to its pages, and what has to
//! follow.

use crate::step::{Edit, Invalidation, Step, Store};
use linmap_table::cpu::Dsb;

/// The steps of a plan of that shape, by name. In this order they are all that the plan has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small<'s> {
    /// A DSB ISHST, which orders what new tables hold.
    pub order: Option<&'s Step>,
    /// The store, or the link of a new table.
    pub store: &'s Store,
    /// A store right behind it, without a barrier in between.
    pub pages: Option<&'s Store>,
    // A DSB ISHST.
    /// The invalidation, and a DSB ISH behind it.
    pub invalidation: Option<&'s Invalidation>,
    // An ISB.
    /// What is behind the ISB.
    pub frees: &'s [Step],
}

impl<'s> Small<'s> {
    /// The plan as a small one, if it is one.
    #[inline(always)]
    pub fn of(steps: &'s [Step]) -> Option<Self> {
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

    /// Whether it is one store of bits and an invalidation for it.
    #[inline(always)]
    pub fn is_change_in_place(&self) -> bool {
        self.order.is_none()
            && self.pages.is_none()
            && self.frees.is_empty()
            && self.invalidation.is_some()
            && matches!(self.store.edit, Edit::Bits { .. })
    }
}
