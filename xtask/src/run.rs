//! Following a running QEMU to the end of the run.

use std::io::{Read, Write};
use std::process::ChildStdin;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::console::Console;
use crate::interruption::{self, Watching};
use crate::qemu::{Ended, Keyboard, Qemu, type_text};
use crate::verdict::{Verdict, Watch};

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// At its goal.
    Reached,
    /// Before its goal.
    Failed {
        /// In one line, or with what QEMU said.
        why: String,
        /// The console's last lines.
        last_lines: Vec<String>,
    },
    /// The user or the system ended us.
    Interrupted,
}

/// How long a run continues after it has reached its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Until Linux has powered the machine off, for some seconds at most.
    PowersOff,
    /// Until our kernel has, which it does at once where it can.
    Halts,
    /// As long as it takes to print what stands after the line that reached the goal.
    Prints,
    /// Not at all.
    Stops,
}

impl Afterwards {
    fn time(self) -> Duration {
        match self {
            Self::PowersOff => Duration::from_secs(10),
            Self::Halts => Duration::from_secs(2),
            Self::Prints => LAST_WORDS_TIME,
            Self::Stops => Duration::ZERO,
        }
    }
}

/// How long a failed run may continue to print.
const LAST_WORDS_TIME: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(50);

/// Shows the console and follows `watch` until the run has ended. QEMU may still run then, and is
/// to be dropped.
pub fn follow(
    qemu: &mut Qemu,
    watch: &mut Watch,
    keyboard: Keyboard,
    timeout: Option<Duration>,
    afterwards: Afterwards,
) -> Result<Ending> {
    let _watching = Watching::begin();
    let mut console = Console::default();
    let mut stdout = std::io::stdout();
    let mut deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut before = Verdict::Running;
    loop {
        if interruption::has_come() {
            return Ok(Ending::Interrupted);
        }
        match qemu.console().recv_timeout(POLL) {
            Ok(piece) => {
                stdout.write_all(&piece).and_then(|()| stdout.flush()).context("showing the console")?;
                console.receive(&piece).iter().for_each(|line| watch.line(line));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let Ended { status, said, stop } = qemu.ended()?;
                if !status.success() && !interruption::has_come() {
                    let why = format!("QEMU ended with {status}: {}", said.trim_end());
                    return Ok(Ending::Failed { why, last_lines: console.last_lines() });
                }
                watch.machine_stopped(&stop);
                return Ok(ending(watch.verdict(), &console, timeout));
            }
        }
        if *watch.verdict() != before {
            before = watch.verdict().clone();
            let left = match (watch.verdict(), keyboard) {
                (Verdict::Failed(_), _) => Some(LAST_WORDS_TIME),
                (Verdict::Reached, _) if afterwards == Afterwards::Stops => Some(Duration::ZERO),
                (Verdict::Reached, Keyboard::Nobody) => Some(afterwards.time()),
                (Verdict::Reached, Keyboard::Pipe) => {
                    if let Some(pipe) = qemu.keyboard() {
                        std::thread::spawn(|| type_standard_input(pipe));
                    }
                    None
                }
                (Verdict::Reached, Keyboard::Terminal) => {
                    watch.leave_to_user();
                    None
                }
                (Verdict::Running, _) => None,
            };
            let soon = left.map(|left| Instant::now() + left);
            deadline = deadline.into_iter().chain(soon).min();
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(match (watch.verdict(), keyboard) {
                // The shell's commands are the run: reaching the shell alone isn't enough.
                (Verdict::Reached, Keyboard::Pipe) => ending(&Verdict::Running, &console, timeout),
                (verdict, _) => ending(verdict, &console, timeout),
            });
        }
    }
}

fn ending(verdict: &Verdict, console: &Console, timeout: Option<Duration>) -> Ending {
    let why = match verdict {
        Verdict::Reached => return Ending::Reached,
        Verdict::Failed(why) => why.clone(),
        Verdict::Running => format!("no end within {} s", timeout.unwrap_or_default().as_secs()),
    };
    Ending::Failed { why, last_lines: console.last_lines() }
}

/// Types standard input into linmap's shell, then `poweroff`.
fn type_standard_input(mut pipe: ChildStdin) {
    let mut input = std::io::stdin().lock();
    let mut buffer = [0; 256];
    // An error is QEMU's end, which the follower sees as well.
    while let Ok(length @ 1..) = input.read(&mut buffer) {
        // The key for the end of a line is carriage return.
        let keys: Vec<_> =
            buffer[..length].iter().map(|&byte| if byte == b'\n' { b'\r' } else { byte }).collect();
        if type_text(&mut pipe, &keys).is_err() {
            return;
        }
    }
    let _ = type_text(&mut pipe, b"\rpoweroff\r");
}
