//! Standard output: colours on a terminal only, and a reader that leaves early is no error.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::thread;
use std::time::Duration;

use anstream::AutoStream;

use crate::failure::Failure;

/// How much a command says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verbosity {
    /// The result alone: no headings, notes or progress.
    Quiet,
    /// The result, and what a reader needs to judge it.
    Normal,
    /// Also what the command did to find it.
    Verbose,
}

/// A writer that waits where another program made it non-blocking: QEMU does so with a console that
/// it shares with `linmap record`.
struct Patient<W>(W);

impl<W: Write> Patient<W> {
    fn insist<T>(&mut self, attempt: impl Fn(&mut W) -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(1));
                }
                result => return result,
            }
        }
    }
}

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.insist(|to| to.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.insist(W::flush)
    }
}

/// Standard output.
///
/// When its reader has left, what is written vanishes: `linmap dump … | head` ends with the exit
/// code that the whole output would have had.
pub struct Output {
    to: BufWriter<Patient<AutoStream<StdoutLock<'static>>>>,
    verbosity: Verbosity,
    has_reader: bool,
}

impl Output {
    /// The output of a command that says as much as `verbosity` asks for.
    pub fn new(verbosity: Verbosity) -> Self {
        let to = BufWriter::with_capacity(1 << 16, Patient(AutoStream::auto(io::stdout().lock())));
        Self { to, verbosity, has_reader: true }
    }

    /// How much the command says.
    pub fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Whether anyone still reads: if not, a long command may stop.
    pub fn has_reader(&self) -> bool {
        self.has_reader
    }

    /// Writes `what` and a newline.
    ///
    /// # Errors
    /// What standard output reports, except that its reader has left.
    pub fn line(&mut self, what: impl fmt::Display) -> Result<(), Failure> {
        self.write(format_args!("{what}\n"))
    }

    /// Writes `what`.
    ///
    /// # Errors
    /// What standard output reports, except that its reader has left.
    pub fn write(&mut self, what: fmt::Arguments<'_>) -> Result<(), Failure> {
        if !self.has_reader {
            return Ok(());
        }
        let result = self.to.write_fmt(what);
        self.noticing(result)
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    /// What standard output reports, except that its reader has left.
    pub fn flush(&mut self) -> Result<(), Failure> {
        if !self.has_reader {
            return Ok(());
        }
        let result = self.to.flush();
        self.noticing(result)
    }

    fn noticing(&mut self, result: io::Result<()>) -> Result<(), Failure> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.has_reader = false;
                Ok(())
            }
            Err(error) => Err(Failure::from(error).of("standard output")),
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe that is full every second time, and takes three bytes at a time.
    #[derive(Default)]
    struct Full {
        taken: Vec<u8>,
        is_full: bool,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.is_full = !self.is_full;
            if self.is_full {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(3);
            self.taken.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_that_is_full_for_a_moment_receives_everything() {
        let mut patient = Patient(Full::default());
        patient.write_all(b"the guest: legal").and_then(|()| patient.flush()).unwrap();
        assert_eq!(patient.0.taken, b"the guest: legal");
    }
}
