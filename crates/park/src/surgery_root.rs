//! The surgery root: what the editor runs on while no CPU may walk the live tables.

use linmap_table::cpu::{Cpu, Dsb};
use linmap_table::{FrameSource, OutOfFrames, TableWindow, read};
use linmap_vmsa::registers::{RegisterError, ttbr};
use linmap_vmsa::{Decoded, Descriptor, Geometry, Level, Pa, Va, VaRange};
use thiserror::Error;

use crate::surgery_window::{LEVELS, SurgeryWindow};

/// What a surgery root maps, at addresses of the kernel's half.
#[derive(Clone, Copy, Debug)]
pub struct SurgeryLayout<'l> {
    /// The geometry of the live tree.
    pub geometry: Geometry,
    /// What the editor needs while it edits: its code, its data, its stack, and the console for a
    /// panic. They are mapped as in the live tree. Each range holds whole leaves and whole
    /// contiguous runs of the live tree, and nothing of the linear map.
    pub mapped_as_live: &'l [VaRange],
    /// The first of five free pages in one table of pages: through them the editor reaches tables,
    /// one page a level.
    pub windows: Va,
}

/// Why no surgery root was built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SurgeryError {
    /// No frame is left for one of its tables.
    #[error(transparent)]
    Frames(#[from] OutOfFrames),
    /// The root can't be in TTBR1.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The windows need five pages of one table, outside all other ranges.
    #[error("{windows}: the surgery root needs five free pages there in one table of pages")]
    Windows {
        /// Where the windows should be.
        windows: Va,
    },
}

/// A root with the kernel's image and its stacks, without a linear map.
/// The editor keeps its addresses on this root, while no CPU walks the tables that it edits. It
/// reaches them through [`window`](Self::window).
#[derive(Debug)]
pub struct SurgeryRoot<C> {
    /// The root table.
    pub root: Pa,
    /// The TTBR1 value.
    pub ttbr1: u64,
    /// How tables are reached. Valid only while the CPU is on this root.
    pub window: SurgeryWindow<C>,
}

impl<C: Cpu> SurgeryRoot<C> {
    /// Builds the root beside the live tree with the root table `live`, in tables from `frames`:
    /// one for each table of the live tree on the way to what `layout` names.
    ///
    /// # Errors
    /// [`SurgeryError`]. Frames allocated before the error are not freed.
    ///
    /// # Safety
    /// - The tables of the live tree on the way to the ranges, and the frames of `frames`, are
    ///   mapped at their physical address plus `offset`, readable, and the frames writable. The
    ///   ranges of `layout` contain these addresses of the frames for as long as the root exists.
    /// - Nothing changes the live tables on the way to the ranges during this call or later.
    pub unsafe fn build(
        layout: &SurgeryLayout<'_>,
        live: Pa,
        offset: u64,
        frames: &mut impl FrameSource,
        mut cpu: C,
    ) -> Result<Self, SurgeryError> {
        let SurgeryLayout { geometry, windows, .. } = *layout;
        let outside = SurgeryError::Windows { windows };
        let pages = VaRange::new(windows, LEVELS as u64 * geometry.page_bytes());
        let first = geometry.index(windows, Level::L3);
        if !windows.0.is_multiple_of(geometry.page_bytes())
            || first + LEVELS > geometry.entries(Level::L3)
            || layout.mapped_as_live.iter().any(|range| overlap(*range, pages))
        {
            return Err(outside);
        }
        // SAFETY: the caller's.
        let window = unsafe { cpu.frames_at(offset) };
        let mut tables = Tables { geometry, window, frames, cpu: &mut cpu };
        let start = geometry.start_level();
        let root = tables.new_table(start)?;
        for range in layout.mapped_as_live {
            tables.copy(start, live, root, *range)?;
        }
        let (mut level, mut table) = (start, root);
        while let Some(next) = level.next() {
            table = tables.below(level, table, geometry.index(windows, level))?.ok_or(outside)?;
            level = next;
        }
        // SAFETY: the caller's: the window reaches the frames of the source.
        let table = unsafe { tables.window.open(level, table) };
        tables.window.close(level);
        let ttbr1 = ttbr(geometry, root, 0)?;
        // Orders the tables' stores before the walks that a later write of TTBR1 starts.
        cpu.dsb(Dsb::Ishst);
        // SAFETY: the entries are invalid: the table is new, and `mapped_as_live` has none of the
        // pages. The table stays mapped at this address, and belongs to this root alone.
        let window = unsafe { SurgeryWindow::new(geometry, cpu, table.add(first), windows) };
        Ok(Self { root, ttbr1, window })
    }
}

