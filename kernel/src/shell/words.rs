//! Reading the words of a command.

use linmap_platform::parse_number;
use linmap_vmsa::{Pa, PaRange};

use crate::shell::error::CommandError;

/// The words after a command's name.
pub struct Words<'w> {
    words: core::str::SplitWhitespace<'w>,
    usage: &'static str,
}

impl<'w> Words<'w> {
    /// The words of `rest`. Errors say `usage`.
    pub fn new(rest: &'w str, usage: &'static str) -> Self {
        Self { words: rest.split_whitespace(), usage }
    }

    /// The error for wrong words.
    pub fn wrong(&self) -> CommandError {
        CommandError::Usage(self.usage)
    }

    /// The next word.
    ///
    /// # Errors
    /// [`CommandError::Usage`].
    pub fn word(&mut self) -> Result<&'w str, CommandError> {
        self.words.next().ok_or(CommandError::Usage(self.usage))
    }

    /// The next word, a number.
    ///
    /// # Errors
    /// [`CommandError::Usage`].
    pub fn number(&mut self) -> Result<u64, CommandError> {
        self.words.next().and_then(parse_number).ok_or(CommandError::Usage(self.usage))
    }

    /// The next word, a number, if there is one.
    ///
    /// # Errors
    /// [`CommandError::Usage`].
    pub fn optional_number(&mut self) -> Result<Option<u64>, CommandError> {
        match self.words.next() {
            None => Ok(None),
            Some(word) => parse_number(word).map(Some).ok_or(CommandError::Usage(self.usage)),
        }
    }

    /// The next two words, start and length of a range.
    ///
    /// # Errors
    /// [`CommandError::Usage`], [`CommandError::Overflow`].
    pub fn range(&mut self) -> Result<PaRange, CommandError> {
        let (start, len) = (self.number()?, self.number()?);
        let end = start.checked_add(len).ok_or(CommandError::Overflow { start, len })?;
        Ok(PaRange::new(Pa(start), Pa(end)))
    }

    /// Checks that no words are left.
    ///
    /// # Errors
    /// [`CommandError::Usage`].
    pub fn end(mut self) -> Result<(), CommandError> {
        self.words.next().map_or(Ok(()), |_| Err(CommandError::Usage(self.usage)))
    }
}
