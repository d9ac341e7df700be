//! The stub that stays at EL2 while the kernel runs at EL1 below it.

use core::arch::global_asm;
use core::slice;

/// HVC number of the stub's restart of a payload.
pub const HVC_RESTART: u64 = 0x4c4;
/// HVC number that moves the stub's vectors to another place.
pub const HVC_SET_VECTORS: u64 = 0x4c5;

global_asm!(
    include_str!("el2_stub.S"),
    hvc_restart = const HVC_RESTART,
    hvc_set_vectors = const HVC_SET_VECTORS
);

unsafe extern "C" {
    static el2_stub_vectors: u8;
}

/// The stub's vectors, position independent.
pub fn vectors() -> &'static [u8] {
    // SAFETY: sixteen vectors of 128 bytes of the image's text, which is readable.
    unsafe { slice::from_raw_parts(&raw const el2_stub_vectors, 0x800) }
}
