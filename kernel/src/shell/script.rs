//! Running a script of commands.

use crate::arch::print::Quoted;
use crate::arch::psci::power_off;
use crate::shell::commands::execute;
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;
use crate::{report, say};

/// Runs the commands of a script, separated by `;` or line ends, up to the first that fails. Then
/// switches the machine off.
pub fn run(owners: &mut Owners, script: &[u8]) -> ! {
    let mut count = 0;
    for line in script.split(|byte| matches!(byte, b';' | b'\n')) {
        let line = core::str::from_utf8(line).unwrap_or("?").trim();
        if line.is_empty() {
            continue;
        }
        say!("linmap> {line}");
        count += 1;
        if let Err(error) = run_line(owners, line) {
            say!("{error}");
            report!("script=failed command={} what={}", Quoted(line), Quoted(&error));
            power_off(owners.platform.psci);
        }
    }
    report!("script=ok commands={count}");
    power_off(owners.platform.psci)
}

/// Runs a command. As in a Unix shell, a command after an exclamation mark has to fail.
fn run_line(owners: &mut Owners, line: &str) -> Result<(), CommandError> {
    let Some(command) = line.strip_prefix('!') else { return execute(owners, line) };
    match execute(owners, command.trim()) {
        Ok(()) => Err(CommandError::NotRefused),
        Err(error) => {
            say!("{error}");
            report!("refused={} what={}", Quoted(command.trim()), Quoted(&error));
            Ok(())
        }
    }
}
