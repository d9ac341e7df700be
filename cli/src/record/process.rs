//! QEMU as a process: it ends with us, and by Ctrl-C with all that it recorded.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::monitor::Monitor;
use crate::failure::Failure;

/// QEMU, which ends with us.
pub struct Qemu {
    child: Child,
    /// `None` until there is a connection.
    monitor: Arc<Mutex<Option<Monitor>>>,
}

static WAS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the user ended the run: by Ctrl-C, or by a signal to us.
pub fn was_interrupted() -> bool {
    WAS_INTERRUPTED.load(Ordering::Relaxed)
}

impl Qemu {
    /// Starts QEMU.
    ///
    /// # Errors
    /// It can't be run.
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        let monitor = Arc::new(Mutex::new(None::<Monitor>));
        let of_handler = Arc::clone(&monitor);
        // By its monitor QEMU ends as if the guest had: the plugin sends what it has.
        let _ = ctrlc::set_handler(move || {
            WAS_INTERRUPTED.store(true, Ordering::Relaxed);
            let mut monitor = of_handler.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = monitor.as_mut().map(|monitor| monitor.run("quit"));
        });
        let program = Path::new(command.get_program()).display().to_string();
        let child = command.spawn().map_err(|error| Failure::from(error).of(program))?;
        Ok(Self { child, monitor })
    }

    /// Waits for the plugin.
    ///
    /// # Errors
    /// QEMU ends without it, or the user ends the run.
    pub fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream, Failure> {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(did_not_start(status));
            }
            if was_interrupted() {
                return Err(Failure::new("interrupted before the guest ran"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Connects to its monitor, whose socket is at `path`.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn connect(&mut self, path: &Path) -> Result<(), Failure> {
        match Monitor::connect(path) {
            Ok(monitor) => {
                *self.monitor.lock().unwrap_or_else(PoisonError::into_inner) = Some(monitor);
                Ok(())
            }
            Err(error) => Err(self.why_not(error)),
        }
    }

    /// What its monitor answers.
    ///
    /// # Errors
    /// QEMU has ended, or does not know.
    pub fn asked<T>(&mut self, ask: impl FnOnce(&mut Monitor) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match monitor.as_mut() {
            Some(monitor) => ask(monitor),
            None => Err(Failure::new("QEMU's monitor is not there")),
        };
        drop(monitor);
        answer.map_err(|error| self.why_not(error))
    }

    /// Why it does not answer: its own end, if it ended.
    fn why_not(&mut self, error: Failure) -> Failure {
        match self.ends() {
            Ok(true) => self.child.wait().map_or(error, did_not_start),
            _ => error,
        }
    }

    /// Whether it ends within a second.
    ///
    /// # Errors
    /// The host does not say.
    pub fn ends(&mut self) -> Result<bool, Failure> {
        for _ in 0..100 {
            if self.child.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(false)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The host does not say.
    pub fn wait(&mut self) -> Result<ExitStatus, Failure> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn did_not_start(status: ExitStatus) -> Failure {
    if was_interrupted() {
        return Failure::new("interrupted before the guest ran");
    }
    Failure::new(format_args!("QEMU did not start: {status}")).hint("its own message is above")
}

/// The trace is empty.
pub fn recorded_nothing(status: ExitStatus) -> Failure {
    let why = if was_interrupted() {
        ": interrupted before the guest turned its MMU on".to_owned()
    } else if status.success() {
        ": the guest never turned its MMU on".to_owned()
    } else {
        format!(": QEMU ended with {status} before the guest turned its MMU on")
    };
    Failure::new(format_args!("nothing was recorded{why}"))
}
