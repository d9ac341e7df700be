//! Words of a trace in messages.

use core::fmt;

const LONGEST: usize = 40;

/// A word of a trace, quoted in a message. Long words are cut, and bytes that are not text are
/// shown escaped.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quote {
    bytes: [u8; LONGEST],
    len: u8,
    is_cut: bool,
}

impl Quote {
    /// Quotes `word`.
    pub fn of(word: &[u8]) -> Self {
        let mut bytes = [0; LONGEST];
        let len = word.len().min(LONGEST);
        for (to, from) in bytes.iter_mut().zip(word) {
            *to = *from;
        }
        Self { bytes, len: len as u8, is_cut: len < word.len() }
    }

    /// The word, without what was cut.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        for chunk in self.bytes().utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            if !chunk.invalid().is_empty() {
                write!(f, "{}", char::REPLACEMENT_CHARACTER)?;
            }
        }
        f.write_str(if self.is_cut { "…`" } else { "`" })
    }
}

impl fmt::Debug for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
