//! Kernel command lines: which words are linmap's, which are the payload's, and the lines made from them.
//!
//! Words are split as Linux splits them: white space separates, and double quotes anywhere in a word keep the
//! white space between them. Words that begin with `linmap.` are linmap's, all others the payload's.

use core::fmt::Write;
use core::iter::FusedIterator;
use core::str;

use arrayvec::ArrayString;
use thiserror::Error;

/// Room Linux has for its command line on arm64, in bytes, with the NUL at the end. It cuts longer ones silently.
pub const COMMAND_LINE_MAX: usize = 2048;

/// What linmap's own words begin with.
const OURS: &str = "linmap.";
/// How many kexecs of linmap into itself came before this boot.
const GENERATION: &str = "linmap.generation";
/// How many CPUs linmap starts.
const CPUS: &str = "linmap.cpus";
/// What linmap reserves for a crash kernel.
const CRASH_KERNEL: &str = "linmap.crashkernel";
/// What every crash kernel of Linux is told: the crashed kernel's other CPUs can't be started, and devices are as it left
/// them (admin-guide/kdump).
const CRASHED: CommandLine<'static> = CommandLine("maxcpus=1 reset_devices");

/// A command line as the boot loader or an archive gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLine<'a>(pub &'a str);

/// One word of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a>(&'a str);

/// Why a command line can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandLineError {
    /// The line doesn't fit.
    #[error("the command line needs {needed} bytes, there is room for {capacity}")]
    NoRoom {
        /// Length of the whole line in bytes.
        needed: usize,
        /// Length of the buffer in bytes.
        capacity: usize,
    },
    /// A double quote is never closed: it would swallow every word put after it.
    #[error("the command line has a word of {len} bytes whose double quote is never closed")]
    OpenQuote {
        /// Length in bytes of the word that begins or holds the quote.
        len: usize,
    },
}

impl<'a> CommandLine<'a> {
    /// The words in their order.
    pub fn words(self) -> Words<'a> {
        Words { rest: self.0 }
    }

    /// The value of the last word `key=value`, without the double quotes around it; empty for the bare word
    /// `key`, `None` when there is neither.
    pub fn get(self, key: &str) -> Option<&'a str> {
        self.words().filter(|word| word.key() == key).last().map(Word::value)
    }

    /// Writes the payload's command line into `buffer`: the words of `archive` (the archive's `cmdline`), then
    /// those of this line that aren't linmap's. One space separates words; there is no NUL. A `--` in `archive`
    /// makes all that follows arguments of init, as Linux has it.
    ///
    /// # Errors
    ///
    /// `buffer` is left as it was when
    /// - [`CommandLineError::NoRoom`]: the line is longer;
    /// - [`CommandLineError::OpenQuote`]: a double quote is never closed.
    pub fn for_payload<'b>(
        self,
        archive: CommandLine<'_>,
        buffer: &'b mut [u8],
    ) -> Result<&'b str, CommandLineError> {
        let passed_on = self.words().filter(|word| !word.is_ours());
        join(archive.words().chain(passed_on).map(Word::as_str), buffer)
    }

    /// Writes the command line for a crash kernel into `buffer`: `maxcpus=1 reset_devices`, and the words of
    /// [`for_payload`](Self::for_payload) but `crashkernel`: it has no memory to spare for another.
    ///
    /// # Errors
    ///
    /// As [`for_payload`](Self::for_payload).
    pub fn for_crash_kernel<'b>(
        self,
        archive: CommandLine<'_>,
        buffer: &'b mut [u8],
    ) -> Result<&'b str, CommandLineError> {
        let passed_on = self.words().filter(|word| !word.is_ours());
        let theirs = archive.words().chain(passed_on).filter(|word| word.key() != "crashkernel");
        // First, since a `--` in the archive's may be followed by arguments of init.
        join(CRASHED.words().chain(theirs).map(Word::as_str), buffer)
    }

    /// Writes the command line for linmap as its own payload into `buffer`: all words of this line but
    /// `linmap.generation`, then `linmap.generation=` with the number given.
    ///
    /// # Errors
    ///
    /// `buffer` is left as it was when
    /// - [`CommandLineError::NoRoom`]: the line is longer;
    /// - [`CommandLineError::OpenQuote`]: a double quote is never closed.
    pub fn for_generation(self, generation: u64, buffer: &mut [u8]) -> Result<&str, CommandLineError> {
        let last = generation_word(generation);
        let kept = self.words().filter(|word| word.key() != GENERATION).map(Word::as_str);
        join(kept.chain([last.as_str()]), buffer)
    }

    /// Writes the command line for linmap as its own crash kernel into `buffer`: as
    /// [`for_generation`](Self::for_generation), with one CPU and nothing reserved for another crash kernel.
    ///
    /// # Errors
    ///
    /// As [`for_generation`](Self::for_generation).
    pub fn for_crash_generation(self, generation: u64, buffer: &mut [u8]) -> Result<&str, CommandLineError> {
        let last = generation_word(generation);
        let mut one = ArrayString::<{ CPUS.len() + 2 }>::new();
        let written = write!(one, "{CPUS}=1");
        debug_assert!(written.is_ok());
        let kept = self.words().filter(|word| ![GENERATION, CPUS, CRASH_KERNEL].contains(&word.key()));
        join(kept.map(Word::as_str).chain([one.as_str(), last.as_str()]), buffer)
    }
}

