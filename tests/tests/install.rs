//! `cargo xtask install`: the tool, its completions and its manual pages.

use std::fs;
use std::path::Path;
use std::process::Command;

use linmap_tests::{install, is_soak, tool};

/// The commands that have a manual page.
const PAGES: [&str; 9] = [
    "linmap",
    "linmap-check",
    "linmap-completions",
    "linmap-dump",
    "linmap-kexec",
    "linmap-kexec-plan",
    "linmap-man",
    "linmap-plan",
    "linmap-record",
];

#[test]
fn every_command_has_a_page_and_every_shell_its_completions() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let output = tool().args(arguments).output().expect("linmap runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for shell in ["bash", "zsh", "fish"] {
        assert_completes(&run(&["completions", shell]));
    }
    let pages = folder.path().join("man/man1");
    assert_eq!(run(&["man", &pages.display().to_string()]), "");
    assert_pages(&pages);
}

/// What [`every_command_has_a_page_and_every_shell_its_completions`] checks, where the command puts
/// it; the tool is compiled as it is released, which takes minutes.
#[test]
fn what_is_installed_below_a_prefix_is_complete() {
    if !is_soak() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let said = install(folder.path());
    let bin = folder.path().join("bin/linmap");
    let version = Command::new(&bin).arg("--version").output().expect("it was installed");
    assert!(version.status.success() && version.stdout.starts_with(b"linmap "));
    assert!(said.lines().any(|line| Path::new(line) == bin), "{said}");
    let share = folder.path().join("share");
    for place in [
        "bash-completion/completions/linmap",
        "zsh/site-functions/_linmap",
        "fish/vendor_completions.d/linmap.fish",
    ] {
        assert_completes(&fs::read_to_string(share.join(place)).expect("completions"));
        assert!(said.contains(place), "{said}");
    }
    assert_pages(&share.join("man/man1"));
}

fn assert_completes(script: &str) {
    for word in
        ["check", "record", "dump", "plan", "kexec", "--summary", "--granule", "--scattered", "--symbols"]
    {
        // fish writes options without their hyphens.
        assert!(script.contains(word.trim_start_matches('-')), "{word} is not completed: {script}");
    }
}

fn assert_pages(folder: &Path) {
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    found.sort();
    let mut pages: Vec<_> = PAGES.iter().map(|page| format!("{page}.1")).collect();
    pages.sort();
    assert_eq!(found, pages);
    for page in pages {
        let text = fs::read_to_string(folder.join(&page)).expect("a page");
        assert!(text.contains(".TH ") && text.contains(".SH NAME"), "{page}: {text}");
    }
}
