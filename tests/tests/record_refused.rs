//! What `linmap record` can't record, and what it does when something ends before its time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use linmap_tests::tool;

/// A program that says `help` when it is asked for help.
fn program(folder: &tempfile::TempDir, name: &str, help: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, format!("#!/bin/sh\ncat <<'END'\n{help}\nEND\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be run");
    path.to_str().expect("a path").to_owned()
}

#[test]
fn a_qemu_of_another_version_or_without_plugins_is_refused_before_it_starts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plugin = "-plugin [file=]<file>[,<argname>=<argvalue>]";
    for (name, help, why) in [
        ("old", format!("QEMU emulator version 7.2.22 (Debian)\n{plugin}"), "it is QEMU 7.2.22"),
        ("new", format!("QEMU emulator version 12.0.0\n{plugin}"), "it is QEMU 12.0.0"),
        ("bare", "QEMU emulator version 10.0.2\n-name".to_owned(), "QEMU 10.0.2 was built without plugins"),
        ("else", "usage: else".to_owned(), "it does not say that it is QEMU"),
    ] {
        let qemu = program(&folder, name, &help);
        let mut command = tool();
        command.args(["record", "--check", "--", &qemu, "-machine", "virt"]);
        let Output { status, stdout, stderr } = command.output().expect("linmap runs");
        let errors = String::from_utf8_lossy(&stderr);
        assert_eq!((status.code(), stdout.as_slice()), (Some(2), &[][..]), "{errors}");
        let expected =
            format!("error: {qemu}: {why}; the recorder needs QEMU 10 or 11, built with plugins\n");
        assert_eq!(errors, expected);
    }
}
