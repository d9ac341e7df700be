//! Memory that is added and removed while the machine runs.

use arrayvec::ArrayVec;
use linmap_live::Step;
use linmap_table::{Leaves, Mapping, MappingError, Mappings, PhysicalMemory, RecordError};
use linmap_vmsa::{PaRange, Va};
use thiserror::Error;

use super::change_error::ChangeError;
use super::changed::Changed;
use super::editor::Editor;
use super::linear_map::LinearMap;
use super::mappable::check_mappable;
use super::request::Request;
use crate::page_ranges::MAX_PARTS;

/// Why memory was neither added nor removed.
///
/// ```
/// use linmap::{Changed, Editor, LinearMap, MemoryError};
/// use linmap_live::Step;
/// use linmap_vmsa::PaRange;
///
/// /// Takes a module out, unless it is in use.
/// ///
/// /// # Safety
/// /// Nothing accesses `module`.
/// unsafe fn take_out<E: Editor>(
///     map: &mut LinearMap,
///     editor: &mut E,
///     module: PaRange,
/// ) -> Result<Option<Changed>, MemoryError> {
///     // SAFETY: the caller's.
///     match unsafe { map.remove_memory(editor, &mut [Step::Isb; 64], module) } {
///         Err(MemoryError::InUse { .. }) => Ok(None),
///         removed => removed.map(Some),
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The range overlaps memory that is present.
    #[error("{range} overlaps {memory}, which is present")]
    Present {
        /// The range asked for.
        range: PaRange,
        /// The first memory that it overlaps.
        memory: PaRange,
    },
    /// The range overlaps memory that is in use.
    #[error("{range} can't be added or removed: {reserved} is in use")]
    InUse {
        /// The range asked for.
        range: PaRange,
        /// The first reserved range that it overlaps.
        reserved: PaRange,
    },
    /// The record of memory refused the change.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The range can't be mapped.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The map can't be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl LinearMap {
    /// Maps `range`, memory that was absent, and records it. Leaves that can join its neighbours'
    /// are folded, if that needs no parking.
    ///
    /// # Errors
    /// [`MemoryError`].
    ///
    /// # Safety
    /// There is memory at `range`, which may be accessed at any time, by speculation too.
    pub unsafe fn add_memory<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, MemoryError> {
        let target = self.region.linear(range)?;
        let attributes = self.attributes();
        let list: ArrayVec<_, MAX_PARTS> = self
            .pages
            .parts(range)
            .map(|(part, is_pages)| Mapping {
                va: Va(target.start.0 + (part.start.0 - range.start.0)),
                pa: part.start,
                len: part.len(),
                attributes,
                leaves: if is_pages { Leaves::Pages } else { self.leaves },
            })
            .collect();
        let mappings = Mappings::new(self.tree.geometry(), &list)?;
        record_added(&mut editor.memory(), range)?;
        let mappable = check_mappable(&editor.memory(), range);
        let result = mappable.and_then(|()| self.run(editor, steps, target, Request::Map(&mappings)));
        editor.memory().release(range);
        match result {
            Ok(changed) => Ok(changed.and(self.fold_around(editor, steps, range))),
            Err(error) => {
                // The undo of an `add` succeeds.
                let _ = editor.memory().remove(range);
                Err(error.into())
            }
        }
    }

    /// Unmaps `range`, memory that is not in use, and removes it from the record. Leaves that reach
    /// beyond are split.
    ///
    /// # Errors
    /// [`MemoryError`].
    ///
    /// # Safety
    /// Nothing accesses `range`.
    pub unsafe fn remove_memory<E: Editor>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, MemoryError> {
        self.region.linear(range)?;
        record_removed(&mut editor.memory(), range)?;
        match self.change(editor, steps, range, Request::Unmap) {
            Ok(changed) => Ok(changed),
            Err(error) => {
                // The undo of a `remove` succeeds.
                let _ = editor.memory().add(range);
                Err(error.into())
            }
        }
    }
}

/// Records that there is memory at `range`. It is reserved, so that no table comes from memory that
/// is not mapped yet.
fn record_added(memory: &mut impl PhysicalMemory, range: PaRange) -> Result<(), MemoryError> {
    if let Some(memory) = memory.overlapping_memory(range) {
        return Err(MemoryError::Present { range, memory });
    }
    // Refuse a range that was reserved before: the release after the change would free it.
    if let Some(reserved) = memory.overlapping_reserved(range) {
        return Err(MemoryError::InUse { range, reserved });
    }
    memory.reserve(range)?;
    if let Err(error) = memory.add(range) {
        memory.release(range);
        return Err(error.into());
    }
    Ok(())
}

/// Records that there is no memory at `range`, before it is unmapped, so that no table of a split
/// comes from it.
fn record_removed(memory: &mut impl PhysicalMemory, range: PaRange) -> Result<(), MemoryError> {
    if let Some(reserved) = memory.overlapping_reserved(range) {
        return Err(MemoryError::InUse { range, reserved });
    }
    check_mappable(memory, range)?;
    Ok(memory.remove(range)?)
}