fn generation_word(generation: u64) -> ArrayString<{ GENERATION.len() + 21 }> {
    let mut word = ArrayString::new();
    // A u64 has at most 20 digits, so that this always fits.
    let written = write!(word, "{GENERATION}={generation}");
    debug_assert!(written.is_ok());
    word
}

impl<'a> Word<'a> {
    /// The word as it stands in the command line, with its quotes.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether the word is for linmap and not for its payload.
    pub fn is_ours(self) -> bool {
        self.unquoted().starts_with(OURS)
    }

    /// What stands before the first `=`, or the whole word.
    pub fn key(self) -> &'a str {
        self.unquoted().split_once('=').map_or(self.unquoted(), |(key, _)| key)
    }

    /// What stands after the first `=` without the double quotes around it, or nothing.
    pub fn value(self) -> &'a str {
        let value = self.unquoted().split_once('=').map_or("", |(_, value)| value);
        match value.strip_prefix('"') {
            Some(value) => value.strip_suffix('"').unwrap_or(value),
            None => value,
        }
    }

    /// The word without quotes around all of it: `"key=a b"` means `key="a b"`.
    fn unquoted(self) -> &'a str {
        match self.0.strip_prefix('"') {
            Some(word) => word.strip_suffix('"').unwrap_or(word),
            None => self.0,
        }
    }
}

/// The words of a command line: see [`CommandLine::words`].
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let start = self.rest.trim_start_matches(is_space);
        if start.is_empty() {
            return None;
        }
        let mut quoted = false;
        // A quote that is never closed holds the rest of the line, as in Linux.
        let end = start.find(|character| {
            quoted ^= character == '"';
            !quoted && is_space(character)
        });
        let (word, rest) = start.split_at(end.unwrap_or(start.len()));
        self.rest = rest;
        Some(Word(word))
    }
}

impl FusedIterator for Words<'_> {}

/// White space of the C locale.
fn is_space(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\x0b'
}

