//! Detached trees: tables that are in no TTBR, so only their builder reaches them.
//!
//! A table is written once, entry by entry in ascending order. A table descriptor is written after
//! the table that it leads to. Nothing is zeroed first and nothing is read back. No barrier or
//! invalidation is needed until one store or one TTBR write publishes the whole tree.

use core::ops::Range;

use linmap_vmsa::registers::{RegisterError, Registers};
use linmap_vmsa::{Descriptor, Geometry, Level, Pa, Stage2Registers, Va, VmidSize};
use thiserror::Error;

use crate::build::{Built, write_root};
use crate::cpu::{Cpu, Dsb};
use crate::frames::{FrameSource, OutOfFrames};
use crate::mapping::Mappings;
use crate::reachable_frames::ReachableFrames;
use crate::release::release_below;
use crate::walk::read;
use crate::window::TableWindow;

/// A complete tree that no walker can reach.
///
/// Dropping one leaks its frames: publish it or [`release`](Self::release) it.
#[must_use = "a tree that is neither published nor released leaks its frames"]
#[derive(Debug)]
pub struct DetachedTree {
    geometry: Geometry,
    root: Pa,
    base: Va,
    /// The root's entries from the first to the last that translate something, counted through all
    /// tables of the root.
    used: Range<usize>,
    built: Built,
}

/// An entry in which a tree was to be published is in use.
///
/// ```
/// use linmap_table::cpu::Cpu;
/// use linmap_table::{Built, DetachedTree, EntryInUse, FrameSource, ReachableFrames, TableWindow};
/// use linmap_vmsa::Pa;
///
/// /// Publishes a tree below the root in use, or frees it.
/// ///
/// /// # Safety
/// /// As [`DetachedTree::publish`].
/// unsafe fn publish<W: TableWindow, F: FrameSource>(
///     tree: DetachedTree,
///     root: Pa,
///     memory: &mut ReachableFrames<'_, W, F>,
///     cpu: &mut impl Cpu,
/// ) -> Result<Built, EntryInUse> {
///     // SAFETY: the caller's.
///     match unsafe { tree.publish(root, memory, cpu) } {
///         Ok(built) => Ok(built),
///         Err((tree, in_use)) => {
///             tree.release(memory);
///             Err(in_use)
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("entry {index} of the live table at {table}, for {va}, is in use: {found:?}")]
pub struct EntryInUse {
    /// First address that the entry translates.
    pub va: Va,
    /// The live table.
    pub table: Pa,
    /// The entry's index.
    pub index: usize,
    /// Its content.
    pub found: Descriptor,
}

impl DetachedTree {
    /// Builds the tree that translates `mappings` and nothing else, in the half of the address
    /// space in which they lie. No mapping gives an empty root.
    ///
    /// # Errors
    /// [`OutOfFrames`]. All frames allocated are freed then.
    pub fn build<W: TableWindow, F: FrameSource>(
        mappings: &Mappings<'_>,
        memory: &mut ReachableFrames<'_, W, F>,
    ) -> Result<Self, OutOfFrames> {
        let (geometry, base) = (mappings.geometry(), mappings.base());
        let written = write_root(&mut mappings.cursor(), base, memory)?;
        Ok(Self { geometry, root: written.table, base, used: written.used, built: written.built })
    }

    /// Returns the root table's frame, the first of [several](Geometry::root_tables).
    pub fn root(&self) -> Pa {
        self.root
    }

    /// The tree's geometry.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How much the tree holds.
    pub fn built(&self) -> Built {
        self.built
    }

    /// Returns what the registers of the regime hold while the tree is in use, in the half in which
    /// it lies, and nothing walks the other half.
    ///
    /// # Errors
    /// [`RegisterError`] for a tree in an upper half that the regime lacks, and for one of stage 2.
    pub fn registers(&self) -> Result<Registers, RegisterError> {
        if self.base.0 == 0 {
            Registers::of_lower_half(self.geometry, self.root)
        } else {
            Registers::of_upper_half(self.geometry, self.root)
        }
    }

    /// Returns the values of the stage 2 registers for the tree, with the VMID `vmid`.
    ///
    /// # Errors
    /// [`RegisterError`] for a tree of stage 1, and for a VMID that does not fit `vmid_size`.
    pub fn stage_2_registers(
        &self,
        vmid: u16,
        vmid_size: VmidSize,
    ) -> Result<Stage2Registers, RegisterError> {
        Stage2Registers::new(self.geometry, self.root, vmid, vmid_size)
    }

