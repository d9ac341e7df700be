//! What `cargo xtask setup` has downloaded.

use std::path::{Path, PathBuf};

/// The file at `path` below `target/payload`.
///
/// # Panics
/// When it is missing.
pub fn payload(path: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from);
    let path = target.join("payload").join(path);
    assert!(path.is_file(), "{}: `cargo xtask setup` fetches it", path.display());
    path
}
