//! Memory that appears and disappears while the machine runs.

use linmap_live::{Global, Step};
use linmap_memblock::RegionError;
use linmap_table::{Mapping, MappingError, Mappings};
use linmap_vmsa::{Attributes, PaRange};
use thiserror::Error;

use super::{ChangeError, Changed, Editor, LinearMap, Request};

/// Why memory was neither added nor removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MemoryError {
    /// Memory is there already.
    #[error("{range} overlaps memory that is there already, {memory}")]
    Present {
        /// The range asked for.
        range: PaRange,
        /// The first memory that it overlaps.
        memory: PaRange,
    },
    /// Somebody uses the memory.
    #[error("{range} can't be added or removed: {reserved} is in use")]
    InUse {
        /// The range asked for.
        range: PaRange,
        /// The first range that is reserved.
        reserved: PaRange,
    },
    /// Memblock can't say it.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// It can't be mapped as it is.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The map can't change.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl LinearMap {
    /// Maps `range`, memory that was not there before, and tells memblock. Leaves beside it are folded with it where that
    /// needs no parking.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn add_memory<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, MemoryError> {
        let target = self.linear(range)?;
        if let Some(memory) = editor.memblock().regions().find(|region| region.range.overlaps(range)) {
            return Err(MemoryError::Present { range, memory: memory.range });
        }
        // A reservation that was made before there is memory would be lost below.
        if let Some(reserved) = editor.memblock().reserved().iter().find(|reserved| reserved.overlaps(range))
        {
            return Err(MemoryError::InUse { range, reserved: *reserved });
        }
        let list = [Mapping {
            va: target.start,
            pa: range.start,
            len: range.len(),
            attributes: Attributes { global: self.global == Global::Global, ..Attributes::KERNEL_DATA },
            leaves: self.leaves,
        }];
        let mappings = Mappings::new(self.layout.geometry(), &list)?;
        // First, since it may have no room. Reserved, so that no table comes from memory that is not mapped yet.
        let memblock = editor.memblock();
        memblock.reserve(range)?;
        if let Err(error) = memblock.add(range) {
            let _ = memblock.free(range);
            return Err(error.into());
        }
        let no_map = memblock.regions().find(|region| region.no_map && region.range.overlaps(range));
        let result = match no_map {
            Some(region) => Err(ChangeError::NoMap { range, pa: region.range.start.max(range.start) }),
            None => self.run(editor, steps, target, Request::Map(&mappings)),
        };
        // What was done above can be undone: it takes no more room than there was before.
        let _ = editor.memblock().free(range);
        match result {
            Ok(changed) => Ok(changed.and(self.fold_around(editor, steps, range))),
            Err(error) => {
                let _ = editor.memblock().remove(range);
                Err(error.into())
            }
        }
    }

    /// Unmaps `range`, memory that nobody uses, and takes it from memblock. Leaves that reach beyond are split.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn remove_memory<const N: usize, E: Editor<N>>(
        &mut self,
        editor: &mut E,
        steps: &mut [Step],
        range: PaRange,
    ) -> Result<Changed, MemoryError> {
        self.linear(range)?;
        let memblock = editor.memblock();
        if let Some(reserved) = memblock.reserved().iter().find(|reserved| reserved.overlaps(range)) {
            return Err(MemoryError::InUse { range, reserved: *reserved });
        }
        self.all_mapped(memblock, range)?;
        // First, so that no table of the split comes from it; taken back if the map can't change.
        memblock.remove(range)?;
        match self.change(editor, steps, range, Request::Unmap) {
            Ok(changed) => Ok(changed),
            Err(error) => {
                let _ = editor.memblock().add(range);
                Err(error.into())
            }
        }
    }
}
