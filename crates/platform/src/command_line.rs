//! Kernel command lines: their words, and lines made from words.
//!
//! Words are split as Linux splits them: white space separates words, and double quotes anywhere in
//! a word protect the white space between them.

use core::iter::FusedIterator;
use core::str;

use thiserror::Error;

/// The size in bytes of Linux's buffer for its command line on arm64, with the NUL at the end.
/// Linux silently cuts off a longer line.
pub const COMMAND_LINE_MAX: usize = 2048;

/// A command line as the boot loader passed it: any bytes. Words that are not UTF-8 are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandLine<'a>(&'a [u8]);

/// One word of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a>(&'a str);

/// Why a command line cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandLineError {
    /// The line does not fit.
    #[error("the command line has {needed} bytes, its buffer {capacity}")]
    NoRoom {
        /// Length of the whole line in bytes.
        needed: usize,
        /// Length of the buffer in bytes.
        capacity: usize,
    },
    /// A double quote is not closed, so that it would swallow all words after it.
    #[error("a word of {len} bytes in the command line has a double quote that is not closed")]
    OpenQuote {
        /// Length in bytes of the word with the quote.
        len: usize,
    },
}

impl<'a> CommandLine<'a> {
    /// Returns the line `text`.
    pub const fn new(text: &'a str) -> Self {
        Self(text.as_bytes())
    }

    /// Returns the line of all of `bytes`.
    pub const fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the words in their order.
    pub fn words(self) -> Words<'a> {
        Words(RawWords { rest: self.0 })
    }

    /// Returns the number of words that are not UTF-8.
    pub fn unreadable_words(self) -> usize {
        RawWords { rest: self.0 }.filter(|word| str::from_utf8(word).is_err()).count()
    }

    /// Returns the value of the last word `key=value`, without double quotes around it. The value
    /// of the bare word `key` is empty. Returns `None` if the line has neither.
    pub fn get(self, key: &str) -> Option<&'a str> {
        self.words().filter(|word| word.key() == key).last().map(Word::value)
    }

    /// Writes this line into `buffer`, without the words whose key is in `dropped`, and with the
    /// words `added` at its end.
    ///
    /// # Errors
    /// As [`join_words`].
    pub fn edited<'b>(
        self,
        dropped: &[&str],
        added: &[&str],
        buffer: &'b mut [u8],
    ) -> Result<&'b str, CommandLineError> {
        let remaining = self.words().filter(|word| !dropped.contains(&word.key())).map(Word::as_str);
        join_words(remaining.chain(added.iter().copied()), buffer)
    }
}

/// Writes the words into `buffer` with one space between two of them, and returns the line. It has
/// no NUL at its end.
///
/// # Errors
/// `buffer` is unchanged after
/// - [`CommandLineError::NoRoom`]: the line is longer than the buffer;
/// - [`CommandLineError::OpenQuote`]: a word has a double quote that is not closed.
pub fn join_words<'w, 'b>(
    words: impl Iterator<Item = &'w str> + Clone,
    buffer: &'b mut [u8],
) -> Result<&'b str, CommandLineError> {
    let open = |word: &&str| word.bytes().filter(|&byte| byte == b'"').count() % 2 == 1;
    if let Some(word) = words.clone().find(open) {
        return Err(CommandLineError::OpenQuote { len: word.len() });
    }
    let needed = words.clone().map(|word| word.len() + 1).sum::<usize>().saturating_sub(1);
    let capacity = buffer.len();
    let room = buffer.get_mut(..needed).ok_or(CommandLineError::NoRoom { needed, capacity })?;
    let spaces = core::iter::once("").chain(core::iter::repeat(" "));
    let bytes = spaces.zip(words).flat_map(|(space, word)| space.bytes().chain(word.bytes()));
    for (to, byte) in room.iter_mut().zip(bytes) {
        *to = byte;
    }
    // Words of valid UTF-8 with spaces between them are valid UTF-8, so the default is never used.
    Ok(str::from_utf8(room).unwrap_or_default())
}

impl<'a> Word<'a> {
    /// Returns the word as the command line has it, with its quotes.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Returns the text before the first `=`, or the whole word.
    pub fn key(self) -> &'a str {
        self.unquoted().split_once('=').map_or(self.unquoted(), |(key, _)| key)
    }

    /// Returns the text after the first `=`, without double quotes around it. It is empty if there
    /// is no `=`.
    pub fn value(self) -> &'a str {
        let value = self.unquoted().split_once('=').map_or("", |(_, value)| value);
        match value.strip_prefix('"') {
            Some(value) => value.strip_suffix('"').unwrap_or(value),
            None => value,
        }
    }

    /// Returns the word without quotes around all of it: `"key=a b"` means `key="a b"`.
    fn unquoted(self) -> &'a str {
        match self.0.strip_prefix('"') {
            Some(word) => word.strip_suffix('"').unwrap_or(word),
            None => self.0,
        }
    }
}

/// The words of a command line: see [`CommandLine::words`].
#[derive(Clone, Debug)]
pub struct Words<'a>(RawWords<'a>);

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        self.0.find_map(|word| str::from_utf8(word).ok()).map(Word)
    }
}

impl FusedIterator for Words<'_> {}

