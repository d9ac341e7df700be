//! Mapping the device tree blob before memory is known.

use core::ops::Range;
use core::slice;

use linmap_table::cpu::store_valid;
use linmap_vmsa::{Attributes, Descriptor, LeafError, Pa, Va};
use thiserror::Error;

use crate::arch::cpu::ThisCpu;
use crate::arch::geometry::geometry;
use crate::arch::image::dtb_entry;
use crate::arch::layout::{DTB_LEVEL, DTB_WINDOW, WIDEST};

/// The greatest length of a DTB (booting.rst).
const MAX_LEN: u64 = 2 << 20;
const HEADER_LEN: u64 = 40;

/// Why the DTB can't be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DtbPlaceError {
    /// x0 is not a multiple of 8.
    #[error("the device tree at {pa} is not 8-byte aligned")]
    Unaligned {
        /// The value of x0.
        pa: Pa,
    },
    /// x0 is not a physical address that both the CPU and the kernel's tables reach.
    #[error("the device tree at {pa} lies beyond {bits} bits of physical address")]
    OutOfReach {
        /// The value of x0.
        pa: Pa,
        /// The bits in reach.
        bits: u8,
    },
    /// No block maps it.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The length in the header exceeds the boot protocol's limit.
    #[error("the device tree at {pa} has {len:#x} bytes, the boot protocol allows {MAX_LEN:#x}")]
    TooLarge {
        /// Where it is.
        pa: Pa,
        /// The length in its header.
        len: u64,
    },
}

/// Maps the DTB at `pa` read-only in its window. Returns as many bytes as its header
/// says, at least the header. The caller checks whether they are a DTB.
///
/// # Errors
/// [`DtbPlaceError`].
pub fn map(pa: Pa, pa_bits: u8) -> Result<&'static [u8], DtbPlaceError> {
    if !pa.0.is_multiple_of(8) {
        return Err(DtbPlaceError::Unaligned { pa });
    }
    if pa.0.saturating_add(2 * MAX_LEN) >> pa_bits != 0 {
        return Err(DtbPlaceError::OutOfReach { pa, bits: pa_bits });
    }
    let leaf = WIDEST.entry_bytes(DTB_LEVEL);
    let first = Pa(pa.0 & !(leaf - 1));
    let offset = pa.0 - first.0;
    let for_header = (offset + HEADER_LEN).div_ceil(leaf);
    map_leaves(first, 0..for_header)?;
    let start = (DTB_WINDOW.0 + offset) as *const u8;
    // SAFETY: at least the length of a header is mapped here, read-only, and nothing writes to the
    // DTB.
    let total = unsafe { slice::from_raw_parts(start, HEADER_LEN as usize) };
    let len = u64::from(u32::from_be_bytes([total[4], total[5], total[6], total[7]])).max(HEADER_LEN);
    if len > MAX_LEN {
        // Without the magic number the length means nothing. The parser reports that.
        return if total.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]) {
            Err(DtbPlaceError::TooLarge { pa, len })
        } else {
            Ok(total)
        };
    }
    map_leaves(first, for_header..(offset + len).div_ceil(leaf))?;
    // SAFETY: all of `len` is mapped now.
    Ok(unsafe { slice::from_raw_parts(start, len as usize) })
}

/// Maps these leaves of the window, the first of which leads to `first`.
fn map_leaves(first: Pa, leaves: Range<u64>) -> Result<(), LeafError> {
    for index in leaves {
        let offset = index * WIDEST.entry_bytes(DTB_LEVEL);
        let pa = Pa(first.0 + offset);
        let descriptor = Descriptor::leaf(geometry(), DTB_LEVEL, pa, Attributes::KERNEL_RODATA)?;
        // SAFETY: this entry of the live table belongs to the window. It is invalid, and only this
        // function sets it. By booting.rst the loader loads the DTB to memory that may be mapped
        // cacheable by blocks of 2 MiB.
        unsafe { store_valid(&mut ThisCpu, dtb_entry(Va(DTB_WINDOW.0 + offset)), descriptor) };
    }
    Ok(())
}
