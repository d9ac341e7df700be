//! Sessions in Markdown: the commands of all `console` blocks of a document, run as a reader would
//! run them, and their output beside what the document shows.
//!
//! In a block, `$ ` begins a command, `> ` right behind it continues the command, and all other
//! lines are what the command prints to either stream. `…` in a line stands for any text. A line
//! that is `…` alone stands for any number of lines.

use std::env;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::boot::workspace;
use crate::tool::tool;

/// Longest that a session may take, in seconds.
const PATIENCE: &str = "600";

/// What differs from session to session.
const ANYTHING: char = '…';

/// Runs the session of a document of the workspace in one shell, from a folder that is empty but
/// for the clone, which is `linmap` there.
///
/// With `LINMAP_WRITE_SESSIONS=1` output that differs is written into the document.
///
/// # Panics
/// When a command prints anything else than the document shows.
pub fn check_session(document: &str) {
    check_session_with(document, |_| {});
}

/// The same, after `prepare` has put into the folder what the document says is there.
///
/// # Panics
/// When a command prints anything else than the document shows.
pub fn check_session_with(document: &str, prepare: impl FnOnce(&Path)) {
    check_steps(document, prepare, |_| true);
}

/// The same with the blocks below these headings alone, where a document has others that need more
/// than a shell.
///
/// # Panics
/// When a command prints anything else than the document shows.
pub fn check_sections(document: &str, headings: &[&str], prepare: impl FnOnce(&Path)) {
    check_steps(document, prepare, |heading| headings.contains(&heading));
}

fn check_steps(document: &str, prepare: impl FnOnce(&Path), is_run: impl Fn(&str) -> bool) {
    let path = workspace().join(document);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{document}: {error}"));
    let mut steps = steps(&text);
    steps.retain(|step| is_run(step.heading));
    assert!(!steps.is_empty(), "{document} has no `console` block with a command");
    let folder = Folder::new();
    prepare(folder.0.path());
    let printed = folder.run(&steps);
    let wrong: Vec<_> = steps.iter().zip(&printed).filter(|(step, printed)| !step.shows(printed)).collect();
    if env::var_os("LINMAP_WRITE_SESSIONS").is_some_and(|value| value == "1") {
        fs::write(&path, with_output(&text, &wrong)).expect("the document can be written");
        return;
    }
    let mut report = String::new();
    for (step, printed) in &wrong {
        let Step { line, command, .. } = step;
        let _ = write!(report, "\n{document}:{line}: $ {command}\nprints\n{printed}\n");
    }
    assert!(wrong.is_empty(), "{report}\nLINMAP_WRITE_SESSIONS=1 writes it into {document}");
}

/// A command and what it prints.
#[derive(Debug, PartialEq, Eq)]
struct Step<'t> {
    /// The line of the document where it begins, from 1 on.
    line: usize,
    /// The heading that it is below.
    heading: &'t str,
    command: String,
    /// How many lines the command takes.
    command_lines: usize,
    shown: Vec<&'t str>,
}

impl Step<'_> {
    fn shows(&self, printed: &str) -> bool {
        let printed: Vec<_> = printed.lines().map(str::trim_end).collect();
        are_shown(&self.shown, &printed)
    }
}

/// The commands of all `console` blocks.
fn steps(text: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    let (mut is_inside, mut heading) = (false, "");
    for (index, line) in text.lines().enumerate() {
        if let (false, Some(title)) = (is_inside, line.strip_prefix("## ")) {
            heading = title;
        } else if line.starts_with("```") {
            is_inside = line == "```console";
        } else if let (true, Some(command)) = (is_inside, line.strip_prefix("$ ")) {
            let command = command.to_owned();
            steps.push(Step { line: index + 1, heading, command, command_lines: 1, shown: Vec::new() });
        } else if let (true, Some(step)) = (is_inside, steps.last_mut()) {
            match line.strip_prefix("> ") {
                Some(more) if step.shown.is_empty() => {
                    step.command += "\n";
                    step.command += more;
                    step.command_lines += 1;
                }
                _ => step.shown.push(line.trim_end()),
            }
        }
    }
    steps
}

/// Whether the lines `shown` stand for `printed`.
fn are_shown(shown: &[&str], printed: &[&str]) -> bool {
    match (shown.split_first(), printed.split_first()) {
        (None, first) => first.is_none(),
        (Some((gap, rest)), _) if gap.chars().eq([ANYTHING]) => {
            (0..=printed.len()).any(|from| are_shown(rest, &printed[from..]))
        }
        (Some((line, rest)), Some((first, after))) => is_shown(line, first) && are_shown(rest, after),
        (Some(_), None) => false,
    }
}

