//! Programs that we run: each in a process group of its own, which ends with us.
//!
//! A signal that ends only us would leave apt running, with its lock. So we pass it on: Ctrl-C,
//! SIGTERM and SIGHUP end every group, first with SIGTERM and after some seconds with SIGKILL. QEMU
//! is not among them: it may need the terminal, and ends by itself (see `qemu`).

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// How long a group may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// The groups that run. Once they are being ended, no other starts.
static GROUPS: Mutex<Groups> = Mutex::new(Groups { running: BTreeSet::new(), are_ended: false });

struct Groups {
    running: BTreeSet<u32>,
    are_ended: bool,
}

fn groups() -> MutexGuard<'static, Groups> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running program and what it starts. Dropped, all of them are ended.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    group: u32,
}

impl Running {
    /// Starts `command` in a group of its own.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut groups = groups();
        if groups.are_ended {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let child = command.process_group(0).spawn()?;
        let group = child.id();
        groups.running.insert(group);
        Ok(Self { child: Some(child), group })
    }

    /// Its standard output, once, where that is a pipe.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.as_mut()?.stdout.take()
    }

    /// Its standard error, once, where that is a pipe.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.as_mut()?.stderr.take()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> io::Result<ExitStatus> {
        let status = self.child.as_mut().map(Child::wait).transpose()?;
        self.is_over();
        status.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How it has ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        if status.is_some() {
            self.is_over();
        }
        Ok(status)
    }

    /// Waits for its end, and gives what it said through pipes.
    pub fn output(mut self) -> io::Result<Output> {
        let output = self.child.take().map(Child::wait_with_output).transpose()?;
        self.is_over();
        output.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn is_over(&mut self) {
        groups().running.remove(&self.group);
        self.child = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if groups().running.remove(&self.group) {
            end(&[self.group], |_| _ = self.child.as_mut().map(Child::try_wait));
        }
    }
}

/// Ends all groups, and lets no other start.
pub fn end_all() {
    let running: Vec<u32> = {
        let mut groups = groups();
        groups.are_ended = true;
        groups.running.iter().copied().collect()
    };
    // Whoever waits for them reaps them.
    end(&running, |_| {});
}

/// Ends these groups; `reap` is called while they end.
fn end(groups: &[u32], mut reap: impl FnMut(u32)) {
    let pids = groups.iter().filter_map(|&group| Some((group, Pid::from_raw(group.cast_signed())?)));
    let mut left: Vec<_> = pids.collect();
    // A group that has ended already can't be signalled.
    left.iter().for_each(|(_, pid)| _ = kill_process_group(*pid, Signal::TERM));
    let started = Instant::now();
    while !left.is_empty() && started.elapsed() < PATIENCE {
        left.retain(|(group, pid)| {
            reap(*group);
            test_kill_process_group(*pid).is_ok()
        });
        std::thread::sleep(POLL);
    }
    for (group, pid) in left {
        let _ = kill_process_group(pid, Signal::KILL);
        reap(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::Stdio;

    /// A shell with a child of its own, whose process it names.
    fn family(script: &str) -> (Running, String) {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running::start(&mut shell).unwrap();
        let mut child = String::new();
        BufReader::new(running.stdout().unwrap()).read_line(&mut child).unwrap();
        (running, child.trim().to_owned())
    }

    fn runs(process: &str) -> bool {
        let state =
            std::fs::read_to_string(Path::new("/proc").join(process).join("stat")).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    }

    #[test]
    fn what_a_program_has_started_ends_with_it_when_it_is_dropped() {
        let (running, grandchild) = family("sleep 1000 & echo $!; wait");
        assert!(runs(&grandchild));
        drop(running);
        assert!(!runs(&grandchild));
    }

    #[test]
    fn a_program_that_has_ended_by_itself_gives_its_status_and_output() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo said; exit 3"]).stdout(Stdio::piped());
        let output = Running::start(&mut shell).unwrap().output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"said\n"[..]));
    }
}
