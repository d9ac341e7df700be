//! What the shell's `fill` writes, made apart from the kernel.

/// The first `bytes` bytes, a multiple of 8, of what `fill` writes from `seed` on (splitmix64).
pub fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let words = (1..=bytes as u64 / 8).map(|number| {
        let value = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    });
    words.flat_map(u64::to_le_bytes).collect()
}
