//! The goal of a run, and what each console line means for it.

use crate::initramfs::{INITRD_LINE, USERSPACE_LINE};
use crate::record::{self, Record};
use crate::shutdown::Stop;

/// What Linux prints before anything else.
const FIRST_LINE: &str = "Booting Linux on physical CPU";
/// What Linux prints when it panics, before the reason.
const PANIC: &str = "Kernel panic - not syncing";

/// What Xen prints first on its own console.
const XEN_LINE: &str = "(XEN) Xen version";

/// The goal of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Linux's user space.
    Userspace,
    /// Linux's first line.
    FirstLine,
    /// Xen's first line.
    Xen,
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
    /// linmap has said that it enters the payload.
    payload_is_entered: bool,
    /// The user at the terminal decides what happens, and judges it.
    is_users: bool,
}

impl Watch {
    /// Follows a run with the goal `goal`.
    pub fn new(goal: Goal) -> Self {
        Self {
            goal,
            verdict: Verdict::Running,
            records: Vec::new(),
            end_is_asked_for: false,
            payload_is_entered: false,
            is_users: false,
        }
    }

    /// How far the run is.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// All lines for machines so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The goal is reached and a user types from now on: a `reboot` of theirs is not a failure.
    pub fn leave_to_user(&mut self) {
        self.is_users = true;
    }

    /// Takes in the next console line.
    pub fn line(&mut self, line: &str) {
        let told = match record::parse(line) {
            Some(Ok(record)) => {
                let is = |key: &str, value: &str| record.get(key).is_some_and(|found| found == value);
                self.end_is_asked_for |= is("end", "asked");
                self.payload_is_entered |= is("state", "kexec") || is("state", "crash-kexec");
                let told = self.judge(&record);
                self.records.push(record);
                self.unless_typed(told)
            }
            Some(Err(error)) => {
                let why = format!("an unreadable line for machines: {error}: {line}");
                self.unless_typed(Verdict::Failed(why))
            }
            None => self.judge_payload(line),
        };
        self.take(told);
    }

    /// QEMU ended by itself without an error.
    pub fn machine_stopped(&mut self, stop: &Stop) {
        let told = match (&self.verdict, stop) {
            (Verdict::Reached, Stop::PoweredOff) => Verdict::Reached,
            (Verdict::Running, Stop::PoweredOff)
                if self.goal == Goal::PowerOff && self.payload_is_entered =>
            {
                Verdict::Reached
            }
            (Verdict::Running, Stop::PoweredOff) => self.missed("powered off"),
            (Verdict::Running, Stop::Reset) => self.missed("was reset"),
            (Verdict::Running, Stop::Ended(reason)) => self.missed(&format!("was ended ({reason})")),
            (Verdict::Failed(_), _) => return,
            (Verdict::Reached, Stop::Reset) => {
                Verdict::Failed("the machine was reset, and did not power off".into())
            }
            (Verdict::Reached, Stop::Ended(reason)) => {
                Verdict::Failed(format!("the machine was ended ({reason}), and did not power off"))
            }
        };
        self.take(told);
    }

    /// The first failure is the cause.
    fn take(&mut self, told: Verdict) {
        if told != Verdict::Running && !self.is_users && !matches!(self.verdict, Verdict::Failed(_)) {
            self.verdict = told;
        }
    }

    /// In the shell a command of the user's may fail.
    fn unless_typed(&self, told: Verdict) -> Verdict {
        let is_in_shell = self.goal == Goal::Shell && self.verdict == Verdict::Reached;
        if is_in_shell { Verdict::Running } else { told }
    }

    fn missed(&self, how: &str) -> Verdict {
        let what = match self.goal {
            Goal::Userspace => "Linux's user space was reached",
            Goal::FirstLine => "Linux's first line was reached",
            Goal::Xen => "Xen's first line was reached",
            Goal::Done => "the line with state=done was reached",
            Goal::Script => "the end of the script was reached",
            Goal::Shell => "linmap's shell was reached",
            Goal::PowerOff if self.payload_is_entered => "the payload powered it off",
            Goal::PowerOff => "the payload was entered",
        };
        Verdict::Failed(format!("the machine {how} before {what}"))
    }

