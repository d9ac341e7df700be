//! Copying and examining much memory.

use core::arch::{asm, global_asm};

use crate::arch::cpu;

global_asm!(include_str!("bulk.S"));

unsafe extern "C" {
    fn linmap_copy_blocks(to: *mut u8, from: *const u8, blocks: usize);
}

/// Bytes of a block of `linmap_copy_blocks`.
const BLOCK: usize = 256;

/// Copies memory by pairs of vector registers, where the CPU has them.
///
/// The kernel is compiled for a target without floating point: no Rust code uses these registers,
/// and no exception saves them. So one user must not interrupt another. Besides these copies, only
/// the digests and the relocation code use them: all run on the boot CPU, which masks interrupts,
/// or where the work that was interrupted never goes on.
#[derive(Clone, Copy, Debug)]
pub struct BulkCopy {
    has_vectors: bool,
}

impl BulkCopy {
    /// Lets this CPU use its vector registers, if it has them (ID_AA64PFR0_EL1.AdvSIMD).
    pub fn new() -> Self {
        let has_vectors = cpu::pfr0() >> 20 & 0xf != 0xf;
        if has_vectors {
            // CPACR_EL1.FPEN, or CPTR_EL2.FPEN at EL2 with E2H.
            // SAFETY: what traps no longer traps; nothing else changes.
            unsafe {
                asm!("mrs {value}, cpacr_el1", "orr {value}, {value}, #(3 << 20)", "msr cpacr_el1, {value}",
                    "isb", value = out(reg) _, options(nomem, nostack, preserves_flags));
            }
        }
        Self { has_vectors }
    }

    /// Copies the start of `from` to the start of `to`: as many bytes as both have. Returns their
    /// number.
    pub fn copy(self, from: &[u8], to: &mut [u8]) -> usize {
        let len = from.len().min(to.len());
        let blocks = if self.has_vectors { len / BLOCK } else { 0 };
        if blocks > 0 {
            // SAFETY: both have that many blocks, and do not overlap. All memory that Rust code
            // reaches is Normal. `new` has allowed the vector registers.
            unsafe { linmap_copy_blocks(to.as_mut_ptr(), from.as_ptr(), blocks) };
        }
        let copied = blocks * BLOCK;
        to[copied..len].copy_from_slice(&from[copied..len]);
        len
    }
}

/// Whether all of `bytes` are zero. It looks at eight words at a time.
pub fn is_zero(bytes: &[u8]) -> bool {
    // SAFETY: any bytes are a valid word.
    let (before, words, after) = unsafe { bytes.align_to::<u64>() };
    let (groups, rest) = words.as_chunks::<8>();
    groups.iter().all(|group| group.iter().fold(0, |all, word| all | word) == 0)
        && rest.iter().all(|&word| word == 0)
        && [before, after].into_iter().flatten().all(|&byte| byte == 0)
}
