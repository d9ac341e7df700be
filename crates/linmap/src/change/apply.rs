//! Applying a plan, in use or parked.

use linmap_live::{CheckedPlan, Plan};

use super::change_error::ChangeError;
use super::changed::Changed;
use super::editor::Editor;

/// Checks `plan`, or abandons it.
#[inline(always)]
fn checked<'b, E: Editor>(
    editor: &mut E,
    window: &mut E::Window,
    plan: Plan<'b>,
) -> Result<CheckedPlan<'b>, ChangeError> {
    match plan.check(window) {
        Ok(checked) => Ok(checked),
        Err((plan, refused)) => {
            plan.abandon(window, &mut editor.frames());
            Err(refused.into())
        }
    }
}

/// Checks and applies `plan` while the map is in use, through the window that it was planned
/// through.
#[inline(always)]
pub(super) fn in_use<E: Editor>(
    editor: &mut E,
    window: &mut E::Window,
    plan: Plan<'_>,
) -> Result<Changed, ChangeError> {
    if plan.steps().is_empty() {
        return Ok(Changed::default());
    }
    let checked = checked(editor, window, plan)?;
    editor.planned(checked.steps());
    // SAFETY: the plan was made through this window and has borrowed the tree since. What is mapped
    // is memory, which may be accessed. The change's caller promises that no code uses a permission
    // that memory loses.
    let applied = unsafe { checked.apply(window, editor.cpu()) };
    let removes_tables = applied.removes_tables();
    let counts = if removes_tables { applied.free(window, &mut editor.frames()) } else { applied.counts() };
    let (entries, invalidations, freed) = (counts.entries, counts.invalidations, counts.freed);
    Ok(Changed { entries, invalidations, freed, ..Changed::default() })
}

/// Checks `plan` and applies it with all CPUs parked.
pub(super) fn parked<E: Editor>(editor: &mut E, plan: Plan<'_>) -> Result<Changed, ChangeError> {
    if plan.steps().is_empty() {
        return Ok(Changed::default());
    }
    let mut window = editor.window();
    let mut waiting = Some(checked(editor, &mut window, plan)?);
    // SAFETY: as in `in_use`; and `Editor::park` promises what `Parked::new` asks for.
    let result = editor.park(|window, cpu| waiting.take().map(|plan| unsafe { plan.apply(window, cpu) }));
    match result {
        Ok((applied, pause)) => {
            let counts = applied.map(|applied| {
                editor.applied_parked(applied.steps());
                applied.free(&mut window, &mut editor.frames())
            });
            let counts = counts.unwrap_or_default();
            let (entries, invalidations, freed) = (counts.entries, counts.invalidations, counts.freed);
            Ok(Changed { entries, invalidations, freed, parked: 1, paused: pause.ticks })
        }
        Err(error) => {
            if let Some(plan) = waiting {
                plan.abandon(&mut window, &mut editor.frames());
            }
            Err(error.into())
        }
    }
}
