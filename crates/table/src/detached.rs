//! Detached trees: tables that are in no TTBR, so only their builder reaches them.
//!
//! A table is written once, entry by entry in ascending order. A table descriptor is written after
//! the table that it leads to. Nothing is zeroed first and nothing is read back. No barrier or
//! invalidation is needed until one store or one TTBR write publishes the whole tree.

use core::ops::Range;

use linmap_vmsa::registers::{RegisterError, Registers};
use linmap_vmsa::{Descriptor, Geometry, Level, Pa, Va};
use thiserror::Error;

use crate::build::{Built, write_table};
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
    /// The root's entries from the first to the last that translate something.
    used: Range<usize>,
    built: Built,
}

/// An entry in which a tree was to be published is in use.
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
        let written = write_table(&mut mappings.cursor(), geometry.start_level(), base, memory)?;
        Ok(Self { geometry, root: written.table, base, used: written.used, built: written.built })
    }

    /// The root table's frame.
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
    /// [`RegisterError`] for a tree in an upper half that the regime lacks.
    pub fn registers(&self) -> Result<Registers, RegisterError> {
        if self.base.0 == 0 {
            Registers::of_lower_half(self.geometry, self.root)
        } else {
            Registers::of_upper_half(self.geometry, self.root)
        }
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
        let level = self.level();
        for index in self.used.clone() {
            // SAFETY: the caller's; `used` are entries of a root table.
            let found = unsafe { read(*window, level, live, index) };
            if found.is_valid() {
                let va = Va(self.base.0 + ((index as u64) << self.geometry.shift(level)));
                return Err((self, EntryInUse { va, table: live, index, found }));
            }
        }
        cpu.dsb(Dsb::Ishst);
        for index in self.used {
            // SAFETY: the window reaches both tables, `open` gives a whole one, and `used` are
            // entries of both; the caller promises what the tree maps.
            unsafe {
                let link = read(*window, level, self.root, index);
                cpu.store(window.open(level, live).add(index), link);
            }
            window.close(level);
        }
        cpu.dsb(Dsb::Ishst);
        cpu.isb();
        // SAFETY: the builder allocated the root from this source, and no walker has ever read it.
        unsafe { frames.free(self.root) };
        Ok(Built { tables: self.built.tables - 1, ..self.built })
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
            frames.free(self.root);
        }
    }
}
