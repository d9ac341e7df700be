//! QEMU's monitor, by QMP.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::failure::Failure;

/// A connection to QEMU's monitor.
pub struct Monitor {
    from: BufReader<UnixStream>,
    to: UnixStream,
}

impl Monitor {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Result<Self, Failure> {
        let to = UnixStream::connect(path)?;
        let from = BufReader::new(to.try_clone()?);
        let mut monitor = Self { from, to };
        monitor.run("qmp_capabilities")?;
        Ok(monitor)
    }

    /// Runs a command without arguments.
    pub fn run(&mut self, command: &str) -> Result<(), Failure> {
        self.ask(&json!({ "execute": command })).map(|_| ())
    }

    /// What the monitor for people says.
    pub fn human(&mut self, command: &str) -> Result<String, Failure> {
        let arguments = json!({ "command-line": command });
        let said = self.ask(&json!({ "execute": "human-monitor-command", "arguments": arguments }))?;
        said.as_str().map(str::to_owned).ok_or_else(|| Failure::new("QEMU's monitor said no text"))
    }

    fn ask(&mut self, command: &Value) -> Result<Value, Failure> {
        writeln!(self.to, "{command}")?;
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line)? == 0 {
                return Err(Failure::new("QEMU ended before it was asked"));
            }
            let mut said: Value = serde_json::from_str(&line).map_err(Failure::new)?;
            if let Some(error) = said.get("error") {
                return Err(Failure::new(format_args!("QEMU's monitor: {error}")));
            }
            if let Some(value) = said.get_mut("return") {
                return Ok(value.take());
            }
            // A greeting or an event.
        }
    }
}
