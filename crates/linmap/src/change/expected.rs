//! What the linear region must translate, for its verification.

use linmap_table::Leaves;
use linmap_table::verify::{AccessFlag, Compared, Expected, PortableLoop, Tree, TreeError, verify_tree};
use linmap_vmsa::{Access, PaRange};

use super::editor::Editor;
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
        let tables = self.tree.geometry().table_permissions();
        let whole = image.range();
        let expected = move |(part, allowed): (PaRange, Allowed)| {
            pages.parts(part).map(move |(part, is_pages)| {
                let leaves = if is_pages { Leaves::Pages } else { leaves };
                let content = allowed.content(part.start, leaves, as_built);
                Expected { va: layout.linear(part.start), len: part.len(), content, tables }
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

    /// Compares every entry of the kernel's half with what it must be: [`expected`](Self::expected)
    /// in the linear region, and `behind` in the rest of the half, ascending. It accepts any frame
    /// as a table. A kernel that knows which frames are tables calls
    /// [`verify_tree`](linmap_table::verify::verify_tree) itself.
    ///
    /// # Errors
    /// [`TreeError`], the first difference.
    ///
    /// # Safety
    /// A wrong table descriptor leads to memory that `editor`'s window reaches. Nothing changes
    /// tables during the call.
    pub unsafe fn verify<E: Editor, const N: usize>(
        &self,
        editor: &mut E,
        memory: impl Iterator<Item = PaRange>,
        changed: &ChangedRanges<N>,
        behind: impl Iterator<Item = Expected>,
    ) -> Result<Compared, TreeError> {
        let tree = Tree {
            geometry: self.tree.geometry(),
            root: self.tree.root(),
            base: self.tree.base(),
            access_flag: AccessFlag::Software,
        };
        let expected = self.expected(memory, changed).chain(behind);
        // SAFETY: the window of an editor reaches the tables; the rest is the caller's.
        unsafe { verify_tree(&tree, expected, &mut editor.window(), |_, _, _| true, &PortableLoop) }
    }
}
