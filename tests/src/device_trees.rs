//! The device trees of Debian's kernel package, as `cargo xtask setup` left them.

use linmap_kexec::Archive;

use crate::payload::payload;

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
    let file = std::fs::File::open(payload("linux-6.18/device-trees.cpio.zst")).expect("a file");
    let bytes = zstd::decode_all(file).expect("a file that setup has compressed");
    let archive = Archive::parse(&bytes).expect("an archive that setup has made");
    let package = archive.find("package").expect("the package's name").data;
    let trees = archive.members().filter(|member| member.name.ends_with(".dtb"));
    DeviceTrees {
        package: String::from_utf8_lossy(package).into_owned(),
        trees: trees.map(|tree| (tree.name.to_owned(), tree.data.to_vec())).collect(),
    }
}
