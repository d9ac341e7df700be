//! The order of the house: who may import whom.
//!
//! Both lists are ordered, lowest first. A higher entry may import a lower one, never the reverse.

/// A package of the workspace, by its folder.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The folder of its Cargo.toml, below the workspace's root.
    pub folder: &'static str,
    /// The only rooms that it may import; `None` for all that stand lower.
    pub only: Option<&'static [&'static str]>,
}

const fn room(folder: &'static str) -> Room {
    Room { folder, only: None }
}

/// All packages.
pub const ROOMS: &[Room] = &[
    room("crates/vmsa"),
    Room { folder: "crates/trace", only: Some(&[]) },
    Room { folder: "crates/asid", only: Some(&[]) },
    room("crates/fdt"),
    room("crates/memblock"),
    room("crates/platform"),
    room("crates/table"),
    room("crates/cpu"),
    room("crates/live"),
    room("crates/linmap"),
    room("crates/park"),
    room("crates/relocate"),
    room("crates/kexec"),
    Room { folder: "crates/model", only: Some(&["crates/trace"]) },
    room("crates/board"),
    room("kernel"),
    room("examples/first-map"),
    room("examples/first-map-peer"),
    room("examples/hypervisor"),
    room("examples/mistakes"),
    room("examples/second-kernel"),
    room("examples/user-space"),
    Room { folder: "tests/workload", only: Some(&[]) },
    Room { folder: "record", only: Some(&["crates/trace"]) },
    room("cli"),
    room("bench"),
    room("tests"),
    room("xtask"),
];

/// The parts of a package, by its folder: the files and folders beside its root, without `.rs`. The
/// root itself stands above them all. A package that is not listed has no order of parts.
pub const WINGS: &[(&str, &[&str])] = &[
    ("crates/kexec", &["payload", "tree", "place", "moves", "crash"]),
    (
        "cli",
        &[
            "failure",
            "file_kind",
            "outcome",
            "output",
            "progress",
            "symbols",
            "check",
            "record",
            "dump",
            "plan",
            "kexec",
            "complete",
        ],
    ),
    ("kernel", &["arch", "gic", "memory", "smp", "kexec", "end", "stress", "shell", "boot"]),
];
