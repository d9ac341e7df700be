//! What the linear region must translate, for its verification.

use linmap_table::Leaves;
use linmap_table::verify::Expected;
use linmap_vmsa::{Access, PaRange};

use super::linear_map::LinearMap;
use crate::changed_ranges::{Allowed, ChangedRanges};

impl LinearMap {
    /// Returns what the linear region must translate, for
    /// [`verify_tree`](linmap_table::verify::verify_tree): all of `memory`, which ascends, and
    /// nothing else. `changed` is the record of all changes of protections.
    ///
    /// The rest of the kernel's half is the caller's, the image's own mapping included.
    pub fn expected<'e, const N: usize>(
        &'e self,
        memory: impl Iterator<Item = PaRange> + 'e,
        changed: &'e ChangedRanges<N>,
    ) -> impl Iterator<Item = Expected> + 'e {
        let pages = self.pages();
        // The alias of the image's text is built without contiguous runs, but a split of it may
        // make some. Its data has none.
        let (layout, image, leaves, as_built) = (self.layout(), self.image, self.leaves, self.attributes());
        let whole = image.range();
        let expected = move |(part, allowed): (PaRange, Allowed)| {
            pages.parts(part).map(move |(part, is_pages)| {
                let leaves = if is_pages { Leaves::Pages } else { leaves };
                let content = allowed.content(part.start, leaves, as_built);
                Expected { va: layout.linear(part.start), len: part.len(), content }
            })
        };
        memory.flat_map(move |range| {
            let below = PaRange::new(range.start, range.end.min(whole.start));
            let above = PaRange::new(range.start.max(whole.end), range.end);
            let alias = range.intersection(image.read_only);
            let read_only = Allowed { access: Access::KernelReadOnly, ..Allowed::DATA };
            let alias = (!alias.is_empty()).then_some((alias, read_only));
            changed.parts(below).chain(alias).chain(changed.parts(above)).flat_map(expected)
        })
    }
}
