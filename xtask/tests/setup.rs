//! `cargo xtask setup` with programs of our own in place of QEMU and apt: nothing is installed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

/// A target folder, and programs that come first in PATH.
struct Sandbox(tempfile::TempDir);

impl Sandbox {
    /// With a QEMU of this version, and an apt-get that says who it is and never ends.
    fn new(qemu: &str) -> Self {
        let sandbox = Self(tempfile::tempdir().unwrap());
        fs::create_dir(sandbox.path("bin")).unwrap();
        sandbox.program("qemu-system-aarch64", &format!("echo 'QEMU emulator version {qemu}'"));
        let processes = sandbox.path("processes");
        let never_ends =
            format!("sleep 1000 &\necho $$ $! >{0}.new\nmv {0}.new {0}\nwait", processes.display());
        sandbox.program("apt-get", &never_ends);
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let file = self.path("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn setup(&self) -> Child {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.path("bin")).chain(std::env::split_paths(&path));
        Command::new(env!("CARGO_BIN_EXE_linmap-xtask"))
            .arg("setup")
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env("CARGO_TARGET_DIR", self.path("target"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// apt-get and its child, once they run.
    fn processes(&self) -> Vec<String> {
        wait_for("apt-get", || fs::read_to_string(self.path("processes")).ok())
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    fn apt_has_run(&self) -> bool {
        self.path("processes").exists()
    }
}

#[track_caller]
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn runs(process: &str) -> bool {
    let state = fs::read_to_string(Path::new("/proc").join(process).join("stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

fn terminate(child: &mut Child) -> Option<i32> {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    child.wait().unwrap().code()
}

/// apt's sources are read before apt is run.
fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release").unwrap_or_default().lines().any(|line| line == "ID=debian")
}

#[test]
fn apt_and_what_it_starts_end_with_a_terminated_run() {
    if !is_debian() {
        return;
    }
    let sandbox = Sandbox::new("10.0.0");
    let mut setup = sandbox.setup();
    let processes = sandbox.processes();
    assert!(processes.len() == 2 && processes.iter().all(|process| runs(process)));
    assert_eq!(terminate(&mut setup), Some(130));
    assert!(!processes.iter().any(|process| runs(process)), "{processes:?}");
}

#[test]
fn a_lock_that_another_apt_holds_is_waited_for_and_its_holder_is_named() {
    if !is_debian() {
        return;
    }
    let sandbox = Sandbox::new("10.0.0");
    let lists = sandbox.path("target/payload/apt/state/lists");
    fs::create_dir_all(&lists).unwrap();
    let lock = fs::File::create(lists.join("lock")).unwrap();
    fcntl_lock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut setup = sandbox.setup();
    let mut said = BufReader::new(setup.stderr.take().unwrap()).lines();
    let holder = format!("waiting for process {} (", std::process::id());
    assert!(said.any(|line| line.unwrap().starts_with(&holder)));
    assert!(!sandbox.apt_has_run());
    drop(lock);
    sandbox.processes();
    terminate(&mut setup);
}

#[test]
fn two_runs_wait_for_each_other() {
    if !is_debian() {
        return;
    }
    let sandbox = Sandbox::new("10.0.0");
    let mut first = sandbox.setup();
    sandbox.processes();
    let mut second = sandbox.setup();
    let mut said = BufReader::new(second.stderr.take().unwrap()).lines();
    assert!(
        said.any(|line| line.unwrap().starts_with("waiting for another run, which is downloading packages"))
    );
    assert_eq!(terminate(&mut second), Some(130));
    assert_eq!(terminate(&mut first), Some(130));
}

#[test]
fn a_qemu_that_is_too_old_and_comes_first_is_named_and_nothing_is_installed() {
    let sandbox = Sandbox::new("6.2.0 (Debian 1:6.2+dfsg-2)");
    let output = sandbox.setup().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let qemu = sandbox.path("bin/qemu-system-aarch64");
    assert!(said.contains(&format!("{} won't do: it is QEMU 6.2.0", qemu.display())), "{said}");
    assert!(!sandbox.apt_has_run(), "{said}");
}
