//! What is said to a guest on its console, and what it says.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitStatus;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::children::Running;
use crate::console::Console;
use crate::workload::FAILED;

/// What is typed, and what has to come.
#[derive(Debug)]
pub struct Script {
    /// What the guest says before its end.
    pub goal: &'static str,
    /// What is typed, once the console has shown the first.
    pub typed: Option<(&'static str, &'static str)>,
}

impl Script {
    /// Nothing is typed.
    pub fn ends_with(goal: &'static str) -> Self {
        Self { goal, typed: None }
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Session {
    /// How the recorder ended.
    pub status: ExitStatus,
    /// Whether the guest said the goal.
    pub reached: bool,
    /// The first phase that it said it failed in.
    pub failed: Option<String>,
}

impl Session {
    /// Waits for `program`, whose QEMU has its console at `console`, and types. The console is
    /// shown.
    ///
    /// # Errors
    /// It did not end within `patience`, and was ended.
    pub fn run(
        mut program: Running,
        console: &UnixListener,
        script: &Script,
        patience: Duration,
    ) -> Result<Self> {
        let started = Instant::now();
        console.set_nonblocking(true)?;
        let (pieces, received) = channel();
        let mut shown = Console::default();
        let mut keyboard = None;
        let mut typed = script.typed;
        let (mut reached, mut failed) = (false, None);
        let status = loop {
            if started.elapsed() > patience {
                bail!("the guest did not end within {} s", patience.as_secs());
            }
            if keyboard.is_none()
                && let Ok((socket, _)) = console.accept()
            {
                socket.set_nonblocking(false)?;
                let mut output = socket.try_clone()?;
                let pieces = pieces.clone();
                thread::spawn(move || read(&mut output, &pieces));
                keyboard = Some(socket);
            }
            let piece = match received.recv_timeout(POLL) {
                Ok(piece) => piece,
                // What it printed last is received before its end is seen.
                Err(_) => match program.try_wait()? {
                    Some(status) => break status,
                    None => continue,
                },
            };
            std::io::stderr().write_all(&piece)?;
            for line in shown.receive(&piece) {
                reached |= line.contains(script.goal);
                if failed.is_none()
                    && let Some((_, phase)) = line.split_once(FAILED)
                {
                    failed = Some(phase.to_owned());
                }
            }
            let line = shown.last_lines().pop().unwrap_or_default();
            reached |= line.contains(script.goal);
            if let Some((prompt, answer)) = typed
                && line.contains(prompt)
                && let Some(keyboard) = &mut keyboard
            {
                // A guest that has ended reads no more.
                let _ = keyboard.write_all(answer.as_bytes());
                typed = None;
            }
        };
        Ok(Self { status, reached, failed })
    }
}

/// How often it is looked whether a program has ended.
const POLL: Duration = Duration::from_millis(200);

/// Sends all that comes, up to the end.
fn read(from: &mut UnixStream, pieces: &Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if pieces.send(buffer[..count].to_vec()).is_err() {
            break;
        }
    }
}
