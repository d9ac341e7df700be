//! Who carries out a change: the CPU that runs it, how it reaches tables, and how all CPUs get out of the way.

use linmap_live::Step;
use linmap_memblock::Memblock;
use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, TableWindow};
use thiserror::Error;

/// A CPU did not leave the live root in time, or nobody knows whether it has. All that had are back, and the plan was abandoned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("CPU {cpu} did not park within {ticks} ticks, so the map stays as it is")]
pub struct ParkError {
    /// The CPU's number.
    pub cpu: usize,
    /// How long it was waited for, in ticks of the virtual counter. 0 for one that was given up before and may be anywhere.
    pub ticks: u64,
}

/// How long the machine stood still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// From the call to the CPUs until they were told to return, in ticks of the virtual counter.
    pub ticks: u64,
}

/// The kernel around a change.
///
/// # Safety
/// - [`window`](Self::window) must reach every table of the live tree and every frame of [`frames`](Self::frames).
/// - [`park`](Self::park) must run its argument only while no CPU has the live root in a TTBR, after every CPU has
///   invalidated all it held (TLBI VMALLE1, DSB NSH, ISB) since it left; the window it gives must reach the same tables.
pub unsafe trait Editor<const N: usize> {
    /// Tables, reached while the map is in use.
    type Window: TableWindow;
    /// Tables, reached while all CPUs are parked.
    type ParkedWindow: TableWindow;
    /// The CPU that runs the change.
    type Cpu: Cpu;
    /// Where frames come from.
    type Frames<'e>: FrameSource
    where
        Self: 'e;

    /// Reaches tables while the map is in use.
    fn window(&mut self) -> Self::Window;

    /// The CPU that this runs on.
    fn cpu(&mut self) -> &mut Self::Cpu;

    /// The source of table frames.
    fn frames(&mut self) -> Self::Frames<'_>;

    /// Which memory there is.
    fn memblock(&mut self) -> &mut Memblock<N>;

    /// Is told the steps of a checked plan that is about to be applied while the map is in use.
    fn planned(&mut self, steps: &[Step]);

    /// Is told the steps of a plan that was applied while all CPUs were parked: when they are back, and before any frame of a
    /// table that it removed goes back. Not before, since a CPU may fail to park; and not while they are parked, since one of
    /// them may have been about to print.
    fn applied_parked(&mut self, steps: &[Step]);

    /// Runs `edit` while every CPU is away from the live root.
    ///
    /// # Errors
    /// [`ParkError`] when a CPU does not leave in time: `edit` was not run then.
    fn park<R>(
        &mut self,
        edit: impl FnOnce(&mut Self::ParkedWindow, &mut Self::Cpu) -> R,
    ) -> Result<(R, Pause), ParkError>;
}
