//! Subtrees that no walker can reach, to be linked by one store.

use linmap_vmsa::{Geometry, Level, Pa, Va};
use thiserror::Error;

use crate::build::{Built, write_table};
use crate::frames::{FrameSource, OutOfFrames};
use crate::mapping::{Cursor, Mappings};
use crate::reachable_frames::ReachableFrames;
use crate::release::release_below;
use crate::window::TableWindow;

/// A table below a root, and everything below it, that no walker can reach.
///
/// Dropping one leaks its frames: link it or [`release`](Self::release) it.
///
/// ```
/// use linmap_table::{Leaves, Mapping, Mappings, OffsetWindow, ReachableFrames, Subtree};
/// # use linmap_table::{FrameSource, OutOfFrames};
/// use linmap_vmsa::{Attributes, Geometry, Level, Pa, Va};
/// # #[repr(align(4096))]
/// # struct Frame([u64; 512]);
/// # struct HostFrames;
/// # // SAFETY: every call allocates a frame of its own, which is aligned and not at address 0.
/// # unsafe impl FrameSource for HostFrames {
/// #     fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
/// #         Ok(Pa(Box::leak(Box::new(Frame([0; 512]))).0.as_mut_ptr().expose_provenance() as u64))
/// #     }
/// #     unsafe fn free(&mut self, _frame: Pa) {}
/// # }
///
/// let geometry = Geometry::K4_48;
/// let page = Mapping {
///     va: Va(0x20_0000),
///     pa: Pa(0x4020_0000),
///     len: 0x1000,
///     attributes: Attributes::KERNEL_DATA,
///     leaves: Leaves::Pages,
/// };
/// let list = [page];
/// let mut frames = HostFrames;
/// // SAFETY: each frame is mapped at its own address.
/// let mut window = unsafe { OffsetWindow::new(0) };
/// // SAFETY: as above.
/// let mut memory = unsafe { ReachableFrames::new(&mut window, &mut frames) };
///
/// // The lowest table that has the page. An entry for its base at level 2 has to lead to it.
/// let subtree = Subtree::lowest(&Mappings::new(geometry, &list)?, &mut memory)?;
/// assert_eq!((subtree.level(), subtree.base()), (Level::L3, Va(0x20_0000)));
/// subtree.release(&mut memory);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a subtree that is neither linked nor released leaks its frames"]
#[derive(Debug)]
pub struct Subtree {
    geometry: Geometry,
    table: Pa,
    level: Level,
    base: Va,
    built: Built,
}

/// Why there is no subtree.
///
/// ```
/// use linmap_table::{FrameSource, Mappings, ReachableFrames, Subtree, SubtreeError, TableWindow};
///
/// /// Builds the lowest table for `mappings`; `None` if only a root translates all of them.
/// fn below_the_root<W: TableWindow, F: FrameSource>(
///     mappings: &Mappings<'_>,
///     memory: &mut ReachableFrames<'_, W, F>,
/// ) -> Result<Option<Subtree>, SubtreeError> {
///     match Subtree::lowest(mappings, memory) {
///         Err(SubtreeError::TooFarApart { .. }) => Ok(None),
///         result => result.map(Some),
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SubtreeError {
    /// No frame is left for a table.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
    /// Nothing is to be mapped.
    #[error("there is no mapping to build a table for")]
    NoMappings,
    /// The mappings need a root table: no table below the root translates all of them.
    #[error("no table below the root translates both {first} and {last}")]
    TooFarApart {
        /// The first address of the mappings.
        first: Va,
        /// The last one.
        last: Va,
    },
    /// No entry at this level leads to a table.
    #[error("no entry at level {level} leads to a table where walks begin at level {start}")]
    NoTableBelow {
        /// The level asked for.
        level: Level,
        /// The level of the root.
        start: Level,
    },
}

impl Subtree {
    /// Builds the lowest table that translates all of `mappings`, and everything below it.
    ///
    /// # Errors
    /// [`SubtreeError`]. All frames allocated are freed then.
    pub fn lowest<W: TableWindow, F: FrameSource>(
        mappings: &Mappings<'_>,
        memory: &mut ReachableFrames<'_, W, F>,
    ) -> Result<Self, SubtreeError> {
        let geometry = mappings.geometry();
        let (Some(first), Some(last)) = (mappings.list().first(), mappings.list().last()) else {
            return Err(SubtreeError::NoMappings);
        };
        let (first, last) = (first.va, Va(last.va.0 + (last.len - 1)));
        let mut above = Level::L3;
        loop {
            // An entry at this level leads to the table that is asked for.
            let number = above.number() - 1;
            let Some(next) = Level::new(number).filter(|level| *level >= geometry.start_level()) else {
                return Err(SubtreeError::TooFarApart { first, last });
            };
            above = next;
            if (first.0 ^ last.0) >> geometry.shift(above) == 0 {
                return Self::below(&mut mappings.cursor(), above, memory);
            }
        }
    }

    /// Builds what an entry at level `above` for the address at the cursor has to lead to: a table
    /// with all mappings from the cursor on that the entry translates. The cursor ends at the first
    /// byte beyond.
    ///
    /// # Errors
    /// [`SubtreeError`]. All frames allocated are freed then.
    pub fn below<W: TableWindow, F: FrameSource>(
        mappings: &mut Cursor<'_>,
        above: Level,
        memory: &mut ReachableFrames<'_, W, F>,
    ) -> Result<Self, SubtreeError> {
        let geometry = mappings.geometry();
        let Some(mapping) = mappings.peek() else { return Err(SubtreeError::NoMappings) };
        let start = geometry.start_level();
        let Some(level) = above.next().filter(|_| above >= start) else {
            return Err(SubtreeError::NoTableBelow { level: above, start });
        };
        let base = Va(mapping.va.0 & !(geometry.entry_bytes(above) - 1));
        let written = write_table(mappings, level, base, memory)?;
        Ok(Self { geometry, table: written.table, level, base, built: written.built })
    }

    /// The frame of its table.
    pub fn table(&self) -> Pa {
        self.table
    }

    /// First address that its table translates.
    pub fn base(&self) -> Va {
        self.base
    }

    /// The level of its table.
    pub fn level(&self) -> Level {
        self.level
    }

    /// How much it holds.
    pub fn built(&self) -> Built {
        self.built
    }

    /// Frees every table, depth first.
    pub fn release<W: TableWindow, F: FrameSource>(self, memory: &mut ReachableFrames<'_, W, F>) {
        let ReachableFrames { window, frames } = memory;
        // SAFETY: the builder allocated the frames, and nothing leads to the table. By the promise
        // of `ReachableFrames::new` the window reaches them and the source is theirs.
        unsafe {
            release_below(self.geometry, self.table, self.level, *window, *frames);
            frames.free(self.table);
        }
    }
}
