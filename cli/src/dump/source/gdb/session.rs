//! A session with QEMU's stub: what it is asked, and how it is left.

use super::description::{Numbers, architecture, includes};
use super::link::Link;
use super::packet::{from_hex, to_hex};
use crate::failure::Failure;

/// What happens to the guest at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtEnd {
    /// It goes on.
    GoesOn,
    /// It stays stopped.
    StayStopped,
}

/// Most bytes that the description of a target, or an answer of the monitor, may have.
const LONGEST_TEXT: usize = 16 << 20;
/// Most files of a description.
const FILES: usize = 64;

/// A session. Dropping it puts the guest back as it was found.
pub struct Session {
    link: Link,
    at_end: AtEnd,
    /// The mode in which the stub read memory before.
    mode_before: Option<u8>,
    longest_packet: usize,
}

impl Session {
    /// Connects to QEMU's stub at `place`, which stops the guest.
    ///
    /// # Errors
    /// Nobody listens there, or it isn't QEMU's stub.
    pub fn connect(place: &str) -> Result<Self, Failure> {
        let link = Link::connect(place)?;
        let mut session = Self { link, at_end: AtEnd::GoesOn, mode_before: None, longest_packet: 0 };
        let supported = session.link.ask(b"qSupported:xmlRegisters=aarch64")?;
        let supported = String::from_utf8_lossy(&supported).into_owned();
        let size = supported.split(';').find_map(|feature| feature.strip_prefix("PacketSize="));
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
        session.longest_packet = size.unwrap_or(0x400).clamp(0x40, 0x2_0000);
        if !supported.split(';').any(|feature| feature == "qXfer:features:read+") {
            let failure = session.failure("the gdb stub does not describe its registers");
            return Err(failure.hint("QEMU's does: start the guest with -gdb"));
        }
        Ok(session)
    }

    /// What happens to the guest at the end.
    pub fn at_end(&mut self, what: AtEnd) {
        self.at_end = what;
    }

    /// A failure about the stub.
    pub fn failure(&self, what: impl std::fmt::Display) -> Failure {
        self.link.failure(what)
    }

    /// Sends `packets` at once. There are as many [answers](Self::answer).
    ///
    /// # Errors
    /// The stub has gone away.
    pub fn send(&mut self, packets: &[Vec<u8>]) -> Result<(), Failure> {
        self.link.send(packets)
    }

    /// The next answer.
    ///
    /// # Errors
    /// The stub has gone away, or doesn't answer.
    pub fn answer(&mut self) -> Result<Vec<u8>, Failure> {
        self.link.answer()
    }

    /// How many bytes one packet reads. Each takes two digits.
    pub fn longest_read(&self) -> usize {
        self.longest_packet / 2
    }

    /// The numbers of the guest's registers.
    ///
    /// # Errors
    /// The guest isn't an arm64 one.
    pub fn registers(&mut self) -> Result<Numbers, Failure> {
        let target = self.file("target.xml")?;
        match architecture(&target) {
            Some("aarch64") => {}
            other => {
                let of = other.unwrap_or("an unknown architecture");
                let failure = self.failure(format_args!("the guest is {of}, not aarch64"));
                return Err(failure.hint("its CPU has to be an arm64 one: -cpu cortex-a72 or -cpu max"));
            }
        }
        let mut numbers = Numbers::default();
        numbers.add(&target);
        for name in includes(&target).iter().take(FILES) {
            numbers.add(&self.file(name)?);
        }
        Ok(numbers)
    }

    /// A file of the target's description, which comes in pieces.
    fn file(&mut self, name: &str) -> Result<String, Failure> {
        let mut file = Vec::new();
        loop {
            let piece = self.longest_packet - 4;
            let request = format!("qXfer:features:read:{name}:{:x},{piece:x}", file.len());
            let answer = self.link.ask(request.as_bytes())?;
            match answer.split_first() {
                Some((b'm', rest)) if !rest.is_empty() && file.len() < LONGEST_TEXT => {
                    file.extend_from_slice(rest);
                }
                Some((b'l', rest)) => {
                    file.extend_from_slice(rest);
                    return Ok(String::from_utf8_lossy(&file).into_owned());
                }
                _ => {
                    return Err(
                        self.failure(format_args!("the stub does not describe its registers: {name}"))
                    );
                }
            }
        }
    }

