//! What a change needs of the kernel: how it reaches tables, where frames come from, which memory
//! there is, and how all CPUs leave the map.

use linmap_live::Step;
use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, PhysicalMemory, TableWindow};
use thiserror::Error;

/// A CPU did not leave the live root in time, or it is unknown whether it has left. All other CPUs
/// are back in the live root, and nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("CPU {cpu} did not park within {ticks} ticks, so nothing was changed")]
pub struct ParkError {
    /// The CPU's number.
    pub cpu: usize,
    /// How long the editor waited for the CPU, in ticks of the virtual counter. 0 if it was unknown
    /// beforehand whether the CPU had left.
    pub ticks: u64,
}

/// How long all CPUs were parked.
///
/// ```
/// use linmap::{Editor, ParkError, Pause};
///
/// /// Measures the shortest pause: CPUs park and return, and nothing is edited.
/// fn shortest_pause(editor: &mut impl Editor) -> Result<u64, ParkError> {
///     let ((), Pause { ticks }) = editor.park(|_window, _cpu| ())?;
///     Ok(ticks)
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// From the request to the CPUs to their release, in ticks of the virtual counter.
    pub ticks: u64,
}

/// The kernel that carries out a change.
///
/// # Safety
/// - [`window`](Self::window) must reach every table of the live tree and every frame of
///   [`frames`](Self::frames), which must be the same source each time, the one that the tree's
///   tables come from.
/// - [`memory`](Self::memory) must be the record by which frames are allocated: none comes from
///   memory that it does not have, or that is reserved there.
/// - [`park`](Self::park) must run its argument only while no CPU has the live root in a TTBR, and
///   only after each CPU, since it left the root, has invalidated all its TLB entries (TLBI
///   VMALLE1, DSB NSH, ISB). The window that it passes must reach the same tables.
pub unsafe trait Editor {
    /// How tables are reached while the map is in use.
    type Window: TableWindow;
    /// How tables are reached while all CPUs are parked.
    type ParkedWindow: TableWindow;
    /// The CPU that runs the change.
    type Cpu: Cpu;

    /// Returns a window to the tables while the map is in use.
    fn window(&mut self) -> Self::Window;

    /// Returns the CPU that this runs on.
    fn cpu(&mut self) -> &mut Self::Cpu;

    /// Returns the source of table frames.
    fn frames(&mut self) -> impl FrameSource;

    /// Returns the record of physical memory.
    fn memory(&mut self) -> impl PhysicalMemory;

    /// Receives the steps of a checked plan right before it is applied while the map is in use. For
    /// traces.
    #[inline]
    fn planned(&mut self, steps: &[Step]) {
        let _ = steps;
    }

    /// Receives the steps of a plan that was applied while all CPUs were parked. For traces.
    ///
    /// The call comes when all CPUs are back, before the frames of removed tables are freed. It
    /// can't come earlier: before the CPUs park, it is unknown whether all will; while they are
    /// parked, one of them may hold the lock of the console.
    #[inline]
    fn applied_parked(&mut self, steps: &[Step]) {
        let _ = steps;
    }

    /// Runs `edit` while no CPU uses the live root.
    ///
    /// # Errors
    /// [`ParkError`] when a CPU does not leave in time. `edit` was not run.
    fn park<R>(
        &mut self,
        edit: impl FnOnce(&mut Self::ParkedWindow, &mut Self::Cpu) -> R,
    ) -> Result<(R, Pause), ParkError>;
}