    fn judge_payload(&self, line: &str) -> Verdict {
        if let Some(at) = line.find(PANIC) {
            return Verdict::Failed(format!("the payload panicked: {}", line[at..].trim_end()));
        }
        let is_first = match self.goal {
            Goal::FirstLine => line.contains(FIRST_LINE),
            Goal::Xen => line.contains(XEN_LINE),
            _ => false,
        };
        if is_first {
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
                let why = text("what").map_or(String::new(), |what| format!(": {what}"));
                return Verdict::Failed(format!("the script's command '{command}' failed{why}"));
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
            (Goal::Xen, "(XEN) Xen version 4.17.5 (Debian 4.17.5+72-g01140da4e8-1)"),
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
        let line = r#"linmap: script=failed command="translate 0x0" what="usage""#;
        let failed = Verdict::Failed("the script's command 'translate 0x0' failed: usage".into());
        assert_eq!(after(Goal::Script, &[line]), failed);
        assert_eq!(after(Goal::Userspace, &[line]), failed);
    }

    #[test]
    fn a_line_for_machines_that_breaks_the_rules_fails_the_run() {
        assert!(matches!(after(Goal::Done, &["linmap: state"]), Verdict::Failed(_)));
    }

    fn stopped(goal: Goal, lines: &[&str], stop: &Stop) -> Verdict {
        let mut watch = Watch::new(goal);
        lines.iter().for_each(|line| watch.line(line));
        watch.machine_stopped(stop);
        watch.verdict().clone()
    }

    const ENTERED: &str = "linmap: state=kexec entry=0x40200000 mmu=on";
    const GOALS: [Goal; 7] =
        [Goal::Userspace, Goal::FirstLine, Goal::Xen, Goal::Done, Goal::Script, Goal::Shell, Goal::PowerOff];

    #[test]
    fn a_machine_that_stops_early_failed_and_how_it_stopped_is_told() {
        for goal in GOALS {
            for (stop, says) in [
                (Stop::PoweredOff, "powered off before"),
                (Stop::Reset, "was reset before"),
                (Stop::Ended("host-signal".into()), "host-signal"),
            ] {
                let Verdict::Failed(why) = stopped(goal, &[], &stop) else { panic!("{goal:?}, {stop:?}") };
                assert!(why.contains(says), "{goal:?}: {why}");
            }
        }
    }

    #[test]
    fn a_payload_with_its_own_user_space_succeeds_only_by_powering_off() {
        assert_eq!(stopped(Goal::PowerOff, &[ENTERED], &Stop::PoweredOff), Verdict::Reached);
        let reset = "the machine was reset before the payload powered it off";
        assert_eq!(stopped(Goal::PowerOff, &[ENTERED], &Stop::Reset), Verdict::Failed(reset.into()));
        let never = "the machine powered off before the payload was entered";
        assert_eq!(stopped(Goal::PowerOff, &[], &Stop::PoweredOff), Verdict::Failed(never.into()));
    }

    #[test]
    fn a_panic_of_the_payload_fails_every_run_that_enters_one_and_is_quoted() {
        let line = "[    0.62] Kernel panic - not syncing: No working init found.";
        let why = "the payload panicked: Kernel panic - not syncing: No working init found.";
        for goal in [Goal::Userspace, Goal::FirstLine, Goal::PowerOff] {
            assert_eq!(after(goal, &[ENTERED, line]), Verdict::Failed(why.into()), "{goal:?}");
        }
        let in_shell = after(Goal::Shell, &["linmap: shell=ready", ENTERED, line]);
        assert!(matches!(in_shell, Verdict::Failed(_)), "commands from a pipe");
    }

    #[test]
    fn a_reset_behind_the_goal_fails_too_unless_a_user_types() {
        let ok = ["linmap-userspace: ok"];
        assert_eq!(stopped(Goal::Userspace, &ok, &Stop::PoweredOff), Verdict::Reached);
        assert!(matches!(stopped(Goal::Userspace, &ok, &Stop::Reset), Verdict::Failed(_)));
        let mut watch = Watch::new(Goal::Userspace);
        watch.line(ok[0]);
        watch.leave_to_user();
        watch.line("Kernel panic - not syncing: sysrq triggered crash");
        watch.machine_stopped(&Stop::Reset);
        assert_eq!(watch.verdict(), &Verdict::Reached);
    }
}
