//! linmap's [`Editor`] for kernels that park by a [`Rendezvous`].

use linmap::{Editor, ImageParts, Layout, LinearMap, MapWindow, ParkError, Pause};
use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, PhysicalMemory};

use crate::cpus::Cpus;
use crate::rendezvous::Rendezvous;
use crate::root_switch::RootSwitch;
use crate::surgery_root::SurgeryRoot;
use crate::surgery_window::SurgeryWindow;

/// The [`Editor`] of a kernel that reaches its tables through the linear map and the image, has one
/// allocator that is also its record of memory, and parks its CPUs by a [`Rendezvous`] while it
/// edits from a [`SurgeryRoot`].
///
/// ```
/// use linmap::{Editor, LinearMap};
/// use linmap_park::{Cpus, ParkingEditor, Rendezvous, RootSwitch, SurgeryRoot};
/// use linmap_table::cpu::Cpu;
/// use linmap_table::{FrameSource, PhysicalMemory};
///
/// /// # Safety
/// /// As [`ParkingEditor::new`].
/// unsafe fn editor<C: Cpu, A: FrameSource + PhysicalMemory, P: Cpus, S: RootSwitch, const CPUS: usize>(
///     map: &LinearMap,
///     (cpu, pages, cpus): (C, A, P),
///     rendezvous: &Rendezvous<S, CPUS>,
///     surgery: SurgeryRoot<C>,
/// ) -> impl Editor {
///     // SAFETY: the caller's.
///     unsafe { ParkingEditor::new(map, cpu, pages, cpus, rendezvous, surgery) }
/// }
/// ```
#[derive(Debug)]
pub struct ParkingEditor<'e, C, A, P, S, const CPUS: usize> {
    layout: Layout,
    image: ImageParts,
    cpu: C,
    pages: A,
    cpus: P,
    rendezvous: &'e Rendezvous<S, CPUS>,
    surgery: SurgeryRoot<C>,
}

impl<'e, C, A, P, S, const CPUS: usize> ParkingEditor<'e, C, A, P, S, CPUS> {
    /// Returns the editor of `map`, as the CPU `cpu`.
    ///
    /// # Safety
    /// For as long as the editor exists:
    /// - `map` is in use. It or the image's own mapping has all tables of the live tree and all
    ///   frames of `pages`, readable and writable. The tables of the linear region come from
    ///   `pages`, but for the root.
    /// - `cpus` names all CPUs that may run on the live root, except the one that edits.
    /// - The editor is used with interrupts masked, on one CPU, whose code, stack and vectors
    ///   `surgery` maps, and the editor itself.
    pub unsafe fn new(
        map: &LinearMap,
        cpu: C,
        pages: A,
        cpus: P,
        rendezvous: &'e Rendezvous<S, CPUS>,
        surgery: SurgeryRoot<C>,
    ) -> Self {
        Self { layout: map.layout(), image: map.image(), cpu, pages, cpus, rendezvous, surgery }
    }

    /// Returns the allocator.
    pub const fn pages(&mut self) -> &mut A {
        &mut self.pages
    }
}

// SAFETY: by the promise of `new`'s caller, the map has the tables and the frames, and `cpus` names
// every CPU on the live root, which the rendezvous keeps off it during an edit; a CPU that has left
// invalidated what it held (`RootSwitch`). The surgery root's window reaches any frame while the
// CPU is on that root.
unsafe impl<C, A, P, S, const CPUS: usize> Editor for ParkingEditor<'_, C, A, P, S, CPUS>
where
    C: Cpu,
    A: FrameSource + PhysicalMemory,
    P: Cpus,
    S: RootSwitch,
{
    type Window = MapWindow<C::Frames>;
    type ParkedWindow = SurgeryWindow<C>;
    type Cpu = C;

    fn window(&mut self) -> MapWindow<C::Frames> {
        // SAFETY: the promise of `new`'s caller.
        unsafe { MapWindow::new(self.layout, self.image, &mut self.cpu) }
    }

    fn cpu(&mut self) -> &mut C {
        &mut self.cpu
    }

    fn frames(&mut self) -> impl FrameSource {
        &mut self.pages
    }

    fn memory(&mut self) -> impl PhysicalMemory {
        &mut self.pages
    }

    fn park<R>(
        &mut self,
        edit: impl FnOnce(&mut SurgeryWindow<C>, &mut C) -> R,
    ) -> Result<(R, Pause), ParkError> {
        let Self { cpu, cpus, rendezvous, surgery: SurgeryRoot { ttbr1, window, .. }, .. } = self;
        let edit = || {
            let result = edit(window, cpu);
            window.close_all();
            result
        };
        // SAFETY: the promise of `new`'s caller.
        unsafe { rendezvous.edit_parked(cpus, *ttbr1, edit) }
    }
}
