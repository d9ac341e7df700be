//! Scripts for linmap's shell: what `boot` has to know of their commands.

use std::str::FromStr;

/// Commands for linmap's shell, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script(String);

/// Why a script can't do what it says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// It has no command.
    #[error("a script needs a command")]
    Empty,
    /// Commands follow one that ends the run.
    #[error("nothing runs after '{last}', so these commands never would: {}", .unreached.join("; "))]
    Unreached {
        /// The command that ends it.
        last: String,
        /// The commands after it.
        unreached: Vec<String>,
    },
}

impl Script {
    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether a command loads a payload, even if the load fails.
    pub fn needs_payload(&self) -> bool {
        commands(&self.0)
            .any(|command| command.trim_start_matches('!').split_whitespace().next() == Some("kexec"))
    }

    /// Whether a command enters one: by kexec, or by a crash.
    pub fn enters_payload(&self) -> bool {
        commands(&self.0).any(|command| {
            let mut words = command.split_whitespace();
            match words.next() {
                Some("kexec") => words.next().is_none_or(|word| word == "exec"),
                Some("panic" | "fault") => self.needs_payload(),
                _ => false,
            }
        })
    }
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut commands = commands(text);
        if commands.clone().next().is_none() {
            return Err(ScriptError::Empty);
        }
        let last = commands.find(|command| is_last(command));
        let unreached: Vec<_> = commands.map(str::to_owned).collect();
        match last {
            Some(last) if !unreached.is_empty() => {
                Err(ScriptError::Unreached { last: last.to_owned(), unreached })
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

/// A script's commands: separated by semicolons or line ends.
fn commands(script: &str) -> impl Iterator<Item = &str> + Clone {
    script.split([';', '\n']).map(str::trim).filter(|command| !command.is_empty())
}

/// Whether no command can follow this one: it switches off, enters the payload, or ends the kernel
/// before the next command. If it is refused, the script fails there.
fn is_last(command: &str) -> bool {
    let words: Vec<_> = command.split_whitespace().collect();
    matches!(
        words[..],
        ["poweroff"] | ["kexec"] | ["kexec", "exec", ..] | ["panic" | "fault"] | ["panic" | "fault", _]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_would_never_run_are_named() {
        let refused = |text: &str| match text.parse::<Script>() {
            Err(ScriptError::Unreached { last, unreached }) => (last, unreached.join("; ")),
            other => panic!("{text}: {other:?}"),
        };
        let expected = |last: &str, rest: &str| (last.to_owned(), rest.to_owned());
        assert_eq!(refused("mem; poweroff; verify\n; map"), expected("poweroff", "verify; map"));
        assert_eq!(refused("kexec;cpus"), expected("kexec", "cpus"));
        assert_eq!(refused("kexec exec --verify; cpus"), expected("kexec exec --verify", "cpus"));
        assert_eq!(refused("panic 1; poweroff"), expected("panic 1", "poweroff"));
        for text in [
            "mem; poweroff",
            "poweroff;\n ;",
            "!kexec exec; kexec load; verify",
            "panic 1 100; stress 100",
            "!poweroff now; mem",
        ] {
            assert!(text.parse::<Script>().is_ok(), "{text}");
        }
        assert_eq!(" ; ".parse::<Script>(), Err(ScriptError::Empty));
    }
}
