//! Who imports whom: the files of a package, and the packages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use super::module_tree::{FileId, ModuleTree};
use super::package::Package;
use super::resolve::{Resolver, Target};

/// A name that a file uses, and the first line that it stands in.
pub type Names = BTreeMap<String, usize>;

/// The imports of one package.
#[derive(Debug)]
pub struct Imports {
    /// Its source files.
    pub files: Vec<PathBuf>,
    /// By importing and imported file: the names used.
    pub within: BTreeMap<(FileId, FileId), Names>,
    /// By importing file and imported crate: the names used.
    pub crates: BTreeMap<(FileId, String), Names>,
}

impl Imports {
    /// Reads a package's files. `crates` are the names of all crates of the workspace.
    pub fn read(package: &Package, crates: &[String]) -> Result<Self> {
        let mut tree = ModuleTree::read(package)?;
        let own = package.crate_name();
        let resolver = Resolver::new(&tree, crates, &own);
        let mut within: BTreeMap<(FileId, FileId), Names> = BTreeMap::new();
        let mut outside: BTreeMap<(FileId, String), Names> = BTreeMap::new();
        for (id, module) in tree.modules.iter().enumerate() {
            for used in &module.uses {
                for target in resolver.targets(id, used) {
                    let names = match target {
                        Target::File(file) if file == module.file => continue,
                        Target::File(file) => within.entry((module.file, file)).or_default(),
                        Target::Crate(name) => outside.entry((module.file, name)).or_default(),
                    };
                    names.entry(used.path.to_string()).or_insert(used.path.line);
                }
            }
        }
        Ok(Self { files: std::mem::take(&mut tree.files), within, crates: outside })
    }
}
