//! What `linmap record` can't record, and what it does when something ends before its time.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use linmap_tests::{PsciEnd, own_image_path, tiny_payload, tool};

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

/// `linmap record` with these options, of a machine that boots `kernel`.
fn record(options: &[&str], machine: &str, kernel: &Path, append: &str) -> Command {
    let mut command = tool();
    command.arg("record").args(options).args(["--", "qemu-system-aarch64", "-display", "none"]);
    command.args("-monitor none -serial null -nic none -no-reboot".split(' '));
    command.args(machine.split(' ')).arg("-kernel").arg(kernel).args(["-append", append]);
    command
}

const VIRT: &str = "-machine virt -cpu cortex-a72 -m 256M";

#[track_caller]
fn fails(mut command: Command, why: &str) {
    let Output { status, stderr, .. } = command.output().expect("linmap runs");
    let errors = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(2), "{errors}");
    let last = errors.lines().last().unwrap_or("");
    assert!(last.starts_with("error: ") && last.contains(why), "{errors}");
    assert_eq!(errors.matches("error: ").count(), 1, "{errors}");
}

#[test]
fn a_guest_that_never_turns_its_mmu_on_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kernel = folder.path().join("kernel");
    fs::write(&kernel, tiny_payload(PsciEnd::Off)).expect("a kernel");
    let why = "nothing was recorded: the guest never turned its MMU on";
    fails(record(&["--check"], VIRT, &kernel, ""), why);
    let out = folder.path().join("out");
    fails(record(&["--out", out.to_str().expect("a path")], VIRT, &kernel, ""), why);
}

#[test]
fn a_machine_without_shared_memory_and_a_full_disk_are_said_in_one_line() {
    let kernel = own_image_path();
    let (done, full) = ("linmap.payload=none", "/dev/full: No space left on device");
    fails(record(&["--out", "/dev/full"], VIRT, &kernel, done), full);
    fails(record(&["--check", "--out", "/dev/full"], VIRT, &kernel, done), full);
    fails(record(&["--check"], "-machine microbit", &kernel, done), "");
}

/// A run of our kernel that is left in its shell, with its trace at `out`, which has begun.
fn begun(out: &Path) -> Child {
    let path = out.to_str().expect("a path");
    let mut command = record(&["--check", "--all", "--out", path], VIRT, &own_image_path(), "linmap.shell");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("linmap starts");
    let start = Instant::now();
    // The recorder sends what it has even if the guest does nothing more.
    while fs::metadata(out).map_or(0, |out| out.len()) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "a trace begins");
        thread::sleep(Duration::from_millis(50));
    }
    child
}

/// The only child of a process.
fn child_of(process: u32) -> String {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    children.expect("Linux says").trim().to_owned()
}

fn signal(name: &str, process: &str) {
    let status = Command::new("kill").args(["-s", name, process]).status().expect("kill runs");
    assert!(status.success());
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let status = child.wait().expect("linmap ends");
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    (status.code(), said)
}

/// What was recorded is still judged.
fn is_readable(out: &Path) {
    let Output { stdout, stderr, .. } = tool().arg("check").arg(out).output().expect("linmap runs");
    let said = [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(said.contains(": legal"), "{said}");
}

#[test]
fn ctrl_c_and_a_killed_qemu_leave_what_was_recorded_and_no_qemu() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("interrupted");
    let tool = begun(&out);
    let (own, qemu) = (tool.id().to_string(), child_of(tool.id()));
    signal("INT", &own);
    let (status, said) = ended(tool);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("the guest: legal"), "{said}");
    assert!(said.contains("note: interrupted: the guest was ended\n"), "{said}");
    assert!(said.contains(" 0 stores missed"), "{said}");
    assert!(!Path::new(&format!("/proc/{qemu}")).exists());
    is_readable(&out);

    let out = folder.path().join("killed");
    let tool = begun(&out);
    signal("KILL", &child_of(tool.id()));
    let (status, said) = ended(tool);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("the guest: legal"), "{said}");
    assert!(said.contains("error: QEMU ended with signal: 9 (SIGKILL)"), "{said}");
    is_readable(&out);
}