/// All words, whether they are UTF-8 or not.
#[derive(Clone, Debug)]
struct RawWords<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for RawWords<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|byte| !is_space(*byte)).unwrap_or(self.rest.len());
        let (_, start) = self.rest.split_at_checked(start)?;
        let mut quoted = false;
        // A quote that is not closed protects the rest of the line, as in Linux.
        let end = start.iter().position(|byte| {
            quoted ^= *byte == b'"';
            !quoted && is_space(*byte)
        });
        let (word, rest) = start.split_at_checked(end.unwrap_or(start.len()))?;
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// Returns whether the byte is white space in the C locale.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<&str> {
        CommandLine::new(line).words().map(Word::as_str).collect()
    }

    #[test]
    fn white_space_separates_words_and_quotes_keep_it() {
        assert_eq!(words("  a\tb=c \n d "), ["a", "b=c", "d"]);
        assert_eq!(words(r#"a="b c" "d e=f" g"#), [r#"a="b c""#, r#""d e=f""#, "g"]);
        assert_eq!(words(r#"a "b c"#), ["a", r#""b c"#]);
        assert_eq!(words(r#"dyndbg="file a.c +p; file b.c +p""#).len(), 1);
        assert!(words(" \t\n").is_empty());
    }

    #[test]
    fn words_that_are_not_utf_8_are_left_out_and_counted() {
        let line = CommandLine::from_bytes(b"a=1 \xff\xfe b=\xc3\xa9 c=\xc3 d");
        assert!(line.words().map(Word::as_str).eq(["a=1", "b=\u{e9}", "d"]));
        assert_eq!((line.unreadable_words(), line.get("c"), line.get("d")), (2, None, Some("")));
        let mut buffer = [0; 16];
        assert_eq!(line.edited(&["a"], &["x"], &mut buffer), Ok("b=\u{e9} d x"));
        assert_eq!(CommandLine::new("a b").unreadable_words(), 0);
    }

    #[test]
    fn the_last_value_of_a_key_wins() {
        let line = CommandLine::new("linmap.build=base linmap.shell x=1 linmap.build=identity");
        assert_eq!(line.get("linmap.build"), Some("identity"));
        assert_eq!(line.get("linmap.shell"), Some(""));
        assert_eq!(line.get("linmap.icount"), None);
        assert_eq!(line.get("linmap"), None);
    }

    #[test]
    fn quotes_around_a_value_or_a_word_are_no_part_of_it() {
        assert_eq!(CommandLine::new(r#"a="b c""#).get("a"), Some("b c"));
        assert_eq!(CommandLine::new(r#""a=b c""#).get("a"), Some("b c"));
        assert_eq!(CommandLine::new(r#"a="b c"#).get("a"), Some("b c"));
        assert_eq!(CommandLine::new(r#"a=b"c"#).get("a"), Some(r#"b"c"#));
        assert_eq!(CommandLine::new("root=UUID=1=2").get("root"), Some("UUID=1=2"));
    }

    #[test]
    fn words_are_replaced_and_all_others_stay() {
        let boot = CommandLine::new("linmap.generation=1 linmap.generations=3 quiet linmap.generation=2");
        let mut buffer = [0; 64];
        let next = boot.edited(&["linmap.generation"], &["linmap.generation=3"], &mut buffer);
        assert_eq!(next, Ok("linmap.generations=3 quiet linmap.generation=3"));
        assert_eq!(CommandLine::new("").edited(&["a"], &["a=1", "b"], &mut buffer), Ok("a=1 b"));
        assert_eq!(CommandLine::new(" a=1 a ").edited(&["a"], &[], &mut buffer), Ok(""));
    }

    #[test]
    fn a_line_that_does_not_fit_is_refused_and_leaves_the_buffer_alone() {
        let mut buffer = [b'#'; 6];
        let no_room = Err(CommandLineError::NoRoom { needed: 7, capacity: 6 });
        assert_eq!(join_words(["abc", "def"].into_iter(), &mut buffer), no_room);
        assert_eq!(buffer, [b'#'; 6]);
        assert_eq!(join_words(["abc", "de"].into_iter(), &mut buffer), Ok("abc de"));
    }

    #[test]
    fn a_quote_that_is_not_closed_is_refused_because_it_would_swallow_the_words_behind_it() {
        let mut buffer = [0; 64];
        let open = Err(CommandLineError::OpenQuote { len: 4 });
        let line = CommandLine::new(r#"x "a b"#);
        assert_eq!(line.edited(&[], &["b=1"], &mut buffer), open);
        assert_eq!(line.edited(&["x"], &[], &mut buffer), open);
    }

    proptest! {
        #[test]
        fn joined_words_split_into_the_same_words_again(line in r#"[ a-c="é\t]{0,40}"#) {
            let mut buffer = [0; 200];
            match join_words(words(&line).into_iter(), &mut buffer) {
                Ok(joined) => prop_assert_eq!(words(joined), words(&line)),
                Err(CommandLineError::OpenQuote { .. }) => prop_assert_eq!(line.matches('"').count() % 2, 1),
                Err(error) => prop_assert!(false, "{}", error),
            }
        }

        #[test]
        fn no_line_panics(line in any::<String>(), key in any::<String>()) {
            let _ = CommandLine::new(&line).get(&key);
            let mut buffer = [0; 32];
            let _ = CommandLine::new(&line).edited(&[&key], &["x"], &mut buffer);
        }
    }
}
