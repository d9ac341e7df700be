//! What the edits of a page cost, in ticks of the virtual counter. Under QEMU's `-icount` a CPU of
//! type `max` counts one tick an instruction (`cargo xtask example user-space --icount`).

use linmap_live::{EditCounts, SpaceError};
use linmap_vmsa::{Va, VaRange};

use crate::frames::Frames;
use crate::machine::{counter, say};
use crate::process::{Cpu, DATA, PAGE, Process, READ_ONLY, READ_WRITE};

/// Protects, remaps and unmaps a page of a process and prints what each took. No other CPU runs.
pub fn measure(cpu: &mut Cpu) -> Result<(), SpaceError> {
    let process = Process::new()?;
    let page = VaRange::new(Va(DATA.0 + PAGE), PAGE);
    let (old, own) = (process.frame(page.start), Frames::take()?);
    let [protect, remap, unmap] = process.edit(cpu, |space, tools| {
        // SAFETY: nothing is allowed that was not.
        let protect = ticks(|| unsafe { space.protect(page, READ_ONLY, tools) })?;
        // SAFETY: the frame is the process's own.
        let remap = ticks(|| unsafe { space.remap(page, own, READ_WRITE, tools) })?;
        let unmap = ticks(|| space.unmap(page, tools))?;
        Ok([protect, remap, unmap])
    })?;
    old.into_iter().chain([own]).for_each(Frames::release);
    process.end(cpu)?;
    say(format_args!("ticks for a page: protect={protect} remap={remap} unmap={unmap}"));
    Ok(())
}

fn ticks(edit: impl FnOnce() -> Result<EditCounts, SpaceError>) -> Result<u64, SpaceError> {
    let before = counter();
    edit()?;
    Ok(counter() - before)
}
