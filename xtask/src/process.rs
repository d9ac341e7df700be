//! Running other programs to their end.

use std::ffi::OsStr;
use std::process::{Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::children::Running;

/// Runs a command without standard input and gives its output, whatever its exit status.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    start(command)?.output().with_context(|| format!("running {}", line(command)))
}

/// Runs a command without standard input to its end, with its output shown as it comes.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command.stdin(Stdio::null());
    start(command)?.wait().with_context(|| format!("running {}", line(command)))
}

/// Starts a command.
pub fn start(command: &mut Command) -> Result<Running> {
    Running::start(command).with_context(|| format!("running {}", line(command)))
}

/// Runs a command and gives its standard output. Anything but success is an error that shows what
/// the command said.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let said =
            String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
        bail!("{} failed ({}):\n{}", line(command), output.status, said.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", line(command)))
}

/// Whether the command can be started and succeeds; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok_and(|output| output.status.success())
}

/// The command as one would type it into a shell.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("apt-get");
        command.args(["-o", "Dir::Etc::sourcelist=/a b/x.sources", "it's", ""]);
        assert_eq!(line(&command), r"apt-get -o 'Dir::Etc::sourcelist=/a b/x.sources' 'it'\''s' ''");
    }

    #[test]
    fn a_failing_command_shows_what_it_said() {
        let error =
            capture(Command::new("sh").args(["-c", "echo reason >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("reason") && error.contains("exit status: 3"), "{error}");
    }
}
