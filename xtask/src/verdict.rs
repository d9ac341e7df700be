//! The goal of a run, and what each console line means for it.

use crate::initramfs::{INITRD_LINE, USERSPACE_LINE};
use crate::record::{self, Record};

/// What Linux prints before anything else.
const FIRST_LINE: &str = "Booting Linux on physical CPU";

/// The goal of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Linux's user space.
    Userspace,
    /// Linux's first line.
    FirstLine,
    /// `linmap: state=done`, printed by the last kernel of a run without Linux.
    Done,
    /// All commands of a script.
    Script,
    /// linmap's shell. After that the user decides when it ends.
    Shell,
    /// The payload is the user's own: all it can show is that the machine powers off.
    PowerOff,
}

/// How far the run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The goal lies ahead.
    Running,
    /// The goal was reached.
    Reached,
    /// The goal can't be reached any more, and why.
    Failed(String),
}

/// Follows the console of one run.
#[derive(Debug)]
pub struct Watch {
    goal: Goal,
    verdict: Verdict,
    records: Vec<Record>,
    /// A shell command asked the kernel to panic or fault, so that is not a failure.
    end_is_asked_for: bool,
}

impl Watch {
    /// Follows a run with the goal `goal`.
    pub fn new(goal: Goal) -> Self {
        Self { goal, verdict: Verdict::Running, records: Vec::new(), end_is_asked_for: false }
    }

    /// How far the run is.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// All lines for machines so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Takes in the next console line.
    pub fn line(&mut self, line: &str) {
        let told = match record::parse(line) {
            Some(Ok(record)) => {
                self.end_is_asked_for |= record.get("end").is_some_and(|end| end == "asked");
                let told = self.judge(&record);
                self.records.push(record);
                told
            }
            Some(Err(error)) => Verdict::Failed(format!("an unreadable line for machines: {error}: {line}")),
            None => self.judge_payload(line),
        };
        // The first failure is the cause. In the shell what fails afterwards is for the user to
        // judge.
        let in_shell = self.goal == Goal::Shell && self.verdict == Verdict::Reached;
        if told != Verdict::Running && !in_shell && !matches!(self.verdict, Verdict::Failed(_)) {
            self.verdict = told;
        }
    }

    /// QEMU ended by itself without an error: the machine powered off or reset.
    pub fn machine_stopped(&mut self) {
        if self.verdict == Verdict::Running {
            self.verdict = match self.goal {
                Goal::PowerOff => Verdict::Reached,
                Goal::Userspace => missing("Linux's user space"),
                Goal::FirstLine => missing("Linux's first line"),
                Goal::Done => missing("the line with state=done"),
                Goal::Script => missing("the end of the script"),
                Goal::Shell => missing("linmap's shell"),
            };
        }
    }

    fn judge_payload(&self, line: &str) -> Verdict {
        if self.goal == Goal::FirstLine && line.contains(FIRST_LINE) {
            return Verdict::Reached;
        }
        if let Some(file) = corrupt_file(line) {
            return Verdict::Failed(format!("Linux got an initrd whose {file} is not what was packed"));
        }
        // Another CPU of the payload may print after it on the same line.
        let reached = line.starts_with(USERSPACE_LINE) && self.goal == Goal::Userspace;
        if reached { Verdict::Reached } else { Verdict::Running }
    }

    fn judge(&self, record: &Record) -> Verdict {
        let text = |key: &str| record.get(key).map(plain);
        let error = text("error")
            .filter(|kind| !(self.end_is_asked_for && ["panic", "exception"].contains(&kind.as_str())));
        if let Some(kind) = error {
            return Verdict::Failed(text("what").map_or(kind.clone(), |what| format!("{kind}: {what}")));
        }
        match (text("script").as_deref(), self.goal) {
            (Some("ok"), Goal::Script) => return Verdict::Reached,
            (Some("failed"), _) => {
                let command = text("command").unwrap_or_default();
                return Verdict::Failed(format!("the script's command '{command}' failed"));
            }
            _ => {}
        }
        let done = text("state").as_deref() == Some("done") && self.goal == Goal::Done;
        let shell = text("shell").as_deref() == Some("ready") && self.goal == Goal::Shell;
        if done || shell { Verdict::Reached } else { Verdict::Running }
    }
}

/// The file of Linux's initramfs that /init found corrupt.
fn corrupt_file(line: &str) -> Option<&str> {
    line.strip_prefix(INITRD_LINE)?.strip_prefix("corrupt").map(str::trim)
}

