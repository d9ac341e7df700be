//! Tables as bytes, for a build script that puts them into a kernel's image.

use core::slice;

use linmap_vmsa::{Pa, PaRange};

use crate::bump_frames::BumpFrames;
use crate::detached::DetachedTree;
use crate::first_map::{FirstMap, FirstMapError};

/// The tables of a tree as bytes, for the part of a kernel image that is loaded at a fixed address.
///
/// ```
/// use linmap_table::FirstMap;
/// use linmap_vmsa::{Attributes, Geometry, Pa, PaRange, Regime};
///
/// let range = |start, len| PaRange::from_len(Pa(start), len).unwrap();
/// let geometry = Geometry::K4_48.in_regime(Regime::El3);
/// let mut map = FirstMap::<4>::new(geometry);
/// map.identity(range(0x4000_0000, 0x1_0000), Attributes::KERNEL_TEXT)?;
/// map.identity(range(0x4001_0000, 0x2_0000), Attributes::KERNEL_DATA)?;
///
/// // In build.rs: the linker script places the bytes at 0x4001_0000.
/// let mut room = vec![0u64; 0x8000 / 8];
/// let image = map.image(Pa(0x4001_0000), &mut room)?;
/// assert_eq!(image.bytes().len(), 4 * 0x1000);
/// let registers = image.tree().registers()?;
/// assert_eq!(registers.ttbr0, Some(0x4001_0000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TableImage<'r> {
    tree: DetachedTree,
    bytes: &'r [u8],
}

impl TableImage<'_> {
    /// Returns the bytes, little-endian as the CPU reads them: whole tables, the root first.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Returns the tree, which has the register values.
    pub fn tree(&self) -> &DetachedTree {
        &self.tree
    }
}

impl<const N: usize> FirstMap<N> {
    /// Builds the tree in `room`, for loading at `at`. `room` needs space for one table more than
    /// the tree has, because the tables in it are aligned.
    ///
    /// # Errors
    /// [`FirstMapError::Misplaced`] if `at` is 0, or not a multiple of the granule and of the size
    /// of all [root tables](linmap_vmsa::Geometry::root_tables); otherwise as
    /// [`build`](Self::build).
    pub fn image<'r>(&self, at: Pa, room: &'r mut [u64]) -> Result<TableImage<'r>, FirstMapError> {
        let geometry = self.geometry();
        let granule = geometry.page_bytes();
        let align = granule * geometry.root_tables() as u64;
        room.fill(0);
        let first = room.as_mut_ptr().expose_provenance() as u64;
        let skipped = first.wrapping_neg() & (granule - 1);
        let len = (size_of_val(room) as u64).saturating_sub(skipped) & !(granule - 1);
        let Some(memory) = PaRange::from_len(at, len)
            .filter(|memory| at.0 != 0 && at.0 & (align - 1) == 0 && geometry.holds(memory.end))
        else {
            return Err(FirstMapError::Misplaced { at, align, bits: geometry.pa_bits() });
        };
        // SAFETY: the range stands for `room`, which nothing else uses until this function returns.
        let mut frames = unsafe { BumpFrames::new(memory, geometry) };
        // SAFETY: as above: the frame at `at + n` is `n` bytes behind the first whole frame of
        // `room`.
        let tree = unsafe { self.build(first.wrapping_add(skipped).wrapping_sub(at.0), &mut frames) }?;
        let used = frames.left().start.0 - at.0;
        let words = &mut room[skipped as usize / 8..(skipped + used) as usize / 8];
        for word in words.iter_mut() {
            *word = word.to_le();
        }
        // SAFETY: the words are initialised, borrowed for `'r`, and bytes have no alignment.
        let bytes = unsafe { slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) };
        Ok(TableImage { tree, bytes })
    }
}
