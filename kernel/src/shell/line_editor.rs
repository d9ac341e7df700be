//! Editing a line on a serial console: cursor keys, history, completion.
//!
//! Knows bytes in and text out and nothing of the kernel, so that it also runs on the host. Output
//! is printable characters and backspaces: any terminal understands them, and what is typed at the
//! end of a line is echoed as it is.

use core::fmt::{self, Write};

use arrayvec::{ArrayString, ArrayVec};

/// The longest line in bytes.
pub const LINE_MAX: usize = 256;
/// How many lines the history remembers.
const HISTORY: usize = 16;

/// A line of ASCII.
pub type Line = ArrayString<LINE_MAX>;

/// What a byte led to.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// The line is not finished.
    More,
    /// The line is finished; the editor is empty again.
    Line(Line),
    /// The end of the input: ^D on an empty line.
    End,
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Char(u8),
    Enter,
    Interrupt,
    Left,
    Right,
    Start,
    End,
    Older,
    Newer,
    Backspace,
    /// The character under the cursor, or the end of the input.
    DeleteOrEnd,
    Delete,
    KillToStart,
    KillToEnd,
    KillWord,
    Complete,
}

/// How much of an escape sequence has been received (ECMA-48 5.4).
#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    /// ESC.
    Begun,
    /// ESC O: one more byte, a key of the application mode.
    Single,
    /// ESC [ and its parameter, of which the keys used here have one.
    Control(u8),
}

/// The line that is typed, and those before it.
#[derive(Debug)]
pub struct LineEditor {
    prompt: &'static str,
    line: ArrayVec<u8, LINE_MAX>,
    cursor: usize,
    escape: Escape,
    /// Oldest first.
    history: ArrayVec<Line, HISTORY>,
    /// Which line of the history is shown: an index, or its length for the line that is typed.
    shown: usize,
    /// The line that was typed before the history was shown.
    draft: Line,
}

