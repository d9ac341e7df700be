//! Running a change: in use where the CPUs allow it, else parked.

use linmap_live::{Parked, PlanError, Step, Target};
use linmap_vmsa::{PaRange, VaRange};

use super::apply::{in_use, parked};
use super::change_error::ChangeError;
use super::changed::Changed;
use super::editor::Editor;
use super::linear_map::LinearMap;
use super::mappable::explained;
use super::request::Request;

impl LinearMap {
    /// Runs `request` on the linear addresses of `range`. An error about a hole gives the reason
    /// for it.
    #[inline]
    pub(super) fn change<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
        request: Request<'_>,
    ) -> Result<Changed, ChangeError> {
        let target = self.region.linear(range)?;
        match self.run(editor, steps, target, request) {
            Err(error) => Err(explained(&editor.memory(), &self.region, range, error)),
            changed => changed,
        }
    }

    /// Plans, checks and applies `request` on `range`: in use where the CPUs allow it, else parked.
    #[inline(always)]
    pub(super) fn run<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: VaRange,
        request: Request<'_>,
    ) -> Result<Changed, ChangeError> {
        let mut window = editor.window();
        let target = Target::InUse(range);
        let plan = request.plan(&mut self.tree, target, steps, &mut window, &mut editor.frames());
        match plan {
            Ok(plan) => in_use(editor, &mut window, plan),
            Err(error) => self.run_otherwise(editor, steps, range, request, error),
        }
    }

    /// Runs `request` on `range` with all CPUs parked, if `error` says that it can't be planned in
    /// use.
    #[cold]
    #[inline(never)]
    pub(super) fn run_otherwise<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: VaRange,
        request: Request<'_>,
        error: PlanError,
    ) -> Result<Changed, ChangeError> {
        match error {
            PlanError::NeedsLevel3 { .. } | PlanError::RunInUse { .. } => {
                self.run_parked(editor, steps, range, request)
            }
            _ => Err(error.into()),
        }
    }

    /// Plans, checks and applies `request` on `range` with all CPUs parked.
    #[cold]
    #[inline(never)]
    pub(super) fn run_parked<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: VaRange,
        request: Request<'_>,
    ) -> Result<Changed, ChangeError> {
        let mut window = editor.window();
        // SAFETY: the plan is applied by `parked` alone, in `Editor::park`.
        let target = Target::Parked(unsafe { Parked::new(range) });
        let plan = request.plan(&mut self.tree, target, steps, &mut window, &mut editor.frames())?;
        parked(editor, plan)
    }
}
