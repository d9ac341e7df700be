//! What `help` prints.

use crate::say;
use crate::shell::command::{Command, Group};

/// Lists all commands, by what they are for.
pub fn list(groups: &[Group]) {
    let names = groups.iter().flat_map(|group| group.commands).map(|command| command.name().len());
    let width = names.max().unwrap_or_default();
    for group in groups {
        say!("{}:", group.title);
        for command in group.commands {
            say!("  {:<width$}  {}", command.name(), command.summary);
        }
    }
    say!("Addresses are physical. A number is decimal (4096, 4K, 2M, 1G) or hexadecimal (0x1000).");
    say!("`help COMMAND` says more of a command. Tab completes, the arrows show earlier lines.");
}

/// Describes one command.
pub fn describe(command: &Command) {
    say!("usage: {}", command.usage);
    say!("  {}", command.summary);
    for line in command.more {
        say!("  {line}");
    }
}