/// Returns whether two ranges have an address in common.
fn overlap(one: VaRange, other: VaRange) -> bool {
    match (one.last(), other.last()) {
        (Some(one_last), Some(other_last)) => one.start <= other_last && other.start <= one_last,
        _ => false,
    }
}

/// The tables of a surgery root in the making.
struct Tables<'t, W, F, C> {
    geometry: Geometry,
    window: W,
    frames: &'t mut F,
    cpu: &'t mut C,
}

impl<W: TableWindow, F: FrameSource, C: Cpu> Tables<'_, W, F, C> {
    /// Allocates an empty table for `level`.
    fn new_table(&mut self, level: Level) -> Result<Pa, OutOfFrames> {
        let table = self.frames.alloc()?;
        // SAFETY: the window reaches the frames of the source. A whole table that no other code
        // uses.
        unsafe {
            let entries = self.window.open(level, table);
            self.cpu.store_run(entries, self.geometry.entries(level), Descriptor::INVALID, 0);
        }
        self.window.close(level);
        Ok(table)
    }

    fn set(&mut self, level: Level, table: Pa, index: usize, descriptor: Descriptor) {
        // SAFETY: the window reaches the frames of the source. An index is below the number of
        // entries of the table, which no other code uses.
        unsafe {
            let entries = self.window.open(level, table);
            self.cpu.store(entries.add(index), descriptor);
        }
        self.window.close(level);
    }

    /// Returns the table below an entry, which is made if the entry is invalid. `None` if the entry
    /// is a leaf.
    fn below(&mut self, level: Level, table: Pa, index: usize) -> Result<Option<Pa>, OutOfFrames> {
        let Some(next) = level.next() else { return Ok(None) };
        // SAFETY: an index is below the number of entries of the table.
        let entry = unsafe { read(&mut self.window, level, table, index) };
        match entry.decode(self.geometry, level) {
            Decoded::Table(below) => Ok(Some(below)),
            Decoded::Leaf(_) => Ok(None),
            Decoded::Invalid => {
                let below = self.new_table(next)?;
                self.set(level, table, index, Descriptor::table(self.geometry, below));
                Ok(Some(below))
            }
        }
    }

    /// Maps in the table `own` at `level` what the live table `live` maps in `range`.
    fn copy(&mut self, level: Level, live: Pa, own: Pa, range: VaRange) -> Result<(), OutOfFrames> {
        let Some(last) = range.last() else { return Ok(()) };
        let mut at = range.start;
        loop {
            let index = self.geometry.index(at, level);
            let entry_last = Va(at.0 | (self.geometry.entry_bytes(level) - 1));
            let part_last = last.min(entry_last);
            // SAFETY: `Geometry::index` is below the number of entries at its level.
            let entry = unsafe { read(&mut self.window, level, live, index) };
            match (entry.decode(self.geometry, level), level.next()) {
                (Decoded::Table(live_below), Some(next)) => {
                    // Where the live tree has a table, `own` never has a leaf.
                    if let Some(own_below) = self.below(level, own, index)? {
                        let part = VaRange::new(at, part_last.0 - at.0 + 1);
                        self.copy(next, live_below, own_below, part)?;
                    }
                }
                (Decoded::Invalid, _) => {}
                _ => self.set(level, own, index, entry),
            }
            if part_last == last {
                return Ok(());
            }
            at = Va(part_last.0 + 1);
        }
    }
}