impl LineEditor {
    /// An empty editor.
    pub fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            line: ArrayVec::new(),
            cursor: 0,
            escape: Escape::None,
            history: ArrayVec::new(),
            shown: 0,
            draft: Line::new(),
        }
    }

    /// Shows the prompt for the next line.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn prompt(&self, out: &mut impl Write) -> fmt::Result {
        out.write_str(self.prompt)
    }

    /// Takes in the next byte and shows what it changes. `words` passes all words that can follow a
    /// text, for completion.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn take(
        &mut self,
        byte: u8,
        out: &mut impl Write,
        words: impl Fn(&str, &mut dyn FnMut(&'static str)),
    ) -> Result<Typed, fmt::Error> {
        let Some(key) = self.key(byte) else { return Ok(Typed::More) };
        match key {
            Key::Enter => {
                out.write_char('\n')?;
                return Ok(Typed::Line(self.finish()));
            }
            Key::DeleteOrEnd if self.line.is_empty() => return Ok(Typed::End),
            Key::Interrupt => {
                out.write_str("^C\n")?;
                let _ = self.clear();
                self.prompt(out)?;
            }
            Key::Char(byte) => self.insert(&[byte], out)?,
            Key::Left => self.move_to(self.cursor.saturating_sub(1), out)?,
            Key::Right => self.move_to((self.cursor + 1).min(self.line.len()), out)?,
            Key::Start => self.move_to(0, out)?,
            Key::End => self.move_to(self.line.len(), out)?,
            Key::Backspace => self.remove_from(self.cursor.saturating_sub(1), out)?,
            Key::DeleteOrEnd | Key::Delete if self.cursor < self.line.len() => {
                self.move_to(self.cursor + 1, out)?;
                self.remove_from(self.cursor - 1, out)?;
            }
            Key::DeleteOrEnd | Key::Delete => {}
            Key::KillToStart => self.remove_from(0, out)?,
            Key::KillToEnd => {
                let from = self.cursor;
                self.move_to(self.line.len(), out)?;
                self.remove_from(from, out)?;
            }
            Key::KillWord => self.remove_from(self.word_start(), out)?,
            Key::Older => self.show(self.shown.checked_sub(1), out)?,
            Key::Newer => self.show(Some(self.shown + 1).filter(|&next| next <= self.history.len()), out)?,
            Key::Complete => self.complete(out, words)?,
        }
        Ok(Typed::More)
    }

    /// The key that `byte` completes. Bytes that are no key of the editor are dropped.
    fn key(&mut self, byte: u8) -> Option<Key> {
        match core::mem::take(&mut self.escape) {
            Escape::None => {}
            Escape::Begun => {
                self.escape = match byte {
                    b'[' => Escape::Control(0),
                    b'O' => Escape::Single,
                    _ => Escape::None,
                };
                return None;
            }
            Escape::Single => return final_key(byte, 0),
            Escape::Control(parameter) => {
                return match byte {
                    b'0'..=b'9' => {
                        let parameter = parameter.saturating_mul(10).saturating_add(byte - b'0');
                        self.escape = Escape::Control(parameter);
                        None
                    }
                    // Other parameters and intermediate bytes.
                    0x20..=0x3f => {
                        self.escape = Escape::Control(u8::MAX);
                        None
                    }
                    _ => final_key(byte, parameter),
                };
            }
        }
        Some(match byte {
            b'\r' | b'\n' => Key::Enter,
            b' '..=b'~' => Key::Char(byte),
            0x08 | 0x7f => Key::Backspace,
            b'\t' => Key::Complete,
            0x01 => Key::Start,
            0x02 => Key::Left,
            0x03 => Key::Interrupt,
            0x04 => Key::DeleteOrEnd,
            0x05 => Key::End,
            0x06 => Key::Right,
            0x0b => Key::KillToEnd,
            0x0e => Key::Newer,
            0x10 => Key::Older,
            0x15 => Key::KillToStart,
            0x17 => Key::KillWord,
            0x1b => {
                self.escape = Escape::Begun;
                return None;
            }
            _ => return None,
        })
    }

    /// Ends the line and remembers it.
    fn finish(&mut self) -> Line {
        let line = self.clear();
        let text = line.trim();
        let is_new = !text.is_empty() && self.history.last().is_none_or(|last| last.as_str() != text);
        if let Some(entry) = Line::from(text).ok().filter(|_| is_new) {
            if self.history.is_full() {
                self.history.remove(0);
            }
            self.history.push(entry);
        }
        self.shown = self.history.len();
        line
    }

    /// Empties the line. Returns what it was.
    fn clear(&mut self) -> Line {
        let line = self.text(0, self.line.len());
        self.line.clear();
        self.cursor = 0;
        self.shown = self.history.len();
        line
    }

    /// A part of the line. All of it is ASCII.
    fn text(&self, from: usize, to: usize) -> Line {
        let part = self.line.get(from..to).and_then(|part| core::str::from_utf8(part).ok());
        part.and_then(|part| Line::from(part).ok()).unwrap_or_default()
    }

    /// Where the word before the cursor begins, with the spaces behind it.
    fn word_start(&self) -> usize {
        let before = self.text(0, self.cursor);
        before.trim_end_matches(' ').rfind(' ').map_or(0, |space| space + 1)
    }

    fn move_to(&mut self, to: usize, out: &mut impl Write) -> fmt::Result {
        if to > self.cursor {
            out.write_str(&self.text(self.cursor, to))?;
        } else {
            back(self.cursor - to, out)?;
        }
        self.cursor = to;
        Ok(())
    }

    /// Inserts what fits.
    fn insert(&mut self, bytes: &[u8], out: &mut impl Write) -> fmt::Result {
        let from = self.cursor;
        for &byte in bytes {
            if self.line.try_insert(self.cursor, byte).is_err() {
                break;
            }
            self.cursor += 1;
        }
        out.write_str(&self.text(from, self.line.len()))?;
        back(self.line.len() - self.cursor, out)
    }

    /// Removes everything from `from` to the cursor.
    fn remove_from(&mut self, from: usize, out: &mut impl Write) -> fmt::Result {
        let removed = self.cursor - from;
        back(removed, out)?;
        self.line.drain(from..self.cursor);
        self.cursor = from;
        out.write_str(&self.text(from, self.line.len()))?;
        (0..removed).try_for_each(|_| out.write_char(' '))?;
        back(self.line.len() - from + removed, out)
    }

    /// Shows a line of the history, or the one that was typed.
    fn show(&mut self, which: Option<usize>, out: &mut impl Write) -> fmt::Result {
        let Some(which) = which else { return Ok(()) };
        if self.shown == self.history.len() {
            self.draft = self.text(0, self.line.len());
        }
        let line = self.history.get(which).copied().unwrap_or(self.draft);
        self.shown = which;
        self.move_to(self.line.len(), out)?;
        self.remove_from(0, out)?;
        self.insert(line.as_bytes(), out)
    }

    /// Completes the word before the cursor as far as all fitting words agree. Where that adds
    /// nothing, lists them.
    fn complete(
        &mut self,
        out: &mut impl Write,
        words: impl Fn(&str, &mut dyn FnMut(&'static str)),
    ) -> fmt::Result {
        let before = self.text(0, self.cursor);
        let (context, word) =
            before.rsplit_once(' ').map_or(("", before.as_str()), |(context, word)| (context, word));
        let (mut count, mut common) = (0, "");
        words(context, &mut |candidate| {
            if candidate.starts_with(word) {
                common = if count == 0 { candidate } else { common_start(common, candidate) };
                count += 1;
            }
        });
        let rest = common.get(word.len()..).unwrap_or_default();
        match count {
            0 => Ok(()),
            1 => {
                self.insert(rest.as_bytes(), out)?;
                self.insert(b" ", out)
            }
            _ if !rest.is_empty() => self.insert(rest.as_bytes(), out),
            _ => {
                let mut result = out.write_char('\n');
                words(context, &mut |candidate| {
                    if candidate.starts_with(word) && result.is_ok() {
                        result = write!(out, "  {candidate}");
                    }
                });
                result?;
                out.write_char('\n')?;
                self.prompt(out)?;
                out.write_str(&self.text(0, self.line.len()))?;
                back(self.line.len() - self.cursor, out)
            }
        }
    }
}

/// The key of an escape sequence that ends with `byte`.
fn final_key(byte: u8, parameter: u8) -> Option<Key> {
    Some(match (byte, parameter) {
        (b'A', _) => Key::Older,
        (b'B', _) => Key::Newer,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', 1 | 7) => Key::Start,
        (b'F', _) | (b'~', 4 | 8) => Key::End,
        (b'~', 3) => Key::Delete,
        _ => return None,
    })
}

fn common_start<'a>(a: &'a str, b: &str) -> &'a str {
    let len = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    a.get(..len).unwrap_or_default()
}

fn back(count: usize, out: &mut impl Write) -> fmt::Result {
    (0..count).try_for_each(|_| out.write_char('\x08'))
}
