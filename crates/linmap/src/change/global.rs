//! Global or non-global: the nG bit in every leaf of the kernel's half.

use linmap_live::{Global, Parked, Step};
use linmap_vmsa::VaRange;

use super::apply::parked;
use super::change_error::ChangeError;
use super::changed::Changed;
use super::editor::Editor;
use super::linear_map::LinearMap;

impl LinearMap {
    /// Makes all translations of the kernel's half global or non-global, the image's own included.
    /// A kernel that hides itself from user space (KPTI) needs non-global ones.
    ///
    /// All CPUs park: a global entry in place of a non-global one always needs break-before-make
    /// (Arm ARM D8.16.1).
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn set_global<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        global: Global,
    ) -> Result<Changed, ChangeError> {
        let half = VaRange::new(self.tree.base(), 1 << self.layout().geometry().va_bits());
        let mut window = editor.window();
        // SAFETY: the plan is applied by `parked` alone, in `Editor::park`.
        let target = unsafe { Parked::new(half) };
        let plan = self.tree.plan_global(target, global, steps, &mut window, &mut editor.frames())?;
        let changed = parked(editor, plan)?;
        self.global = global;
        Ok(changed)
    }
}
