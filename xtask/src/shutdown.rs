//! Why QEMU's machine stopped, by its monitor for programs (QMP). The exit code does not tell: it
//! is 0 after a power-off, a reset and a signal alike.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::Value;

/// Events are sent once the greeting has been answered.
const HELLO: &[u8] = b"{\"execute\": \"qmp_capabilities\"}\n";

/// Why a machine stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The software on it switched it off.
    PoweredOff,
    /// The software on it reset it, which ends a QEMU with `-no-reboot`.
    Reset,
    /// Anything else, in QEMU's word, such as `host-signal`.
    Ended(String),
}

/// The monitor's two ends of a socket.
#[derive(Debug)]
pub struct Monitor {
    ours: UnixStream,
    theirs: OwnedFd,
}

impl Monitor {
    /// A socket whose other end a child inherits.
    pub fn new() -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("a socket for QEMU's monitor")?;
        fcntl_setfd(&theirs, FdFlags::empty()).context("a socket for QEMU's monitor")?;
        Ok(Self { ours, theirs: theirs.into() })
    }

    /// The options that put QEMU's monitor there.
    pub fn arguments(&self) -> [String; 4] {
        let socket = format!("socket,id=qmp,fd={}", self.theirs.as_raw_fd());
        ["-chardev".into(), socket, "-mon".into(), "chardev=qmp,mode=control".into()]
    }

    /// Listens until QEMU has ended. To be called once QEMU runs: our copy of its end is closed.
    pub fn listen(self) -> JoinHandle<Option<Stop>> {
        let Self { mut ours, theirs } = self;
        drop(theirs);
        std::thread::spawn(move || {
            // QEMU may have ended already. Then there is nothing to read either.
            let _ = ours.write_all(HELLO);
            BufReader::new(ours).lines().map_while(Result::ok).filter_map(|line| stop(&line)).last()
        })
    }
}

/// What a line of the monitor says of the machine's end.
fn stop(line: &str) -> Option<Stop> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["event"] != "SHUTDOWN" {
        return None;
    }
    Some(match message["data"]["reason"].as_str() {
        Some("guest-shutdown") => Stop::PoweredOff,
        Some("guest-reset") => Stop::Reset,
        reason => Stop::Ended(reason.unwrap_or("an unknown reason").to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn qemus_reasons_are_told_apart() {
        let event = |reason: &str| {
            json!({"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": reason}})
                .to_string()
        };
        assert_eq!(stop(&event("guest-shutdown")), Some(Stop::PoweredOff));
        assert_eq!(stop(&event("guest-reset")), Some(Stop::Reset));
        assert_eq!(stop(&event("host-signal")), Some(Stop::Ended("host-signal".into())));
        for other in
            [r#"{"return": {}}"#, r#"{"event": "RESET", "data": {"reason": "guest-reset"}}"#, "x", ""]
        {
            assert_eq!(stop(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_event_before_the_end_is_what_counts() {
        let monitor = Monitor::new().unwrap();
        let mut qemu = UnixStream::from(monitor.theirs.try_clone().unwrap());
        let listening = monitor.listen();
        qemu.write_all(
            b"{\"QMP\": {}}\n{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n",
        )
        .unwrap();
        drop(qemu);
        assert_eq!(listening.join().unwrap(), Some(Stop::Reset));
    }
}
