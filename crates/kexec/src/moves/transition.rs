//! Transitional tables: the relocation code runs under them while it overwrites memory that may
//! hold the kernel's tables.

use linmap_table::{
    DetachedTree, FrameSource, Leaves, Mapping, MappingError, Mappings, OutOfFrames, ReachableFrames,
    TableWindow,
};
use linmap_vmsa::{Attributes, Geometry, Pa, PaRange, Va};
use thiserror::Error;

/// Two trees: all of memory at its linear addresses, and one page of code at VA = PA.
#[derive(Debug)]
pub struct Transition {
    /// For TTBR1.
    pub linear: DetachedTree,
    /// For TTBR0, with its own VA size.
    pub code: DetachedTree,
}

/// Why transitional tables cannot be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum TransitionError {
    /// No frame is left.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
    /// The code page cannot be mapped 1:1 in the given geometry.
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

impl Transition {
    /// Returns the mapping of a range of memory at its linear address `va`: writable, by the
    /// largest leaves.
    pub fn mapping(range: PaRange, va: Va) -> Mapping {
        Mapping {
            va,
            pa: range.start,
            len: range.len(),
            attributes: Attributes::KERNEL_DATA,
            leaves: Leaves::ContiguousBlocks,
        }
    }

    /// Builds both trees in frames of `memory`, which must not lie in a destination.
    ///
    /// `linear` are the [mappings](Self::mapping) of all memory. `code` is the page of the
    /// relocation code, which is mapped 1:1 in a tree of `code_geometry`.
    ///
    /// # Errors
    /// [`TransitionError`]; all frames are freed.
    pub fn build<W: TableWindow, F: FrameSource>(
        linear: &Mappings<'_>,
        code: Pa,
        code_geometry: Geometry,
        memory: &mut ReachableFrames<'_, W, F>,
    ) -> Result<Self, TransitionError> {
        let code_page = [Mapping {
            va: Va(code.0),
            pa: code,
            len: linear.geometry().granule().bytes(),
            attributes: Attributes::KERNEL_TEXT,
            leaves: Leaves::Pages,
        }];
        let code_page = Mappings::new(code_geometry, &code_page)?;
        let linear = DetachedTree::build(linear, memory)?;
        match DetachedTree::build(&code_page, memory) {
            Ok(code) => Ok(Self { linear, code }),
            Err(error) => {
                linear.release(memory);
                Err(error.into())
            }
        }
    }
}
