//! SHA-256 of memory, by `sha256.S`, which goes along with the relocation code too.

use core::fmt;

use crate::cpu;

/// What the digest is made of: whole blocks of this many bytes.
pub const BLOCK: u64 = 64;

unsafe extern "C" {
    fn sha256_blocks(state: *mut State, data: *const u8, blocks: u64, room: *mut Room);
    static sha256_initial: [u32; 8];
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
struct State([u32; 8]);

#[repr(C, align(16))]
struct Room([u64; 16]);

#[repr(C, align(16))]
struct Block([u8; BLOCK as usize]);

/// A digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest as the assembly has it: words of 32 bits, most significant first.
    pub fn words(self) -> [u32; 8] {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        words
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A digest in the making.
#[derive(Clone, Copy, Debug)]
pub struct Sha256 {
    state: State,
    blocks: u64,
}

impl Sha256 {
    /// The digest of nothing yet.
    pub fn new() -> Self {
        cpu::allow_vector_registers();
        // SAFETY: a constant of `sha256.S`.
        Self { state: State(unsafe { sha256_initial }), blocks: 0 }
    }

    /// Takes in `bytes`: whole blocks, aligned to 16 bytes.
    ///
    /// # Panics
    /// When they are not.
    pub fn update(&mut self, bytes: &[u8]) {
        let blocks = bytes.len() as u64 / BLOCK;
        assert!((bytes.len() as u64).is_multiple_of(BLOCK) && bytes.as_ptr().addr().is_multiple_of(16));
        if blocks > 0 {
            let mut room = Room([0; 16]);
            // SAFETY: as its head asks: the state, so many whole blocks, room, all aligned. The kernel itself uses no vector
            // registers, and `new` has allowed them.
            unsafe { sha256_blocks(&mut self.state, bytes.as_ptr(), blocks, &mut room) };
        }
        self.blocks += blocks;
    }

    /// The digest.
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
