//! Files that import each other, at any depth.

use std::collections::BTreeSet;

use super::imports::Imports;
use super::module_tree::FileId;

/// Returns the sets in which each file reaches all others: the strongly connected components with
/// more than one file.
pub fn of(imports: &Imports) -> Vec<Vec<FileId>> {
    let count = imports.files.len();
    let mut reached: Vec<BTreeSet<FileId>> = (0..count).map(|file| reachable(imports, file)).collect();
    let mut circles = Vec::new();
    for file in 0..count {
        let circle: Vec<_> =
            reached[file].iter().copied().filter(|other| reached[*other].contains(&file)).collect();
        if circle.len() > 1 {
            circle.iter().for_each(|member| reached[*member].clear());
            circles.push(circle);
        }
    }
    circles
}

/// The files that `start` imports, directly or through others.
fn reachable(imports: &Imports, start: FileId) -> BTreeSet<FileId> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(file) = open.pop() {
        let direct = imports.within.range((file, 0)..(file + 1, 0)).map(|((_, to), _)| *to);
        open.extend(direct.filter(|to| reached.insert(*to)));
    }
    reached
}
