//! Imports that run up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::imports::{Imports, Names};
use super::package::Package;
use super::rooms::{ROOMS, Room, WINGS};

/// The order that imports are held against.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// The packages, lowest first.
    pub rooms: &'static [Room],
    /// By a package's folder: its parts, lowest first.
    pub wings: &'static [(&'static str, &'static [&'static str])],
}

/// An import that the order forbids.
#[derive(Debug)]
pub struct Rise<'i> {
    /// The importing file.
    pub file: &'i Path,
    /// What it imports: a package or a file.
    pub imported: PathBuf,
    /// Why it may not.
    pub why: String,
    /// The names used.
    pub names: &'i Names,
}

impl Order {
    /// This workspace's.
    pub const HOUSE: Self = Self { rooms: ROOMS, wings: WINGS };

    /// The imports of packages that stand higher than `package`, or that it may not know.
    pub fn rising_crates<'i>(
        self,
        package: &'i Package,
        packages: &'i [Package],
        imports: &'i Imports,
    ) -> impl Iterator<Item = Rise<'i>> {
        imports.crates.iter().filter_map(move |((file, name), names)| {
            let imported = packages.iter().find(|package| package.crate_name() == *name)?;
            let why = self.why_not(package, imported)?;
            Some(Rise { file: &imports.files[*file], imported: imported.folder.clone(), why, names })
        })
    }

    fn why_not(self, importing: &Package, imported: &Package) -> Option<String> {
        let place =
            |package: &Package| self.rooms.iter().position(|room| Path::new(room.folder) == package.folder);
        let (from, to) = (importing.folder.display(), imported.folder.display());
        let (Some(own), Some(other)) = (place(importing), place(imported)) else {
            let missing = if place(importing).is_none() { from } else { to };
            return Some(format!("{missing} is missing from the list of rooms"));
        };
        match self.rooms[own].only {
            Some(only) if !only.iter().any(|room| Path::new(room) == imported.folder) => {
                Some(format!("{from} may import {only:?} alone"))
            }
            _ if other >= own => Some(format!("{to} stands above {from}")),
            _ => None,
        }
    }

    /// The parts of `package` that its list of wings lacks.
    pub fn unlisted<'i>(self, package: &'i Package, imports: &'i Imports) -> BTreeSet<&'i str> {
        let Some(wings) = self.wings_of(package) else { return BTreeSet::new() };
        let parts = imports.files.iter().filter_map(|file| wing(package, file));
        parts.filter(|part| !wings.contains(part)).collect()
    }

    fn wings_of(self, package: &Package) -> Option<&'static [&'static str]> {
        let of = |(folder, wings): &(&str, &'static [&'static str])| {
            (Path::new(folder) == package.folder).then_some(*wings)
        };
        self.wings.iter().find_map(of)
    }

    /// The imports within `package` that run from one of its wings to a higher one or to the root.
    pub fn rising_wings<'i>(
        self,
        root: &'i Path,
        package: &'i Package,
        imports: &'i Imports,
    ) -> impl Iterator<Item = Rise<'i>> {
        let rises = self.wings_of(package).map(move |wings| {
            imports.within.iter().filter_map(move |((from, to), names)| {
                let (file, imported) = (&imports.files[*from], &imports.files[*to]);
                let why = match (wing(package, file), wing(package, imported)) {
                    (None, _) => return None,
                    (Some(from), None) => format!("the root stands above {from}"),
                    (Some(from), Some(to)) => higher(wings, from, to)?,
                };
                let imported = imported.strip_prefix(root).unwrap_or(imported).to_owned();
                Some(Rise { file, imported, why, names })
            })
        });
        rises.into_iter().flatten()
    }
}

/// The first part of a file's path below the folder of the package's sources; `None` for a root
/// file.
fn wing<'f>(package: &Package, file: &'f Path) -> Option<&'f str> {
    if package.roots().any(|root| root == file) {
        return None;
    }
    let below = package.roots().find_map(|root| file.strip_prefix(root.parent()?).ok())?;
    let first = below.components().next()?.as_os_str().to_str()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// Why `from` may not import `to`. [`Order::unlisted`] reports wings that are not listed.
fn higher(wings: &[&str], from: &str, to: &str) -> Option<String> {
    let place = |wing: &str| wings.iter().position(|listed| *listed == wing);
    (place(to)? > place(from)?).then(|| format!("{to} stands above {from}"))
}
