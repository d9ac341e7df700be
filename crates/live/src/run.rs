//! Contiguous runs under a store: all of a run changes, and alike.

use linmap_vmsa::{Decoded, Descriptor};

use crate::entry::CONTIGUOUS;
use crate::step::Store;
use crate::tree_context::TreeContext;

/// A contiguous run on its way through the entries of a store.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// What the first entry of the run becomes, and the index behind the last.
    lead: Option<(Descriptor, usize, usize)>,
}

impl Run {
    /// Looks at the next entry of `store`, which changes from `now` to `new`. `None` when it
    /// belongs to a run of which not all is changed, or not alike.
    #[inline(always)]
    pub fn check(
        &mut self,
        context: &TreeContext,
        store: &Store,
        index: usize,
        now: Descriptor,
        new: Descriptor,
    ) -> Option<()> {
        if self.lead.is_none() && (now.0 | new.0) & CONTIGUOUS == 0 {
            return Some(());
        }
        self.check_contiguous(context, store, index, now, new)
    }

    #[inline(never)]
    fn check_contiguous(
        &mut self,
        context: &TreeContext,
        store: &Store,
        index: usize,
        now: Descriptor,
        new: Descriptor,
    ) -> Option<()> {
        let shift = context.geometry.shift(store.level);
        if let Some((lead, start, end)) = self.lead
            && index < end
        {
            let expected = lead.0.wrapping_add(((index - start) as u64) << shift);
            return (new.0 == expected).then_some(());
        }
        let one_of_run = |descriptor: Descriptor| {
            descriptor.is_contiguous()
                && matches!(descriptor.decode(context.geometry, store.level), Decoded::Leaf(_))
        };
        if !one_of_run(now) && !one_of_run(new) {
            return Some(());
        }
        let count = context.run(store.level)?;
        let start = index & !(count - 1);
        let whole = usize::from(store.index) <= start
            && start + count <= usize::from(store.index) + usize::from(store.count);
        if !whole {
            return None;
        }
        if !one_of_run(new) {
            return Some(());
        }
        // A run begins with its first entry, at an address that is a multiple of its size.
        let Decoded::Leaf(pa) = new.decode(context.geometry, store.level) else { return None };
        if index != start || pa.0 & (((count as u64) << shift) - 1) != 0 {
            return None;
        }
        self.lead = Some((new, start, start + count));
        Some(())
    }
}
