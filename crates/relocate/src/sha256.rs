//! SHA-256 of memory by `sha256.S`, which is part of the relocation code.

use core::arch::asm;

use linmap_vmsa::id::Isar0;

use crate::digest::{BLOCK, Digest};

unsafe extern "C" {
    fn linmap_sha256_blocks(state: *mut State, data: *const u8, blocks: u64, room: *mut Room);
    fn linmap_sha256_by_instructions(state: *mut State, data: *const u8, blocks: u64, room: *mut Room);
    fn linmap_sha256_by_words(state: *mut State, data: *const u8, blocks: u64, room: *mut Room);
    static linmap_sha256_initial: [u32; 8];
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
struct State([u32; 8]);

#[repr(C, align(16))]
struct Room([u64; 16]);

#[repr(C, align(16))]
struct Block([u8; BLOCK as usize]);

/// One of the routines of `sha256.S`.
type Routine = unsafe extern "C" fn(*mut State, *const u8, u64, *mut Room);

/// A digest that is being computed.
///
/// It runs at EL1, or at EL2 with E2H, and lets the CPU use its vector registers (CPACR_EL1.FPEN).
#[derive(Clone, Copy, Debug)]
pub struct Sha256 {
    state: State,
    blocks: u64,
    routine: Routine,
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// Starts a digest, by the CPU's SHA-256 instructions where it has them.
    pub fn new() -> Self {
        Self::by(linmap_sha256_blocks)
    }

    /// Starts a digest by the CPU's SHA-256 instructions, or returns `None` if it has none.
    pub fn by_instructions() -> Option<Self> {
        isar0().sha2().then(|| Self::by(linmap_sha256_by_instructions))
    }

    /// Starts a digest without those instructions, as on a CPU that has none.
    pub fn by_words() -> Self {
        Self::by(linmap_sha256_by_words)
    }

    fn by(routine: Routine) -> Self {
        allow_vector_registers();
        // SAFETY: a constant of `sha256.S`.
        Self { state: State(unsafe { linmap_sha256_initial }), blocks: 0, routine }
    }

    /// Adds `bytes` and finishes.
    ///
    /// # Panics
    /// As [`update`](Self::update).
    pub fn of(mut self, bytes: &[u8]) -> Digest {
        self.update(bytes);
        self.finish()
    }

    /// Adds `bytes`: whole blocks of [`BLOCK`] bytes, aligned to 16 bytes.
    ///
    /// # Panics
    /// If they are not whole blocks, or not aligned.
    pub fn update(&mut self, bytes: &[u8]) {
        let blocks = bytes.len() as u64 / BLOCK;
        assert!((bytes.len() as u64).is_multiple_of(BLOCK) && bytes.as_ptr().addr().is_multiple_of(16));
        if blocks > 0 {
            let mut room = Room([0; 16]);
            // SAFETY: as the head of `sha256.S` asks: the state, `blocks` whole blocks, room, all
            // aligned. It changes what a call of `extern "C"` may change. `by` has allowed the
            // vector registers; the CPU has the instructions of the routine.
            unsafe { (self.routine)(&mut self.state, bytes.as_ptr(), blocks, &mut room) };
        }
        self.blocks += blocks;
    }

    /// Returns the digest of all that was added.
    pub fn finish(mut self) -> Digest {
        let bits = self.blocks * BLOCK * 8;
        let mut last = Block([0; BLOCK as usize]);
        last.0[0] = 0x80;
        last.0[56..].copy_from_slice(&bits.to_be_bytes());
        self.update(&last.0);
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state.0) {
            *bytes = word.to_be_bytes();
        }
        Digest(digest)
    }
}

/// Reads ID_AA64ISAR0_EL1.
fn isar0() -> Isar0 {
    let value: u64;
    // SAFETY: reading this register has no effect besides its value.
    unsafe { asm!("mrs {}, id_aa64isar0_el1", out(reg) value, options(nomem, nostack, preserves_flags)) };
    Isar0(value)
}

/// Lets this CPU use its vector registers: CPACR_EL1.FPEN.
fn allow_vector_registers() {
    // SAFETY: what traps no longer traps; nothing else changes.
    unsafe {
        asm!("mrs {value}, cpacr_el1", "orr {value}, {value}, #(3 << 20)", "msr cpacr_el1, {value}", "isb",
            value = out(reg) _, options(nomem, nostack, preserves_flags));
    }
}