fn missing(what: &str) -> Verdict {
    Verdict::Failed(format!("the machine stopped before {what} was reached"))
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(goal: Goal, lines: &[&str]) -> Verdict {
        let mut watch = Watch::new(goal);
        lines.iter().for_each(|line| watch.line(line));
        watch.verdict().clone()
    }

    #[test]
    fn each_goal_is_reached_by_its_own_line_only() {
        let lines = [
            (Goal::Userspace, "linmap-userspace: ok"),
            (Goal::FirstLine, "[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x000f0510]"),
            (Goal::Done, "linmap: state=done generation=1"),
            (Goal::Script, "linmap: script=ok commands=2"),
            (Goal::Shell, "linmap: shell=ready"),
        ];
        for (goal, _) in lines {
            for (other, line) in lines {
                let expected = if goal == other { Verdict::Reached } else { Verdict::Running };
                assert_eq!(after(goal, &["linmap: phase=entry ticks=1", line]), expected, "{goal:?}: {line}");
            }
        }
    }

    #[test]
    fn user_space_is_reached_when_another_cpu_prints_behind_it() {
        let line = "linmap-userspace: ok[    3.49] reboot: Power down";
        assert_eq!(after(Goal::Userspace, &[line]), Verdict::Reached);
    }

    #[test]
    fn a_corrupt_initrd_fails_the_run_though_user_space_is_reached() {
        let ok = "linmap-userspace: ok";
        assert_eq!(after(Goal::Userspace, &["linmap-userspace: initrd=ok", ok]), Verdict::Reached);
        let corrupt = after(Goal::Userspace, &["linmap-userspace: initrd=corrupt bin/busybox", ok]);
        let why = "Linux got an initrd whose bin/busybox is not what was packed";
        assert_eq!(corrupt, Verdict::Failed(why.into()));
    }

    #[test]
    fn an_error_fails_any_run_and_says_what_the_kernel_said() {
        for goal in [Goal::Userspace, Goal::FirstLine, Goal::Done, Goal::Script, Goal::Shell, Goal::PowerOff]
        {
            let lines = [r#"linmap: error=dtb what="bad magic 0x0 at 0x44000000""#, "linmap: error=later"];
            assert_eq!(after(goal, &lines), Verdict::Failed("dtb: bad magic 0x0 at 0x44000000".into()));
        }
        assert_eq!(after(Goal::Done, &["linmap: error=panic"]), Verdict::Failed("panic".into()));
    }

    #[test]
    fn an_end_that_was_asked_for_is_no_failure_and_another_error_after_it_is() {
        let asked = ["linmap: end=asked cpu=1", "linmap: error=panic cpu=1", "linmap: error=exception cpu=1"];
        assert_eq!(after(Goal::Userspace, &asked), Verdict::Running);
        let lines = [&asked[..], &["linmap-userspace: ok"]].concat();
        assert_eq!(after(Goal::Userspace, &lines), Verdict::Reached);
        let lines = [&asked[..], &["linmap: error=verify"]].concat();
        assert_eq!(after(Goal::Userspace, &lines), Verdict::Failed("verify".into()));
    }

    #[test]
    fn an_error_after_the_goal_still_fails_the_run_except_in_the_shell() {
        let late = "linmap: error=exception";
        assert!(matches!(after(Goal::Done, &["linmap: state=done", late]), Verdict::Failed(_)));
        assert_eq!(after(Goal::Shell, &["linmap: shell=ready", late]), Verdict::Reached);
    }

    #[test]
    fn a_failed_script_names_its_command() {
        let line = r#"linmap: script=failed command="translate 0x0""#;
        let failed = Verdict::Failed("the script's command 'translate 0x0' failed".into());
        assert_eq!(after(Goal::Script, &[line]), failed);
        assert_eq!(after(Goal::Userspace, &[line]), failed);
    }

    #[test]
    fn a_line_for_machines_that_breaks_the_rules_fails_the_run() {
        assert!(matches!(after(Goal::Done, &["linmap: state"]), Verdict::Failed(_)));
    }

    #[test]
    fn a_machine_that_stops_early_failed_unless_that_was_the_goal() {
        for goal in [Goal::Userspace, Goal::FirstLine, Goal::Done, Goal::Script, Goal::Shell] {
            let mut watch = Watch::new(goal);
            watch.machine_stopped();
            assert!(matches!(watch.verdict(), Verdict::Failed(_)), "{goal:?}");
        }
        let mut watch = Watch::new(Goal::PowerOff);
        watch.machine_stopped();
        assert_eq!(watch.verdict(), &Verdict::Reached);
    }
}
