//! The words of a line.

use crate::event::Use;
use crate::malformed::{Found, LineError, Malformed};
use crate::number::{NumberError, leading_hex, number};
use crate::quote::Quote;

/// A word of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word<'a> {
    /// The byte of the line where the word begins, from 1.
    pub column: usize,
    /// The word; empty after the last word of a line.
    pub bytes: &'a [u8],
}

impl<'a> Word<'a> {
    /// Word `nth` of `line`, from 0; an empty one after the last.
    ///
    /// ```
    /// use linmap_trace::Word;
    ///
    /// let line = b"0 store 0x40000000 0x703 # a leaf";
    /// assert_eq!(Word::of(line, 2), Word { column: 9, bytes: b"0x40000000" });
    /// assert_eq!(Word::of(line, 4).bytes, b"");
    /// ```
    pub fn of(line: &'a [u8], nth: usize) -> Self {
        let mut words = Words::of(line);
        for _ in 0..nth {
            words.word();
        }
        words.word()
    }

    pub(crate) fn error(self, problem: Malformed) -> LineError {
        LineError { column: self.column, problem }
    }

    pub(crate) fn unexpected(self, expected: &'static str) -> LineError {
        let found =
            if self.bytes.is_empty() { Found::End("line") } else { Found::Word(Quote::of(self.bytes)) };
        self.error(Malformed::Expected { expected, found })
    }

    /// The error for a word that names nothing: `problem`, or that `expected` is missing.
    pub(crate) fn unknown(self, expected: &'static str, problem: fn(Quote) -> Malformed) -> LineError {
        if self.bytes.is_empty() {
            self.unexpected(expected)
        } else {
            self.error(problem(Quote::of(self.bytes)))
        }
    }

    pub(crate) fn number(self) -> Result<u64, LineError> {
        let value = match self.bytes.strip_prefix(b"0x") {
            Some(digits) => number(digits, 16),
            None => number(self.bytes, 10),
        };
        value.map_err(|error| match error {
            NumberError::NotANumber => self.unexpected("a number"),
            NumberError::TooLarge => self.too_large(),
        })
    }

    fn too_large(self) -> LineError {
        self.error(Malformed::TooLarge(Quote::of(self.bytes)))
    }

    /// A number that fits a smaller type.
    pub(crate) fn small<T: TryFrom<u64>>(self) -> Result<T, LineError> {
        T::try_from(self.number()?).map_err(|_| self.too_large())
    }

    /// A number that is a multiple of another.
    pub(crate) fn multiple(self, multiple: u64) -> Result<u64, LineError> {
        let value = self.number()?;
        if value.is_multiple_of(multiple) {
            Ok(value)
        } else {
            Err(self.error(Malformed::Unaligned { value, multiple }))
        }
    }

    /// A number that is not 0.
    pub(crate) fn length(self) -> Result<u64, LineError> {
        match self.number()? {
            0 => Err(self.error(Malformed::Empty)),
            len => Ok(len),
        }
    }

    pub(crate) fn kind(self) -> Result<Use, LineError> {
        Use::named(self.bytes).ok_or_else(|| self.unexpected("read, write or exec"))
    }

    /// What follows `key` in this word, as a word.
    pub(crate) fn after(self, key: &'static str) -> Result<Self, LineError> {
        let bytes = self.bytes.strip_prefix(key.as_bytes()).ok_or_else(|| self.unexpected(key))?;
        Ok(Word { column: self.column + key.len(), bytes })
    }
}

/// The words of a line, up to its comment.
pub(crate) struct Words<'a> {
    text: &'a [u8],
    at: usize,
}

/// Whether a word ends before `byte`. Words follow each other by the million, so a byte is looked
/// at once.
fn is_space(byte: u8) -> bool {
    byte <= b' ' && byte.is_ascii_whitespace()
}

impl<'a> Words<'a> {
    pub fn of(line: &'a [u8]) -> Self {
        Self { text: line, at: 0 }
    }

    /// The next word; an empty one after the last.
    #[inline]
    pub fn word(&mut self) -> Word<'a> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let start = match rest {
            // One space, almost always.
            [b' ', byte, ..] if *byte > b' ' => 1,
            _ => rest.iter().position(|byte| !is_space(*byte)).unwrap_or(rest.len()),
        };
        let rest = rest.get(start..).unwrap_or_default();
        let len = rest.iter().position(|&byte| is_space(byte) || byte == b'#').unwrap_or(rest.len());
        let bytes = rest.get(..len).unwrap_or_default();
        let column = match len {
            // After the last word, however much space or comment follows.
            0 => self.text.get(..self.at).unwrap_or_default().trim_ascii_end().len() + 1,
            _ => self.at + start + 1,
        };
        self.at += start + len;
        if len == 0 {
            self.text = self.text.get(..self.at).unwrap_or_default();
        }
        Word { column, bytes }
    }

    /// The next word; `None` after the last.
    pub fn next(&mut self) -> Option<Word<'a>> {
        Some(self.word()).filter(|word| !word.bytes.is_empty())
    }

    /// The next word, which has to be a number.
    #[inline]
    pub fn number(&mut self) -> Result<u64, LineError> {
        match self.plain() {
            Some((value, end)) => {
                self.at = end;
                Ok(value)
            }
            None => self.word().number(),
        }
    }

    /// The next word, which has to be a multiple of `multiple`.
    #[inline]
    pub fn multiple(&mut self, multiple: u64) -> Result<u64, LineError> {
        match self.plain() {
            Some((value, end)) if value.is_multiple_of(multiple) => {
                self.at = end;
                Ok(value)
            }
            _ => self.word().multiple(multiple),
        }
    }

    /// The next word and its end, if it is a number as [`Line`](crate::Line) writes an address or a
    /// value. Almost all bytes of a long trace belong to such words.
    #[inline]
    fn plain(&self) -> Option<(u64, usize)> {
        let digits = self.text.get(self.at..)?.strip_prefix(b" 0x")?;
        let (value, len) = leading_hex(digits);
        let whole = (1..=16).contains(&len) && digits.get(len).is_none_or(|&byte| byte == b' ');
        whole.then_some((value, self.at + 3 + len))
    }

    /// Whether nothing follows, not even space.
    #[inline]
    fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// The number behind `key`, if the next word begins with it.
    pub fn optional(&mut self, key: &'static str) -> Result<Option<u64>, LineError> {
        if self.is_at_end() {
            return Ok(None);
        }
        let before = self.at;
        match self.next() {
            Some(word) if word.bytes.starts_with(key.as_bytes()) => Ok(Some(word.after(key)?.number()?)),
            Some(_) => {
                self.at = before;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// What follows `key` in the next word.
    pub fn field(&mut self, key: &'static str) -> Result<Word<'a>, LineError> {
        self.word().after(key)
    }

    /// Refuses a further word.
    pub fn end(&mut self) -> Result<(), LineError> {
        if self.is_at_end() {
            return Ok(());
        }
        match self.next() {
            None => Ok(()),
            Some(word) => Err(word.error(Malformed::Trailing(Quote::of(word.bytes)))),
        }
    }
}
