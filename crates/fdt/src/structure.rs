//! Reading the structure block of a tree that was checked, word by word.

use core::str;

use crate::tokens::Token;

/// Where a walk over a checked structure block stands: before a token.
///
/// The check has found the grammar kept, so a walk that leaves the block ends without an error.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position<'a> {
    /// The structure block from the next token on.
    rest: &'a [u8],
    strings: &'a [u8],
}

/// A token of a checked structure block. Words without meaning are skipped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// A node begins. Its name follows, and is not read yet.
    BeginNode,
    /// The innermost node ends.
    EndNode,
    /// A property of the innermost node.
    Property {
        /// Its name as an offset in the strings block.
        name: u32,
        /// Its value without padding.
        value: &'a [u8],
    },
    /// The tree ends.
    End,
}

impl<'a> Position<'a> {
    pub fn new(structure: &'a [u8], strings: &'a [u8]) -> Self {
        Self { rest: structure, strings }
    }

    /// Returns the token here, and moves behind it; behind the name of a node only by
    /// [`name`](Self::name) or [`skip_name`](Self::skip_name).
    #[inline]
    pub fn step(&mut self) -> Step<'a> {
        while let Some((token, rest)) = word(self.rest) {
            match token {
                Token::BEGIN_NODE => {
                    self.rest = rest;
                    return Step::BeginNode;
                }
                Token::END_NODE => {
                    self.rest = rest;
                    return Step::EndNode;
                }
                Token::PROPERTY => {
                    let Some(property) = self.property(rest) else { break };
                    return property;
                }
                Token::NOP => self.rest = rest,
                _ => break,
            }
        }
        Step::End
    }

    #[inline]
    fn property(&mut self, head: &'a [u8]) -> Option<Step<'a>> {
        let Property { len, name, value, rest } = Property::at(head)?;
        self.rest = rest;
        Some(Step::Property { name, value: value.get(..len)? })
    }

    /// Returns the name of the node that begins here, with the NULs behind it, and moves behind
    /// them.
    #[inline]
    pub fn padded_name(&mut self) -> &'a [u8] {
        let name = self.rest;
        self.skip_name();
        name.get(..name.len() - self.rest.len()).unwrap_or_default()
    }

    /// Moves behind the name of the node that begins here.
    #[inline]
    pub fn skip_name(&mut self) {
        const ONES: u32 = 0x0101_0101;
        while let Some((word, rest)) = word(self.rest) {
            self.rest = rest;
            // Whether a byte of the word is 0: only such a word borrows into a byte's top bit that
            // was clear.
            if word.wrapping_sub(ONES) & !word & (ONES << 7) != 0 {
                return;
            }
        }
    }

    /// Moves behind the end of the node in which this position is, at its properties or between its
    /// subnodes.
    pub fn skip_node(&mut self) {
        let mut depth = 1usize;
        while let Some((token, rest)) = word(self.rest) {
            self.rest = rest;
            match token {
                Token::PROPERTY => {
                    let Some((len, _)) = word(rest) else { return };
                    // The offset of the name stands between the length and the value.
                    let end = (len as usize).saturating_add(8 + 3) & !3;
                    self.rest = rest.get(end..).unwrap_or_default();
                }
                Token::BEGIN_NODE => {
                    self.skip_name();
                    depth += 1;
                }
                Token::END_NODE if depth == 1 => return,
                Token::END_NODE => depth -= 1,
                _ => {}
            }
        }
    }

    /// Returns the values of several properties of the node at whose properties this position is,
    /// and moves behind all of them.
    #[inline]
    pub fn values<const N: usize>(&mut self, names: [&str; N]) -> [Option<&'a [u8]>; N] {
        let mut values = [None; N];
        while let Some((token, head)) = word(self.rest) {
            match token {
                Token::PROPERTY => {}
                Token::NOP => {
                    self.rest = head;
                    continue;
                }
                _ => break,
            }
            let Some(Property { len, name, value, rest }) = Property::at(head) else { break };
            self.rest = rest;
            let found = self.strings.get(name as usize..).unwrap_or_default();
            let wanted = names.iter().zip(&mut values).find(|(name, _)| begins_with(found, name));
            // Of two properties with one name the first counts.
            if let Some((_, place @ None)) = wanted {
                *place = value.get(..len);
            }
        }
        values
    }

    /// Returns the name at offset `at` of the strings block.
    pub fn name_at(&self, at: u32) -> &'a str {
        let found = self.strings.get(at as usize..).unwrap_or_default();
        text(found.split(|byte| *byte == 0).next().unwrap_or_default())
    }
}

/// What follows the token of a property.
struct Property<'a> {
    /// The length of its value.
    len: usize,
    /// Its name as an offset in the strings block.
    name: u32,
    /// The block from its value on.
    value: &'a [u8],
    /// The block behind it.
    rest: &'a [u8],
}

impl<'a> Property<'a> {
    #[inline]
    fn at(head: &'a [u8]) -> Option<Self> {
        let (len, head) = word(head)?;
        let (name, value) = word(head)?;
        let len = len as usize;
        let rest = value.get(len.saturating_add(3) & !3..)?;
        Some(Self { len, name, value, rest })
    }
}

/// Returns whether `name` stands at the start of `strings`, with its NUL.
#[inline]
fn begins_with(strings: &[u8], name: &str) -> bool {
    // Most names differ in their first byte.
    name.as_bytes().first().is_none_or(|first| strings.first() == Some(first))
        && strings.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

/// Returns the big-endian word at the start of `bytes`, and the bytes behind it.
#[inline]
fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(word, rest)| (u32::from_be_bytes(*word), rest))
}

/// Returns a name, which the check has found to be UTF-8.
pub(crate) fn text(name: &[u8]) -> &str {
    str::from_utf8(name).unwrap_or_default()
}
