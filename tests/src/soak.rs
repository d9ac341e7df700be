//! Long runs: `cargo xtask test --soak`.

/// Whether there is time for the long forms of tests.
pub fn is_soak() -> bool {
    std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0")
}

/// `all` in a long run, and the first `few` of them in any other.
pub fn soak_or_first<T>(few: usize, all: &[T]) -> &[T] {
    if is_soak() { all } else { &all[..few.min(all.len())] }
}
