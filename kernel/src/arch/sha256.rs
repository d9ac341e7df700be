//! SHA-256 of memory, by `sha256.S`, which goes along with the relocation code too.

use core::fmt;

use linmap_vmsa::id::Isar0;

use crate::arch::cpu;

/// What the digest is made of: whole blocks of this many bytes.
pub const BLOCK: u64 = 64;

unsafe extern "C" {
    fn sha256_blocks(state: *mut State, data: *const u8, blocks: u64, room: *mut Room);
    fn sha256_by_instructions(state: *mut State, data: *const u8, blocks: u64, room: *mut Room);
    fn sha256_by_words(state: *mut State, data: *const u8, blocks: u64, room: *mut Room);
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

/// One of the routines of `sha256.S`.
type Routine = unsafe extern "C" fn(*mut State, *const u8, u64, *mut Room);

/// A digest in the making.
#[derive(Clone, Copy, Debug)]
pub struct Sha256 {
    state: State,
    blocks: u64,
    routine: Routine,
}

impl Sha256 {
    /// The digest of nothing yet.
    pub fn new() -> Self {
        Self::by(sha256_blocks)
    }

    /// The same, to be made by the CPU's SHA-256 instructions; `None` when it has none.
    pub fn by_instructions() -> Option<Self> {
        Isar0(cpu::isar0()).sha2().then(|| Self::by(sha256_by_instructions))
    }

    /// The same, to be made without them, as on a CPU that has none.
    pub fn by_words() -> Self {
        Self::by(sha256_by_words)
    }

    fn by(routine: Routine) -> Self {
        cpu::allow_vector_registers();
        // SAFETY: a constant of `sha256.S`.
        Self { state: State(unsafe { sha256_initial }), blocks: 0, routine }
    }

    /// The digest of `bytes` alone, behind what was taken in so far.
    ///
    /// # Panics
    /// As [`update`](Self::update).
    pub fn of(mut self, bytes: &[u8]) -> Digest {
        self.update(bytes);
        self.finish()
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
            // registers, and `by` has allowed them; the routine is one that the CPU has the instructions for.
            unsafe { (self.routine)(&mut self.state, bytes.as_ptr(), blocks, &mut room) };
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
