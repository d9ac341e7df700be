//! Running a script of commands.

use core::fmt;

use crate::arch::print::Quoted;
use crate::arch::psci::power_off;
use crate::shell::commands::{execute, is_power_off};
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;
use crate::{report, say};

/// Runs the commands of a script, separated by `;` or line ends, up to the first that fails. Then
/// switches the machine off.
pub fn run(owners: &mut Owners, script: &[u8]) -> ! {
    let mut left = Commands(script);
    let mut count = 0;
    while let Some(line) = left.next() {
        say!("linmap> {line}");
        count += 1;
        if is_power_off(line) && left.clone().next().is_some() {
            say!("This ends the script: {}.", NotRun(&left));
            report!("script=failed command={} what={}", Quoted(line), Quoted(NotRun(&left)));
            power_off(owners.platform.psci);
        }
        if let Err(error) = run_line(owners, line) {
            report!("script=failed command={} what={}", Quoted(line), Quoted(&error));
            power_off(owners.platform.psci);
        }
    }
    report!("script=ok commands={count}");
    power_off(owners.platform.psci)
}

/// Runs a command. As in a Unix shell, a command after an exclamation mark has to fail.
fn run_line(owners: &mut Owners, line: &str) -> Result<(), CommandError> {
    match line.strip_prefix('!').map(str::trim) {
        None => execute(owners, line).map(|_| ()),
        Some(command) if execute(owners, command).is_err() => Ok(()),
        Some(_) => {
            say!("This should have been refused.");
            Err(CommandError::NotRefused)
        }
    }
}

/// The commands of a script that are left.
#[derive(Clone)]
struct Commands<'s>(&'s [u8]);

impl<'s> Iterator for Commands<'s> {
    type Item = &'s str;

    fn next(&mut self) -> Option<&'s str> {
        while !self.0.is_empty() {
            let end = self.0.iter().position(|byte| matches!(byte, b';' | b'\n'));
            let (line, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
            self.0 = rest.get(1..).unwrap_or_default();
            let line = core::str::from_utf8(line).unwrap_or("?").trim();
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }
}

/// Names the commands that are left.
struct NotRun<'c>(&'c Commands<'c>);

impl fmt::Display for NotRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not run")?;
        for (index, line) in self.0.clone().enumerate() {
            write!(f, "{} {line}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}
