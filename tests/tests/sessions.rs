//! The README and the guides: every command that they show prints what they show.

use std::fs;
use std::os::unix::fs::symlink;

use linmap_tests::{check_sections, check_session, check_session_with, device_trees, workspace};

#[test]
fn the_readmes_commands_print_what_it_shows() {
    check_session("README.md");
}

#[test]
fn the_guide_for_mm_developers_shows_what_its_commands_print() {
    check_session("docs/guide/mm-developer.md");
}

#[test]
fn the_guide_to_a_verdict_shows_what_its_commands_print() {
    check_session("docs/guide/judge-your-kernel.md");
}

#[test]
fn the_tools_readme_shows_what_check_and_record_print() {
    check_sections("cli/README.md", &["linmap check", "linmap record"], |folder| {
        symlink(workspace().join("cli/examples"), folder.join("examples")).expect("a link");
    });
}

#[test]
fn the_guide_for_platform_engineers_shows_what_its_commands_print() {
    check_session_with("docs/guide/platform-engineer.md", |folder| {
        let boards = device_trees().trees.into_iter();
        for (name, blob) in
            boards.filter(|(name, _)| name.starts_with("broadcom") || name.starts_with("rockchip"))
        {
            let path = folder.join("boards").join(name);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("room");
            fs::write(path, blob).expect("room");
        }
    });
}