/// Whether the line `shown` stands for `printed`.
fn is_shown(shown: &str, printed: &str) -> bool {
    let Some((before, rest)) = shown.split_once(ANYTHING) else { return shown == printed };
    let Some(mut printed) = printed.strip_prefix(before) else { return false };
    let mut parts: Vec<_> = rest.split(ANYTHING).collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match printed.split_once(part) {
            Some((_, after)) => printed = after,
            None => return false,
        }
    }
    printed.ends_with(last)
}

/// The document, in which these steps show what they printed.
fn with_output(text: &str, wrong: &[(&Step<'_>, &String)]) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    for (step, printed) in wrong.iter().rev() {
        let from = step.line - 1 + step.command_lines;
        lines.splice(from..from + step.shown.len(), printed.lines().map(str::trim_end));
    }
    lines.join("\n") + "\n"
}

/// The folder of a session. Dropping it ends the machines that the session left running.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        let workspace = fs::canonicalize(workspace()).expect("the workspace");
        let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let clone = folder.0.path().join("linmap");
        match target.filter(|target| *target != workspace.join("target")) {
            None => symlink(&workspace, &clone).expect("a link"),
            Some(target) => {
                fs::create_dir(&clone).expect("room");
                for entry in fs::read_dir(&workspace).expect("the workspace").flatten() {
                    if entry.file_name() != "target" {
                        symlink(entry.path(), clone.join(entry.file_name())).expect("a link");
                    }
                }
                symlink(target, clone.join("target")).expect("a link");
            }
        }
        folder
    }

    /// What each command prints, to either stream.
    fn run(&self, steps: &[Step<'_>]) -> Vec<String> {
        let mut script = "exec 2>&1\n".to_owned();
        for Step { command, .. } in steps {
            // The next command sees the exit code of this one.
            let _ = write!(script, "{command}\n{{ code=$?; printf '\\n\\001\\n'; (exit $code); }}\n");
        }
        let file = crate::tree::file(script.as_bytes());
        let program = PathBuf::from(tool().get_program());
        let bin = program.parent().unwrap_or(Path::new("/")).to_owned();
        let inherited = env::var_os("PATH").unwrap_or_default();
        let paths = env::join_paths([bin].into_iter().chain(env::split_paths(&inherited)));
        let output = Command::new("timeout")
            .args([PATIENCE, "bash"])
            .arg(file.path())
            .current_dir(self.0.path())
            .env("PATH", paths.expect("a path"))
            .env_remove("CLICOLOR_FORCE")
            .env_remove("LINMAP_SOAK")
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let mut parts: Vec<_> = printed.split("\n\u{1}\n").map(str::to_owned).collect();
        let rest = parts.pop();
        assert_eq!(parts.len(), steps.len(), "after {PATIENCE} s: {parts:?} {rest:?}");
        parts
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let files = fs::read_dir(self.0.path()).into_iter().flatten().flatten();
        for file in files.filter(|file| file.path().extension().is_some_and(|end| end == "pid")) {
            let pid = fs::read_to_string(file.path()).unwrap_or_default();
            // The session may have ended it, and then QEMU has removed the file.
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Text.
```console
$ one \\
> --more
a 1 b
$ two
```
```
$ no console
```
```console
$ three
…
end
```
";

    #[test]
    fn a_step_is_a_command_and_the_lines_behind_it() {
        let steps = steps(TEXT);
        let found: Vec<_> = steps.iter().map(|step| (step.line, &*step.command, &step.shown[..])).collect();
        let none: &[&str] = &[];
        assert_eq!(
            found,
            [(3, "one \\\n--more", &["a 1 b"][..]), (6, "two", none), (12, "three", &["…", "end"][..])]
        );
    }

    #[test]
    fn only_an_ellipsis_stands_for_other_text() {
        let steps = steps(TEXT);
        assert!(steps[0].shows("a 1 b") && steps[1].shows(""));
        assert!(!steps[0].shows("a 2 b") && !steps[0].shows("") && !steps[1].shows("a"));
        assert!(steps[2].shows("end") && steps[2].shows("a\n\nb\nend"));
        assert!(!steps[2].shows("a\nend\nb"));
        assert!(is_shown("a … c … e", "a b c d e") && is_shown("a …", "a "));
        assert!(!is_shown("a … c … e", "a b d e") && !is_shown("a … e", "a b"));
    }

    #[test]
    fn output_is_written_in_the_place_of_what_was_shown() {
        let steps = steps(TEXT);
        let (one, three) = ("x\ny".to_owned(), "z".to_owned());
        let written = with_output(TEXT, &[(&steps[0], &one), (&steps[2], &three)]);
        assert_eq!(written, TEXT.replace("a 1 b", "x\ny").replace("…\nend", "z"));
    }

    #[test]
    fn a_session_is_one_shell_that_shows_both_streams_and_exit_codes() {
        let text = "```console\n$ cd linmap; (echo a >&2; exit 3)\n$ echo $?\n$ ls README.md\n```\n";
        assert_eq!(Folder::new().run(&steps(text)), ["a\n", "3\n", "README.md\n"]);
    }
}
