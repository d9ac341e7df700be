//! The windows of the surgery root: how the editor reaches tables while it walks no linear map.

use core::array::from_fn;
use core::ptr::NonNull;

use linmap_table::TableWindow;
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_vmsa::{Attributes, Descriptor, Geometry, Level, Pa, Va};

/// Levels −1 to 3.
pub(crate) const LEVELS: usize = 5;

/// Table frames reached through pages of the surgery root, one for each level.
///
/// A window stays on its frame until another frame is opened at its level. Only the CPU that edits
/// walks the surgery root, so that no invalidation is broadcast.
///
/// ```
/// use linmap_park::{SurgeryRoot, SurgeryWindow};
/// use linmap_table::cpu::Cpu;
/// use linmap_table::read;
/// use linmap_vmsa::{Descriptor, Level, Pa};
///
/// /// Reads an entry of a table of pages of the live tree.
/// ///
/// /// # Safety
/// /// This CPU is on the surgery root, and `table` is a table of the live tree.
/// unsafe fn page<C: Cpu>(surgery: &mut SurgeryRoot<C>, table: Pa, index: usize) -> Descriptor {
///     let window: &mut SurgeryWindow<C> = &mut surgery.window;
///     // SAFETY: the caller's. The window reaches every frame.
///     let entry = unsafe { read(window, Level::L3, table, index) };
///     window.close_all();
///     entry
/// }
/// ```
#[derive(Debug)]
pub struct SurgeryWindow<C> {
    geometry: Geometry,
    cpu: C,
    /// The entries of the pages: that of level 3 first.
    entries: NonNull<u64>,
    /// The pages.
    pages: [Va; LEVELS],
    /// The entry of any of them for physical address 0.
    page: Descriptor,
    open: [Option<Pa>; LEVELS],
}

// SAFETY: the entries belong to the window alone, wherever it is used.
unsafe impl<C: Send> Send for SurgeryWindow<C> {}

impl<C: Cpu> SurgeryWindow<C> {
    /// Returns the windows at the pages from `base` on, all closed.
    ///
    /// # Safety
    /// `entries` are the [`LEVELS`] consecutive entries for the pages from `base` in a table of
    /// pages of the surgery root. They are invalid, writable while that root is in use, and nothing
    /// else accesses them or uses the pages.
    pub(crate) unsafe fn new(geometry: Geometry, cpu: C, entries: NonNull<u64>, base: Va) -> Self {
        let page_len = geometry.page_bytes();
        let pages = from_fn(|above| Va(base.0 + above as u64 * page_len));
        let page = Descriptor::page(geometry, Pa(0), Attributes::KERNEL_DATA);
        Self { geometry, cpu, entries, pages, page, open: [None; LEVELS] }
    }

    fn set(&mut self, above: usize, descriptor: Descriptor) {
        // SAFETY: `new`'s contract: there is an entry for each level, which nothing else changes.
        unsafe { self.cpu.store(self.entries.add(above), descriptor) };
    }

    /// Maps the frame `table` in the window `above` pages.
    #[inline(never)]
    fn map(&mut self, above: usize, table: Pa) {
        // Another output address: break-before-make (Arm ARM D8.16.1, RWHZWS), on this CPU alone.
        if self.open[above].take().is_some() {
            self.set(above, Descriptor::INVALID);
            self.cpu.dsb(Dsb::Nsh);
            self.cpu.tlbi(Tlbi::AllLocal);
            self.cpu.dsb(Dsb::Nsh);
            self.cpu.isb();
        }
        self.set(above, self.page.at(self.geometry, table));
        self.cpu.dsb(Dsb::Nsh);
        self.cpu.isb();
        self.open[above] = Some(table);
    }

    /// Unmaps all frames, which may be freed once all CPUs are back.
    ///
    /// To be called at the end of each edit: the CPU leaves the surgery root next and invalidates
    /// all it holds of it.
    pub fn close_all(&mut self) {
        for above in 0..LEVELS {
            if self.open[above].is_some() {
                self.open[above] = None;
                self.set(above, Descriptor::INVALID);
            }
        }
        self.cpu.dsb(Dsb::Nsh);
    }
}

// SAFETY: a window maps its frame readable and writable until another one is opened at its level or
// all are closed. The addresses mean this on the surgery root alone, which is where
// `SurgeryRoot::window` allows its use.
unsafe impl<C: Cpu> TableWindow for SurgeryWindow<C> {
    #[inline]
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        let above = level.above_pages() as usize;
        if self.open[above] != Some(table) {
            self.map(above, table);
        }
        // SAFETY: the page was mapped just now or before, on the surgery root, where the CPU is.
        unsafe { self.cpu.reach(self.pages[above]) }
    }

    #[inline]
    fn close(&mut self, _level: Level) {}
}
