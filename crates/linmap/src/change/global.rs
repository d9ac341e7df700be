//! Translations of one address space, or of all: the nG bit in every leaf of the kernel's half.

use linmap_live::{Global, Parked, Step};
use linmap_vmsa::VaRange;

use super::{ChangeError, Changed, Editor, LinearMap, parked};

impl LinearMap {
    /// Makes all translations of the kernel's half global or non-global, the image's own included, with all CPUs parked: a
    /// global entry that may overlap a cached non-global one always asks for break-before-make (Arm ARM D8.16.1).
    /// Non-global is what a kernel needs that hides itself from user space.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn set_global<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        global: Global,
    ) -> Result<Changed, ChangeError> {
        let half = VaRange::new(self.tree.base(), 1 << self.layout.geometry().va_bits());
        let mut window = editor.window();
        // SAFETY: the plan is applied by `parked` alone, in `Editor::park`.
        let target = unsafe { Parked::new(half) };
        let plan = self.tree.plan_global(target, global, steps, &mut window, &mut editor.frames())?;
        let changed = parked(editor, plan)?;
        self.global = global;
        Ok(changed)
    }
}
