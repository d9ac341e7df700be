//! What a command is.

use crate::shell::error::CommandError;
use crate::shell::owners::Owners;

/// A command.
pub struct Command {
    /// Its name and its words. Words in brackets may be left out.
    pub usage: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What `help COMMAND` says besides, in lines.
    pub more: &'static [&'static str],
    /// How it runs.
    pub run: Run,
}

/// How a command runs.
pub enum Run {
    /// It lists the commands, or describes one.
    Help,
    /// It ends the shell or the script, and the machine is switched off.
    PowerOff,
    /// It works on the owners.
    On(fn(&mut Owners, &str) -> Result<(), CommandError>),
}

/// Commands that belong together.
pub struct Group {
    /// What they are for.
    pub title: &'static str,
    /// The commands.
    pub commands: &'static [Command],
}

impl Command {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.parts().0
    }

    /// Its words, as the usage has them.
    pub fn words(&self) -> Option<&'static str> {
        self.parts().1
    }

    fn parts(&self) -> (&'static str, Option<&'static str>) {
        match self.usage.split_once(' ') {
            None => (self.usage, None),
            Some((name, words)) => (name, Some(words)),
        }
    }

    /// The words among which the first of its words is chosen.
    pub fn choices(&self) -> impl Iterator<Item = &'static str> {
        let first = self.words().and_then(|words| words.split([' ', ']']).next()).unwrap_or_default();
        let first = first.trim_start_matches('[');
        first.split('|').filter(move |_| first.contains('|'))
    }
}
