//! `linmap plan` over the device trees of all boards in Debian's arm64 kernel.

use std::fs;
use std::path::Path;

use linmap_tests::{device_trees, tool};

#[test]
fn every_tree_is_planned_in_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let trees = device_trees().trees;
    for (name, blob) in &trees {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("room");
        fs::write(path, blob).expect("room");
    }
    assert!(trees.len() > 1000, "only {} trees", trees.len());
    let mut plan = tool();
    plan.current_dir(folder.path()).args(["plan", "--memory", "2G@0x80000000"]);
    let output = plan.args(trees.iter().map(|(name, _)| name)).output().expect("linmap runs");
    let (rows, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*errors), (Some(0), ""));
    // A heading, and the sums.
    assert_eq!(rows.lines().count(), trees.len() + 2);
    let mut rows = rows.lines().skip(1).zip(&trees);
    assert!(rows.all(|(row, (name, _))| row.starts_with(name.as_str())));
}
