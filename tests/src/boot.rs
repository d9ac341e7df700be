//! A run of `cargo xtask boot`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use linmap_model::Trace;
use linmap_model::trace::text;
use serde_json::{Map, Value};

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// `cargo xtask`, without a second build when it is xtask that runs the tests.
pub(crate) fn xtask() -> Command {
    let mut command = match env::var_os("LINMAP_XTASK") {
        Some(xtask) => Command::new(xtask),
        None => {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
            cargo.arg("xtask");
            cargo
        }
    };
    command.current_dir(workspace());
    command
}

/// Boots the example `name` with these options, separated by white space. Returns the exit code and
/// what was printed.
pub fn example(name: &str, options: &str) -> (Option<i32>, String) {
    let mut command = xtask();
    command.args(["example", name]).args(options.split_whitespace());
    let output = command.output().expect("xtask runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "");
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// Installs the tool below `prefix`. Returns what was printed.
///
/// # Panics
/// When it fails.
pub fn install(prefix: &Path) -> String {
    let output = xtask().args(["install", "--prefix"]).arg(prefix).output().expect("xtask runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A boot to be made.
#[derive(Debug)]
pub struct Boot {
    arguments: Vec<String>,
    json: tempfile::NamedTempFile,
    /// What is typed into the shell.
    lines: Option<tempfile::NamedTempFile>,
    /// How many bytes the kernel's text is made longer.
    padding: Option<u64>,
}

impl Boot {
    /// A boot with these options, separated by white space.
    pub fn new(options: &str) -> Self {
        let json = tempfile::NamedTempFile::new().expect("a temporary file");
        Self {
            arguments: options.split_whitespace().map(str::to_owned).collect(),
            json,
            lines: None,
            padding: None,
        }
    }

    /// A boot with these options that stops in the shell, where `lines` are typed; a command that
    /// fails ends nothing.
    pub fn typed(options: &str, lines: &str) -> Self {
        let mut boot = Self::new(options);
        boot.arguments.push("--shell".to_owned());
        boot.lines = Some(crate::tree::file(lines.as_bytes()));
        boot
    }

    /// With one more option and its value.
    #[must_use]
    pub fn with(mut self, option: &str, value: impl AsRef<Path>) -> Self {
        self.arguments.extend([option.to_owned(), value.as_ref().display().to_string()]);
        self
    }

    /// With a kernel that is built with `bytes` bytes more of text.
    #[must_use]
    pub fn with_padding(mut self, bytes: u64) -> Self {
        self.padding = Some(bytes);
        self
    }

    /// Stops at Linux's first line. A long run continues to its user space.
    #[must_use]
    pub fn until_linux_starts(self) -> Self {
        if crate::soak::is_soak() { self } else { self.with("--until", "first-line") }
    }

    /// Boots and waits for the end.
    pub fn run(self) -> Outcome {
        let mut command = xtask();
        command.arg("boot").args(&self.arguments).arg("--json").arg(self.json.path());
        if !self.arguments.iter().any(|argument| argument == "--timeout") {
            command.args(["--timeout", "240"]);
        }
        if let Some(bytes) = self.padding {
            command.env("LINMAP_IMAGE_PADDING", bytes.to_string());
        }
        match &self.lines {
            Some(lines) => command.stdin(lines.reopen().expect("the lines")),
            None => command.stdin(std::process::Stdio::null()),
        };
        let output = command.output().expect("xtask starts");
        let json = std::fs::read_to_string(self.json.path()).unwrap_or_default();
        let records = match serde_json::from_str(&json) {
            Ok(Value::Array(records)) => {
                records.into_iter().filter_map(|record| record.as_object().cloned()).collect()
            }
            _ => Vec::new(),
        };
        Outcome {
            code: output.status.code(),
            records,
            console: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A line for machines.
pub type Record = Map<String, Value>;

/// The number at `key`, or an address as the console has it.
#[track_caller]
pub fn number(record: &Record, key: &str) -> u64 {
    let value = &record[key];
    let address = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let found = value.as_u64().or_else(|| value.as_str().and_then(address));
    found.unwrap_or_else(|| panic!("{key} is not a number in {record:?}"))
}

/// How a boot ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code.
    pub code: Option<i32>,
    /// The kernel's lines for machines.
    pub records: Vec<Record>,
    /// The console.
    pub console: String,
    /// Standard error.
    pub errors: String,
}

impl Outcome {
    /// Panics with the console unless the boot succeeded.
    #[track_caller]
    pub fn expect_success(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.console, self.errors);
        self
    }

    /// What was done to the tables, as the model reads it.
    #[track_caller]
    pub fn trace(&self) -> Trace {
        let events = self.records.iter().filter_map(|record| record.get("event")?.as_str());
        let text: String = events.flat_map(|event| [event, "\n"]).collect();
        text::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns what was done to the tables. Panics with a minimal witness unless all of it was
    /// legal.
    #[track_caller]
    pub fn expect_legal_trace(&self) -> Trace {
        let trace = self.trace();
        if let Err(violation) = trace.check().expect("a machine that can be") {
            panic!("{violation}\n{}", trace.witness().unwrap().unwrap());
        }
        trace
    }

    /// Panics unless Linux was entered, and with its initrd unchanged if its user space was
    /// reached.
    #[track_caller]
    pub fn expect_linux(&self) -> &Self {
        self.expect_success();
        assert!(self.console.contains("Booting Linux on physical CPU"), "{}", self.console);
        if crate::soak::is_soak() {
            assert_eq!(self.user_space("initrd"), "ok", "{}", self.console);
        }
        self
    }

    /// Panics unless the boot failed with an `error=` line of this kind whose text holds all of
    /// `parts`.
    #[track_caller]
    pub fn expect_error(&self, kind: &str, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{}\n{}", self.console, self.errors);
        let record = self.with("error").unwrap_or_else(|| panic!("no error line: {}", self.console));
        assert_eq!(record["error"], kind, "{record:?}");
        let what = record["what"].as_str().unwrap_or_default();
        for part in parts {
            assert!(what.contains(part), "{what:?} does not say {part:?}");
        }
        assert!(self.console.contains(what), "the console says it to people too");
    }

    /// What Linux's user space says about `key`.
    #[track_caller]
    pub fn user_space(&self, key: &str) -> &str {
        let start = format!("linmap-userspace: {key}=");
        let value = self.console.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no line {start}: {}", self.console)).trim_end()
    }

    /// The first record that has `key`.
    pub fn with(&self, key: &str) -> Option<&Map<String, Value>> {
        self.records.iter().find(|record| record.contains_key(key))
    }

    /// The record of the phase named `name`.
    #[track_caller]
    pub fn phase(&self, name: &str) -> &Map<String, Value> {
        let phase = self.records.iter().find(|record| record.get("phase").is_some_and(|phase| phase == name));
        phase.unwrap_or_else(|| panic!("no phase {name}: {}\n{}", self.console, self.errors))
    }

    /// A number of the linear map's phase.
    #[track_caller]
    pub fn linear_map(&self, key: &str) -> u64 {
        let phase = self.phase("linear-map");
        phase[key].as_u64().unwrap_or_else(|| panic!("{key} is not a number in {phase:?}"))
    }
}

/// The flat Image of the kernel, built by `cargo xtask build`.
///
/// # Panics
/// When it can't be built.
pub fn own_image_path() -> PathBuf {
    static BUILD: std::sync::Once = std::sync::Once::new();
    BUILD.call_once(|| {
        let status = xtask().arg("build").status().expect("xtask starts");
        assert!(status.success(), "the kernel is built");
    });
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    target.join("linmap/Image")
}

/// linmap's own Image for pages of this size: `16k` or `64k`.
///
/// # Panics
/// When it can't be built.
pub fn own_image_of(granule: &str) -> PathBuf {
    let status = xtask().args(["build", "--granule", granule]).status().expect("xtask starts");
    assert!(status.success(), "the kernel is built");
    own_image_path().with_file_name(format!("Image-{granule}"))
}

/// The ELF file that linmap's own Image was made from.
///
/// # Panics
/// When it can't be built or read.
pub fn own_elf() -> Vec<u8> {
    std::fs::read(own_image_path().with_file_name("linmap-kernel.elf")).expect("the ELF file")
}

/// linmap's own Image.
///
/// # Panics
/// When it can't be built or read.
pub fn own_image() -> Vec<u8> {
    std::fs::read(own_image_path()).expect("the Image")
}
