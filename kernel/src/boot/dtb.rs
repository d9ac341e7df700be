//! Reaching the device tree blob before memory is known.

use core::slice;

use linmap_table::cpu::store_valid;
use linmap_vmsa::{Attributes, Descriptor, Level, Pa, Va};
use thiserror::Error;

use crate::arch::cpu::ThisCpu;
use crate::boot::entry::level_2_entry;
use crate::memory::layout::{DTB_WINDOW, GEOMETRY};

/// The most a DTB may have (booting.rst).
const MAX_LEN: u64 = 2 << 20;
const HEADER_LEN: u64 = 40;

/// Why there is no DTB to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DtbPlaceError {
    /// x0 is not a multiple of 8.
    #[error("the device tree at {pa} is not 8-byte aligned")]
    Unaligned {
        /// What x0 held.
        pa: Pa,
    },
    /// x0 is not a physical address that the CPU has and the kernel's tables can hold.
    #[error("the device tree at {pa} lies beyond {bits} bits of physical address")]
    OutOfReach {
        /// What x0 held.
        pa: Pa,
        /// The bits that are in reach.
        bits: u8,
    },
    /// The header says more than the boot protocol allows.
    #[error("the device tree at {pa} has {len:#x} bytes, the boot protocol allows {MAX_LEN:#x}")]
    TooLarge {
        /// Where it is.
        pa: Pa,
        /// The length in its header.
        len: u64,
    },
}

/// Maps the DTB at `pa` read-only by blocks in its window and returns what its header says is its length: at least the
/// header. Only then can it be told whether it is one.
pub fn map(pa: Pa, pa_bits: u8, cpu: &mut ThisCpu) -> Result<&'static [u8], DtbPlaceError> {
    if !pa.0.is_multiple_of(8) {
        return Err(DtbPlaceError::Unaligned { pa });
    }
    if pa.0.saturating_add(2 * MAX_LEN) >> pa_bits != 0 {
        return Err(DtbPlaceError::OutOfReach { pa, bits: pa_bits });
    }
    let block = GEOMETRY.entry_bytes(Level::L2);
    let first_block = pa.0 & !(block - 1);
    map_block(0, Pa(first_block), cpu);
    let offset = pa.0 - first_block;
    if offset + HEADER_LEN > block {
        map_block(1, Pa(first_block + block), cpu);
    }
    let start = (DTB_WINDOW.0 + offset) as *const u8;
    // SAFETY: at least a header's length is mapped here, read-only, and nothing writes to the DTB.
    let total = unsafe { slice::from_raw_parts(start, HEADER_LEN as usize) };
    let len = u64::from(u32::from_be_bytes([total[4], total[5], total[6], total[7]])).max(HEADER_LEN);
    if len > MAX_LEN {
        // Without the magic number the length means nothing; the parser says so.
        return if total.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]) {
            Err(DtbPlaceError::TooLarge { pa, len })
        } else {
            Ok(total)
        };
    }
    if offset + len > block && offset + HEADER_LEN <= block {
        map_block(1, Pa(first_block + block), cpu);
    }
    // SAFETY: all of `len` is mapped now.
    Ok(unsafe { slice::from_raw_parts(start, len as usize) })
}

/// Maps one block of the window.
fn map_block(index: u64, pa: Pa, cpu: &mut ThisCpu) {
    let va = Va(DTB_WINDOW.0 + index * GEOMETRY.entry_bytes(Level::L2));
    let descriptor = Descriptor::leaf(GEOMETRY, Level::L2, pa, Attributes::KERNEL_RODATA);
    // SAFETY: this entry of the live table belongs to the window, is invalid until now, and only this function sets it;
    // booting.rst has the loader put the DTB where memory may be mapped cacheable by blocks.
    unsafe { store_valid(cpu, level_2_entry(va), descriptor) };
}