/// Writes the words with one space between them, if they all fit.
fn join<'w, 'b>(
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
    // Whole words of valid UTF-8 with spaces between them are valid UTF-8, so that the default is never taken.
    Ok(str::from_utf8(room).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<&str> {
        CommandLine(line).words().map(Word::as_str).collect()
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
    fn the_last_value_of_a_key_wins() {
        let line = CommandLine("linmap.build=base linmap.shell x=1 linmap.build=identity");
        assert_eq!(line.get("linmap.build"), Some("identity"));
        assert_eq!(line.get("linmap.shell"), Some(""));
        assert_eq!(line.get("linmap.icount"), None);
        assert_eq!(line.get("linmap"), None);
    }

    #[test]
    fn quotes_around_a_value_or_a_word_are_no_part_of_it() {
        assert_eq!(CommandLine(r#"a="b c""#).get("a"), Some("b c"));
        assert_eq!(CommandLine(r#""a=b c""#).get("a"), Some("b c"));
        assert_eq!(CommandLine(r#"a="b c"#).get("a"), Some("b c"));
        assert_eq!(CommandLine(r#"a=b"c"#).get("a"), Some(r#"b"c"#));
        assert_eq!(CommandLine("root=UUID=1=2").get("root"), Some("UUID=1=2"));
    }

    #[test]
    fn the_payload_gets_the_archives_words_and_then_those_that_are_not_ours() {
        let boot = CommandLine(r#"linmap.build=base quiet "linmap.leaf=page" x="1 2" linmapx.a"#);
        let mut buffer = [0; 64];
        assert_eq!(
            boot.for_payload(CommandLine("console=ttyAMA0\n"), &mut buffer),
            Ok(r#"console=ttyAMA0 quiet x="1 2" linmapx.a"#)
        );
        assert_eq!(CommandLine("linmap.shell").for_payload(CommandLine(""), &mut buffer), Ok(""));
    }

    #[test]
    fn the_generation_is_replaced_and_all_else_stays() {
        let boot = CommandLine("linmap.generation=1 linmap.generations=3 quiet linmap.generation=2");
        let mut buffer = [0; 64];
        assert_eq!(boot.for_generation(3, &mut buffer), Ok("linmap.generations=3 quiet linmap.generation=3"));
        assert_eq!(
            CommandLine("").for_generation(u64::MAX, &mut buffer),
            Ok("linmap.generation=18446744073709551615")
        );
    }

    #[test]
    fn a_crash_kernel_is_told_first_that_it_has_one_cpu() {
        let boot = CommandLine("linmap.crashkernel=256M linmap.cpus=4 quiet linmap.generation=1");
        let mut buffer = [0; 80];
        assert_eq!(
            boot.for_crash_kernel(CommandLine("a crashkernel=64M -- b"), &mut buffer),
            Ok("maxcpus=1 reset_devices a -- b quiet")
        );
        assert_eq!(boot.for_crash_generation(2, &mut buffer), Ok("quiet linmap.cpus=1 linmap.generation=2"));
    }

    #[test]
    fn a_line_that_does_not_fit_is_refused_and_leaves_the_buffer_alone() {
        let mut buffer = [b'#'; 6];
        assert_eq!(
            CommandLine("abc def").for_payload(CommandLine(""), &mut buffer),
            Err(CommandLineError::NoRoom { needed: 7, capacity: 6 })
        );
        assert_eq!(buffer, [b'#'; 6]);
        assert_eq!(CommandLine("abc de").for_payload(CommandLine(""), &mut buffer), Ok("abc de"));
    }

    #[test]
    fn a_quote_that_is_never_closed_is_refused_because_it_would_swallow_what_follows() {
        let mut buffer = [0; 64];
        let open = Err(CommandLineError::OpenQuote { len: 4 });
        assert_eq!(CommandLine("quiet").for_payload(CommandLine(r#"x "a b"#), &mut buffer), open);
        assert_eq!(CommandLine(r#"x "a b"#).for_generation(1, &mut buffer), open);
    }

    proptest! {
        #[test]
        fn joined_words_split_into_the_same_words_again(line in r#"[ a-c="é\t]{0,40}"#) {
            let mut buffer = [0; 200];
            match CommandLine("").for_payload(CommandLine(&line), &mut buffer) {
                Ok(joined) => prop_assert_eq!(words(joined), words(&line)),
                Err(CommandLineError::OpenQuote { .. }) => prop_assert_eq!(line.matches('"').count() % 2, 1),
                Err(error) => prop_assert!(false, "{}", error),
            }
        }

        #[test]
        fn no_line_panics(line in any::<String>(), key in any::<String>()) {
            let line = line.to_string();
            let _ = CommandLine(&line).get(&key);
            let mut buffer = [0; 32];
            let _ = CommandLine(&line).for_payload(CommandLine(&line), &mut buffer);
            let _ = CommandLine(&line).for_generation(1, &mut buffer);
        }
    }
}
