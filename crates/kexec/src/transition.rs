//! Transitional tables: what the relocation code runs under while it overwrites memory that the kernel's own tables may
//! lie in.

use linmap::{Layout, MappingList, TooManyRanges, identity_geometry};
use linmap_memblock::Memblock;
use linmap_table::{
    DetachedTree, FrameSource, Leaves, Mapping, MappingError, Mappings, OutOfFrames, TableWindow,
};
use linmap_vmsa::{Attributes, GeometryError, Pa, Va};
use thiserror::Error;

/// Two trees: all of memory at its linear addresses, writable, by the largest leaves there are; and one page of code at
/// VA = PA.
#[derive(Debug)]
pub struct Transition {
    /// For TTBR1.
    pub linear: DetachedTree,
    /// For TTBR0, with its own VA size.
    pub code: DetachedTree,
}

/// Why there are no transitional tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TransitionError {
    /// No frame is left.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
    /// Memory is in too many parts.
    #[error(transparent)]
    Ranges(#[from] TooManyRanges),
    /// Memory can't be mapped.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The code page lies where no 1:1 map reaches.
    #[error("no 1:1 map reaches the relocation code: {0}")]
    Identity(#[from] GeometryError),
}

impl Transition {
    /// Builds both trees in frames of `frames`, which must lie in no destination. `code` is the page of the relocation
    /// code; `list` is room to work in.
    ///
    /// # Errors
    /// [`TransitionError`]; every frame is back then.
    pub fn build<W: TableWindow, F: FrameSource, const N: usize>(
        layout: &Layout,
        memblock: &Memblock<N>,
        code: Pa,
        list: &mut MappingList,
        window: &mut W,
        frames: &mut F,
    ) -> Result<Self, TransitionError> {
        let geometry = layout.geometry();
        let page = geometry.granule().bytes();
        let shape = identity_geometry(geometry, code.0.saturating_add(page))?;
        let code_page = [Mapping {
            va: Va(code.0),
            pa: code,
            len: page,
            attributes: Attributes::KERNEL_TEXT,
            leaves: Leaves::Pages,
        }];
        let code_page = Mappings::new(shape, &code_page)?;
        list.clear();
        for range in memblock.mapped(page) {
            let mapping = Mapping {
                va: layout.linear(range.start),
                pa: range.start,
                len: range.len(),
                attributes: Attributes::KERNEL_DATA,
                leaves: Leaves::ContiguousBlocks,
            };
            let capacity = list.capacity();
            list.try_push(mapping).map_err(|_| TooManyRanges { range, capacity })?;
        }
        let linear = Mappings::new(geometry, list)?;

        let base = Layout::base(geometry);
        let linear = DetachedTree::build(&mut linear.cursor(), geometry.start_level(), base, window, frames)?;
        match DetachedTree::build(&mut code_page.cursor(), shape.start_level(), Va(0), window, frames) {
            Ok(code) => Ok(Self { linear, code }),
            Err(error) => {
                linear.release(window, frames);
                Err(error.into())
            }
        }
    }
}
