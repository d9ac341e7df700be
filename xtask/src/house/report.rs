//! What is wrong, in words that name the files and the names used.

use std::fmt::Write;
use std::path::Path;

use super::imports::{Imports, Names};
use super::module_tree::FileId;
use super::order::Rise;
use super::package::Package;

/// A circle: each of its files with the others that it imports.
pub fn circle(root: &Path, package: &Package, imports: &Imports, circle: &[FileId]) -> String {
    let shown = |file: FileId| shown(root, &imports.files[file]);
    let mut text = format!("{}: {} files import each other:", package.name, circle.len());
    for &file in circle {
        let others = imports.within.range((file, 0)..(file + 1, 0));
        for ((_, to), names) in others.filter(|((_, to), _)| circle.contains(to)) {
            let _ = write!(text, "\n  {} imports {}: {}", shown(file), shown(*to), listed(names));
        }
    }
    text
}

/// An import that runs up.
pub fn rise(root: &Path, rise: &Rise<'_>) -> String {
    let (file, imported) = (shown(root, rise.file), rise.imported.display());
    format!("{file} imports {imported}, but {}: {}", rise.why, listed(rise.names))
}

fn shown(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

/// A part of a package that no list orders.
pub fn unlisted(package: &Package, part: &str) -> String {
    format!(
        "{}: {part} is missing from the list of wings in xtask/src/house/rooms.rs",
        package.folder.display()
    )
}

/// The names, each with its first line. A name that is imported and then used is shown as it is
/// used.
fn listed(names: &Names) -> String {
    let last = |name: &str| name.rsplit("::").next().map(str::to_owned);
    let is_used = |import: &str| {
        names.keys().any(|other| other != import && other.split("::").next() == last(import).as_deref())
    };
    let shown = names.iter().filter(|(name, _)| !(name.contains("::") && is_used(name)));
    let shown: Vec<_> = shown.map(|(name, line)| format!("{name} (line {line})")).collect();
    shown.join(", ")
}
