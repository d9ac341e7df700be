//! Contiguous runs under a store: a run changes whole, and its entries stay consecutive.

use linmap_vmsa::{Decoded, Descriptor};

use crate::entry::CONTIGUOUS;
use crate::gather::updated_bits;
use crate::step::Store;
use crate::tree_context::TreeContext;

/// The contiguous run that the last entry looked at belongs to.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// The new value of the run's first entry, its index, and the index after the last entry.
    lead: Option<(Descriptor, usize, usize)>,
}

impl Run {
    /// Checks the next entry of `store`, which changes from `now` to `new`. Returns `None` when it
    /// belongs to a run that does not change whole, or whose entries would not be consecutive.
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
            // Hardware may have updated any one entry of it.
            return ((new.0 ^ expected) & !updated_bits(lead.0) == 0).then_some(());
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
        // A run begins at an address that is a multiple of its size.
        let Decoded::Leaf(pa) = new.decode(context.geometry, store.level) else { return None };
        if index != start || pa.0 & (((count as u64) << shift) - 1) != 0 {
            return None;
        }
        self.lead = Some((new, start, start + count));
        Some(())
    }
}
