//! The device trees of Debian's kernel package, as `cargo xtask setup` left them.

use std::path::{Path, PathBuf};

use linmap_kexec::Archive;

/// A package's device trees.
#[derive(Debug)]
pub struct DeviceTrees {
    /// The package's name and version.
    pub package: String,
    /// Name and blob of each, in the order of their names.
    pub trees: Vec<(String, Vec<u8>)>,
}

/// Reads the trees.
///
/// # Panics
/// When they are missing.
pub fn device_trees() -> DeviceTrees {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from);
    let path = target.join("payload/linux-6.18/device-trees.cpio.zst");
    let file = std::fs::File::open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: `cargo xtask setup` fetches it", path.display()));
    let bytes = zstd::decode_all(file).expect("a file that setup has compressed");
    let archive = Archive::parse(&bytes).expect("an archive that setup has made");
    let package = archive.find("package").expect("the package's name").data;
    let trees = archive.members().filter(|member| member.name.ends_with(".dtb"));
    DeviceTrees {
        package: String::from_utf8_lossy(package).into_owned(),
        trees: trees.map(|tree| (tree.name.to_owned(), tree.data.to_vec())).collect(),
    }
}
