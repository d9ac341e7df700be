//! A machine of QEMU's that goes on while a test looks at it: by its console, by its monitor, and
//! with `linmap dump` by its gdb stub.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::tool::tool;

/// Longest that a machine may take for what a test waits for.
const PATIENCE: Duration = Duration::from_secs(180);

/// Longest that QEMU itself may take to start.
const START: Duration = Duration::from_secs(20);

/// The machine. Dropping it ends it.
#[derive(Debug)]
pub struct RunningGuest {
    qemu: Child,
    stdin: ChildStdin,
    console: Receiver<Vec<u8>>,
    text: String,
    folder: tempfile::TempDir,
    monitor: BufReader<UnixStream>,
}

impl RunningGuest {
    /// Starts QEMU with these options, separated by white space, and these.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(options: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = |name: &str| format!("unix:{},server,wait=off", folder.path().join(name).display());
        let mut qemu = Command::new("qemu-system-aarch64")
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none"])
            .args(options.split_whitespace())
            .args(more)
            .args(["-gdb", &socket("gdb"), "-qmp", &socket("qmp")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("QEMU starts");
        let (stdin, mut stdout) = (qemu.stdin.take().expect("a pipe"), qemu.stdout.take().expect("a pipe"));
        let (sender, console) = mpsc::channel();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            // An error ends the console as the end of the machine does.
            while let Ok(len @ 1..) = stdout.read(&mut piece)
                && sender.send(piece[..len].to_vec()).is_ok()
            {}
        });
        let monitor = connect(&folder.path().join("qmp"));
        let mut guest = Self { qemu, stdin, console, text: String::new(), folder, monitor };
        // Its answer means that QEMU listens everywhere.
        guest.qmp_all(&[json!({"execute": "qmp_capabilities"})]);
        guest
    }

    /// Where the gdb stub listens.
    pub fn gdb(&self) -> String {
        self.folder.path().join("gdb").display().to_string()
    }

    /// A file of this name that goes away with the machine.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Reads the console until what it says after its first `from` bytes is enough.
    ///
    /// # Panics
    /// When it never is.
    #[track_caller]
    pub fn wait_for(&mut self, from: usize, is_enough: impl Fn(&str) -> bool) -> &str {
        let started = Instant::now();
        while !is_enough(self.text.get(from..).unwrap_or_default()) {
            let piece = self.console.recv_timeout(PATIENCE.saturating_sub(started.elapsed()));
            let piece = piece.unwrap_or_else(|error| panic!("{error}: {}", self.text));
            self.text += &String::from_utf8_lossy(&piece);
        }
        self.text.get(from..).unwrap_or_default()
    }

    /// Types `keys`.
    ///
    /// # Panics
    /// When the machine has ended.
    pub fn send(&mut self, keys: &str) {
        self.stdin.write_all(keys.as_bytes()).expect("the console reads");
    }

    /// Types `command` into linmap's shell, and returns what it says.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn type_in(&mut self, command: &str) -> String {
        let from = self.text.len();
        self.send(&format!("{command}\r"));
        let said = self.wait_for(from, |text| {
            let end = text.find("linmap: done=").or_else(|| text.find("linmap: refused="));
            end.is_some_and(|end| text.get(end..).is_some_and(|rest| rest.contains("linmap> ")))
        });
        assert!(said.contains("linmap: done="), "{command}: {said}");
        said.to_owned()
    }

    /// A run of `linmap dump` of this guest with these arguments.
    ///
    /// # Panics
    /// When the tool does not start.
    pub fn dump_output(&self, arguments: &[&str]) -> Output {
        tool().args(["dump", "--gdb", &self.gdb()]).args(arguments).output().expect("linmap runs")
    }

    /// What `linmap dump` of this guest says with these arguments.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn dump(&self, arguments: &[&str]) -> String {
        let output = self.dump_output(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// What `linmap dump --json` of this guest says with these arguments more.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn dump_json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.dump(&[&["--json"], arguments].concat())).expect("JSON")
    }

    /// The answer to a command of QEMU's machine protocol.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Value {
        let answers = self.qmp_all(&[json!({"execute": command, "arguments": arguments})]);
        answers.into_iter().next().expect("an answer")
    }

    /// What the monitor for people says to each of these commands.
    ///
    /// # Panics
    /// When it says nothing.
    #[track_caller]
    pub fn monitor(&mut self, commands: impl IntoIterator<Item = String>) -> Vec<String> {
        let requests: Vec<_> = commands
            .into_iter()
            .map(|line| json!({"execute": "human-monitor-command", "arguments": {"command-line": line}}))
            .collect();
        let mut said = Vec::new();
        // QEMU reads no further while many answers wait.
        for some in requests.chunks(64) {
            let answers = self.qmp_all(some);
            said.extend(answers.iter().map(|answer| answer.as_str().expect("text").to_owned()));
        }
        said
    }

    fn qmp_all(&mut self, requests: &[Value]) -> Vec<Value> {
        for request in requests {
            writeln!(self.monitor.get_mut(), "{request}").expect("QEMU reads");
        }
        let mut answers = Vec::new();
        let mut line = String::new();
        while answers.len() < requests.len() {
            line.clear();
            assert_ne!(self.monitor.read_line(&mut line).expect("QEMU answers"), 0, "{requests:?}");
            let said: Value = serde_json::from_str(&line).expect("JSON");
            // The others are events, and the greeting.
            match said.get("return") {
                Some(answer) => answers.push(answer.clone()),
                None => assert!(said.get("error").is_none(), "{requests:?}: {said}"),
            }
        }
        answers
    }

    /// Stops the machine with its first CPU at exception level `el`, which it has to come to by
    /// itself.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn stop_at(&mut self, el: u8) {
        for _ in 0..1000 {
            self.qmp("stop", json!({}));
            let registers = self.monitor(["info registers".to_owned()]).remove(0);
            if registers.contains(&format!(" EL{el}")) {
                return;
            }
            self.qmp("cont", json!({}));
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the CPU does not come to EL{el}: {}", self.text);
    }
}

/// The monitor of a machine that starts.
fn connect(path: &Path) -> BufReader<UnixStream> {
    let started = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => {
                socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
                return BufReader::new(socket);
            }
            Err(error) => assert!(started.elapsed() < START, "QEMU does not start: {error}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for RunningGuest {
    fn drop(&mut self) {
        // It has ended, or has to.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
