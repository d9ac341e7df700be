//! `linmap plan` over the device trees of all boards in Debian's arm64 kernel.

#[path = "corpus/trees.rs"]
mod trees;

use std::fs;
use std::path::Path;

use linmap_tests::tool;

/// A hundredth of a second: what Linux counts the time of processes in (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// The CPU time of the children that have ended, in ticks.
fn ticks_of_children() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // Behind the name: state is field 3, cutime and cstime are 16 and 17 (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let times = fields.split_whitespace().skip(16 - 3).take(2);
    times.map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

#[test]
fn all_trees_are_planned_in_two_seconds_of_one_core() {
    let folder = tempfile::tempdir().expect("a folder");
    let trees = trees::read().trees;
    for (name, blob) in &trees {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("room");
        fs::write(path, blob).expect("room");
    }
    assert!(trees.len() > 1000, "only {} trees", trees.len());
    let mut plan = tool();
    plan.current_dir(folder.path()).args(["plan", "--memory", "2G@0x80000000"]);
    // It is built before the time is taken.
    let before = ticks_of_children();
    let output = plan.args(trees.iter().map(|(name, _)| name)).output().expect("linmap runs");
    let ticks = ticks_of_children() - before;
    let (rows, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*errors), (Some(0), ""));
    // A heading, and the sums.
    assert_eq!(rows.lines().count(), trees.len() + 2);
    let mut rows = rows.lines().skip(1).zip(&trees);
    assert!(rows.all(|(row, (name, _))| row.starts_with(name.as_str())));
    eprintln!("{} trees in {ticks} hundredths of a second", trees.len());
    assert!(ticks <= 2 * TICKS_PER_SECOND, "{ticks} hundredths of a second");
}
