//! `linmap`, the host tool, as built from this workspace.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::boot::workspace;

/// A run of `linmap` to which arguments are added.
///
/// `cargo xtask test` builds the tool once and says where it is. Without it cargo does, in the
/// profile of the tests, so that nothing is compiled twice.
///
/// # Panics
/// When it can't be built.
pub fn tool() -> Command {
    if let Some(path) = env::var_os("LINMAP_TOOL") {
        return Command::new(path);
    }
    static BUILD: std::sync::Once = std::sync::Once::new();
    BUILD.call_once(|| {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--profile", "test", "--package", "linmap-cli", "--bin", "linmap"]);
        // The plugin of `linmap record` is found beside the tool.
        cargo.args(["--package", "linmap-record", "--lib"]);
        let status = cargo.current_dir(workspace()).status().expect("cargo starts");
        assert!(status.success(), "linmap is built");
    });
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    Command::new(target.join("debug/linmap"))
}