    /// The level of the root table.
    fn level(&self) -> Level {
        self.geometry.start_level()
    }

    /// Publishes the tree as a part of a live one: copies the root's entries to the live root table
    /// `live`, which translates the same half of the VA space, and frees the detached root.
    ///
    /// Invalid entries become valid, which needs no invalidation (Arm ARM D8.16.1, RWHZWS). A DSB
    /// ISHST stands between the tree's own stores and those of the links, a DSB ISHST and an ISB
    /// before the first access through them.
    ///
    /// # Errors
    /// [`EntryInUse`] and the tree, when one of the live entries is valid. Nothing is published
    /// then.
    ///
    /// # Safety
    /// `live` is the root table of a live tree of the same geometry and the same half, which the
    /// window of `memory` reaches, and nothing else changes it during the call. `memory` has the
    /// source of the tree's frames. What the tree maps is memory that may be accessed as its
    /// attributes say.
    pub unsafe fn publish<W: TableWindow, F: FrameSource, C: Cpu>(
        self,
        live: Pa,
        memory: &mut ReachableFrames<'_, W, F>,
        cpu: &mut C,
    ) -> Result<Built, (Self, EntryInUse)> {
        let ReachableFrames { window, frames } = memory;
        let (level, geometry) = (self.level(), self.geometry);
        let va = |entry: usize| Va(self.base.0 + ((entry as u64) << geometry.shift(level)));
        for entry in self.used.clone() {
            let va = va(entry);
            let (table, index) = (geometry.root_table(live, va), geometry.index(va, level));
            // SAFETY: the caller's; `used` are entries of a root.
            let found = unsafe { read(*window, level, table, index) };
            if found.is_valid() {
                return Err((self, EntryInUse { va, table, index, found }));
            }
        }
        cpu.dsb(Dsb::Ishst);
        for entry in self.used.clone() {
            let va = va(entry);
            let index = geometry.index(va, level);
            // SAFETY: the window reaches both roots, `open` gives a whole table, and `used` are
            // entries of both; the caller promises what the tree maps.
            unsafe {
                let link = read(*window, level, geometry.root_table(self.root, va), index);
                cpu.store(window.open(level, geometry.root_table(live, va)).add(index), link);
            }
            window.close(level);
        }
        cpu.dsb(Dsb::Ishst);
        cpu.isb();
        // SAFETY: the builder allocated the root from this source, and no walker has ever read it.
        unsafe { self.free_root(*frames) };
        Ok(Built { tables: self.built.tables - geometry.root_tables() as u64, ..self.built })
    }

    /// Frees the tables of the root.
    ///
    /// # Safety
    /// No walker can reach them, and `frames` is their source.
    #[inline(always)]
    unsafe fn free_root(&self, frames: &mut impl FrameSource) {
        if self.geometry.regime().is_stage_2() {
            for table in self.root_frames().skip(1).rev() {
                // SAFETY: the caller's.
                unsafe { frames.free(table) };
            }
        }
        // SAFETY: the caller's.
        unsafe { frames.free(self.root) };
    }

    /// The frames of the root's tables.
    fn root_frames(&self) -> impl DoubleEndedIterator<Item = Pa> + ExactSizeIterator + use<> {
        let (root, bytes) = (self.root, self.geometry.page_bytes());
        (0..self.geometry.root_tables()).map(move |nth| Pa(root.0 + nth as u64 * bytes))
    }

    /// Frees every table of the tree, depth first.
    pub fn release<W: TableWindow, F: FrameSource>(self, memory: &mut ReachableFrames<'_, W, F>) {
        let level = self.level();
        let ReachableFrames { window, frames } = memory;
        // SAFETY: the tree owns its tables, whose frames the builder allocated, and no walker can
        // reach them. By the promise of `ReachableFrames::new` the window reaches them and the
        // source is theirs.
        unsafe {
            release_below(self.geometry, self.root, level, *window, *frames);
            if self.geometry.regime().is_stage_2() {
                for table in self.root_frames().skip(1) {
                    release_below(self.geometry, table, level, *window, *frames);
                }
            }
            self.free_root(*frames);
        }
    }
}
