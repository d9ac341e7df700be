//! Why a command failed: one line, with a hint if there is something to do.

use std::error::Error;
use std::fmt;

/// The style of the word that begins an error.
const ERROR: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();

/// Why a command failed. It is shown in one line, so control characters of a hostile file or of a
/// nested message become spaces.
#[derive(Debug)]
pub struct Failure {
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure that says `what` is wrong.
    pub fn new(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), hint: None }
    }

    /// The failure with what the user may do about it.
    #[must_use]
    pub fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// The failure with `notes` that explain it in front of its hint.
    #[must_use]
    pub fn explained_by(self, notes: &[String]) -> Self {
        let all: Vec<_> = notes.iter().cloned().chain(self.hint).collect();
        Self { what: self.what, hint: (!all.is_empty()).then(|| all.join("; ")) }
    }

    /// Prints the failure to standard error.
    pub fn print(&self) {
        anstream::eprintln!("{ERROR}error:{ERROR:#} {self}");
    }

    /// The failure with the file or the guest that it is about in front.
    #[must_use]
    pub fn of(self, subject: impl fmt::Display) -> Self {
        Self { what: format!("{subject}: {}", self.what), ..self }
    }
}

impl<E: Error> From<E> for Failure {
    /// The error with all its sources that it does not name itself.
    fn from(error: E) -> Self {
        let mut what = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            let said = source.to_string();
            if !what.contains(&said) {
                what = format!("{what}: {said}");
            }
            next = source.source();
        }
        Self { what, hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |text: &str| text.replace(char::is_control, " ");
        f.write_str(&line(&self.what))?;
        match &self.hint {
            Some(hint) => write!(f, "; {}", line(hint)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("no map")]
        Cause,
        #[error("line 1: {0}")]
        Named(#[source] Box<Nested>),
        #[error("unreadable")]
        Unnamed(#[source] Box<Nested>),
    }

    #[test]
    fn a_cause_is_said_once() {
        let said = |error: Nested| Failure::from(error).to_string();
        assert_eq!(said(Nested::Named(Box::new(Nested::Cause))), "line 1: no map");
        assert_eq!(said(Nested::Unnamed(Box::new(Nested::Cause))), "unreadable: no map");
    }

    #[test]
    fn a_failure_is_one_line_with_its_hint() {
        let failure = Failure::new("no\nmap").hint("try --all").of("a\u{1b}[31mfile");
        assert_eq!(failure.to_string(), "a [31mfile: no map; try --all");
        let failure = failure.explained_by(&["it is cut".to_owned()]);
        assert_eq!(failure.to_string(), "a [31mfile: no map; it is cut; try --all");
    }
}
