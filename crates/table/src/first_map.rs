//! The first map of a kernel, a hypervisor or firmware: from a few ranges to a tree, before there
//! is an allocator and while the MMU is off.

use arrayvec::ArrayVec;
use linmap_vmsa::{Attributes, Geometry, Pa, PaRange, Va};
use thiserror::Error;

use crate::detached::DetachedTree;
use crate::frames::{FrameSource, OutOfFrames};
use crate::mapping::{Leaves, Mapping, MappingError, Mappings};
use crate::reachable_frames::ReachableFrames;
use crate::window::OffsetWindow;

/// Why a first map can't be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum FirstMapError {
    /// The list of ranges has no room.
    #[error("no room to map {range}: the map holds {capacity} ranges")]
    Full {
        /// The range that was to be mapped.
        range: PaRange,
        /// How many ranges the map holds.
        capacity: usize,
    },
    /// The address of the tables is 0 or not aligned, or exceeds the PA size.
    #[error("tables can't begin at {at}: not 0, a multiple of {align:#x}, and {bits} bits at most")]
    Misplaced {
        /// The address asked for.
        at: Pa,
        /// The required alignment.
        align: u64,
        /// The PA size in bits.
        bits: u8,
    },
    /// A range breaks a rule.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// No frame is left for a table.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
}

/// A map of at most `N` ranges. Each call adds one, and carves it out of those that were added
/// before: first all of memory, then what is different in it.
///
/// ```
/// use linmap_table::{BumpFrames, FirstMap};
/// use linmap_vmsa::{Attributes, Geometry, Pa, PaRange, Regime};
/// # let ram = std::vec![0u8; 1 << 20];
/// # let tables = PaRange::from_len(Pa(ram.as_ptr().expose_provenance() as u64), 1 << 20).unwrap();
///
/// let range = |start, len| PaRange::from_len(Pa(start), len).unwrap();
/// let geometry = Geometry::K4_48.in_regime(Regime::El2);
/// let mut map = FirstMap::<8>::new(geometry);
/// map.identity(range(0x4000_0000, 1 << 30), Attributes::KERNEL_DATA)?;
/// map.identity(range(0x4020_0000, 0x1_0000), Attributes::KERNEL_TEXT)?;
/// map.identity(range(0x0900_0000, 0x1000), Attributes::DEVICE)?;
/// // SAFETY: the memory is free, and the CPU reaches it at its physical address.
/// let tree = unsafe { map.build(0, &mut BumpFrames::new(tables, geometry)) }?;
/// let registers = tree.registers()?;
/// assert_eq!(registers.ttbr0, Some(tree.root().0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FirstMap<const N: usize = 32> {
    geometry: Geometry,
    /// Ascending, disjoint.
    list: ArrayVec<Mapping, N>,
}

impl<const N: usize> FirstMap<N> {
    /// Returns a map of nothing.
    pub const fn new(geometry: Geometry) -> Self {
        Self { geometry, list: ArrayVec::new_const() }
    }

    /// The geometry of its tree.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Maps `range` at its physical address.
    ///
    /// # Errors
    /// [`FirstMapError::Full`], and [`FirstMapError::Mapping`] if the range is empty. Nothing was
    /// added then.
    pub fn identity(&mut self, range: PaRange, attributes: Attributes) -> Result<(), FirstMapError> {
        self.at(Va(range.start.0), range, attributes)
    }

    /// Maps `range` from `va` on, by the largest leaves that alignment allows.
    ///
    /// # Errors
    /// [`FirstMapError::Full`], and [`FirstMapError::Mapping`] if the range is empty. Nothing was
    /// added then.
    pub fn at(&mut self, va: Va, range: PaRange, attributes: Attributes) -> Result<(), FirstMapError> {
        let new =
            Mapping { va, pa: range.start, len: range.len(), attributes, leaves: Leaves::ContiguousBlocks };
        let Some(length_less_1) = new.len.checked_sub(1) else {
            let granule = self.geometry.page_bytes();
            return Err(MappingError::Unaligned { va, pa: range.start, len: 0, granule }.into());
        };
        // The last address, since a range may end with the address space.
        let last = va.0.saturating_add(length_less_1);
        let mut list = ArrayVec::<Mapping, N>::new();
        let mut new = Some(new);
        for old in &self.list {
            let old_last = old.va.0.saturating_add(old.len - 1);
            let below = va.0.checked_sub(1).and_then(|below| part(old, old.va.0, old_last.min(below)));
            let above = last.checked_add(1).and_then(|above| part(old, old.va.0.max(above), old_last));
            // The new one stands before whatever lies above it.
            let next = if above.is_some() { new.take() } else { None };
            for part in [below, next, above].into_iter().flatten() {
                list.try_push(part).map_err(|_| FirstMapError::Full { range, capacity: N })?;
            }
        }
        if let Some(new) = new {
            list.try_push(new).map_err(|_| FirstMapError::Full { range, capacity: N })?;
        }
        self.list = list;
        Ok(())
    }

    /// Builds the tree, whose [`registers`](DetachedTree::registers) say what to load. No barrier
    /// is executed: with the MMU off the CPU writes to memory itself. Before the MMU goes on, clean
    /// or invalidate what caches may hold of the tables, then DSB, TLBI, DSB and ISB.
    ///
    /// # Errors
    /// [`FirstMapError::Mapping`] for a range that is not whole pages, that the addresses of the
    /// geometry don't reach, or whose attributes the regime can't say;
    /// [`FirstMapError::OutOfFrames`]. All frames are given back then.
    ///
    /// # Safety
    /// The frame at PA p is reached at the address p + `offset` (wrapping), for every frame of
    /// `frames`: with the MMU off, and in an identity map, `offset` is 0. Nothing else accesses
    /// them.
    pub unsafe fn build(
        &self,
        offset: u64,
        frames: &mut impl FrameSource,
    ) -> Result<DetachedTree, FirstMapError> {
        let mappings = Mappings::new(self.geometry, &self.list)?;
        // SAFETY: the caller's.
        let mut window = unsafe { OffsetWindow::new(offset) };
        // SAFETY: the window reaches all frames of the source; no tree is released to this value.
        let mut memory = unsafe { ReachableFrames::new(&mut window, frames) };
        Ok(DetachedTree::build(&mappings, &mut memory)?)
    }
}

/// The part of `of` from the address `first` to `last`, if there is any.
fn part(of: &Mapping, first: u64, last: u64) -> Option<Mapping> {
    let len = last.checked_sub(first)?.checked_add(1)?;
    let done = first - of.va.0;
    Some(Mapping { va: Va(first), pa: Pa(of.pa.0 + done), len, ..*of })
}