    /// What QEMU's monitor says to `command`.
    ///
    /// # Errors
    /// The stub has no monitor: it isn't QEMU's.
    pub fn monitor(&mut self, command: &str) -> Result<String, Failure> {
        let mut said = Vec::new();
        let mut answer = self.link.ask(format!("qRcmd,{}", to_hex(command.as_bytes())).as_bytes())?;
        loop {
            match answer.split_first() {
                Some((b'O', _)) if answer == b"OK" => return Ok(String::from_utf8_lossy(&said).into_owned()),
                Some((b'O', digits))
                    if said.len() < LONGEST_TEXT && from_hex(digits, &mut said).is_some() => {}
                _ => {
                    let failure = self.failure(format_args!("the stub has no monitor for {command:?}"));
                    return Err(failure.hint("it is not QEMU's: start the guest with QEMU's -gdb"));
                }
            }
            answer = self.link.answer()?;
        }
    }

    /// What has to be said of a guest that is stopped with this status, which decides whether it
    /// goes on.
    ///
    /// Connecting stops a guest that ran, and then the status is that of one which someone had
    /// stopped before. All others did not run.
    pub fn note_status(&mut self, status: &str, keep_stopped: bool) -> Option<String> {
        let status = status.trim();
        let status = status.strip_prefix("VM status: ").unwrap_or(status);
        if keep_stopped {
            return Some("the guest stays stopped".to_owned());
        }
        if status == "paused" || status == "running" {
            return Some("the guest is stopped while its tables are read, and goes on then".to_owned());
        }
        self.at_end = AtEnd::StayStopped;
        Some(format!("the guest did not run and stays as it is: {status}"))
    }

    /// The names of the guest's CPUs.
    ///
    /// # Errors
    /// The stub does not tell.
    pub fn cpus(&mut self) -> Result<Vec<String>, Failure> {
        let mut cpus = Vec::new();
        let mut answer = self.link.ask(b"qfThreadInfo")?;
        loop {
            match answer.split_first() {
                Some((b'm', names)) if cpus.len() < LONGEST_TEXT => {
                    let names = String::from_utf8_lossy(names).into_owned();
                    cpus.extend(names.split(',').map(str::to_owned));
                }
                Some((b'l', _)) => return Ok(cpus),
                _ => return Err(self.failure("the stub does not tell its CPUs")),
            }
            answer = self.link.ask(b"qsThreadInfo")?;
        }
    }

    /// Makes [`register`](Self::register) that of this CPU.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn choose_cpu(&mut self, id: &str) -> Result<(), Failure> {
        match self.link.ask(format!("Hg{id}").as_bytes())?.as_slice() {
            b"OK" => Ok(()),
            _ => Err(self.failure(format_args!("the stub does not give the registers of its CPU {id}"))),
        }
    }

    /// The value of a register of at most 64 bits.
    ///
    /// # Errors
    /// The stub does not give it.
    pub fn register(&mut self, number: u64) -> Result<u64, Failure> {
        let answer = self.link.ask(format!("p{number:x}").as_bytes())?;
        let mut bytes = Vec::new();
        match from_hex(&answer, &mut bytes) {
            Some(()) if (1..=8).contains(&bytes.len()) => {
                Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
            }
            _ => Err(self.failure(format_args!("the stub does not give register {number}"))),
        }
    }

    /// Makes the stub read memory by physical address.
    ///
    /// # Errors
    /// It can't.
    pub fn read_physically(&mut self) -> Result<(), Failure> {
        let before = self.link.ask(b"qqemu.PhyMemMode")?;
        let ([mode @ (b'0' | b'1')], b"OK") =
            (before.as_slice(), self.link.ask(b"Qqemu.PhyMemMode:1")?.as_slice())
        else {
            let failure = self.failure("the gdb stub does not read physical memory");
            return Err(failure.hint("QEMU's does, from version 4.1 on"));
        };
        self.mode_before = Some(*mode);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(mode) = self.mode_before {
            self.link.farewell(format!("Qqemu.PhyMemMode:{}", char::from(mode)).as_bytes());
        }
        // A debugger before this one may have left the stub in the mode of several processes, where
        // it has to be told which. QEMU's first CPUs are process 1.
        if self.at_end == AtEnd::GoesOn && self.link.farewell(b"D") {
            self.link.farewell(b"D;1");
        }
    }
}
