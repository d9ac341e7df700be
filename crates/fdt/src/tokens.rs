//! A walk over the structure block of a device tree that checks every token (Devicetree
//! Specification v0.4, section 5.4).

use core::str;

use crate::dtb_error::{DtbError, TreeRule};

/// The longest name of a node or property in bytes, far above all names in use. With a bound the
/// walk stays linear even if a hostile tree points a thousand properties at one endless name.
const LONGEST_NAME: usize = 255;
/// Length of the words before a property's value: the token, the value's length, the name's offset.
const PROPERTY_HEAD: usize = 12;

/// A token of the structure block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A node begins.
    BeginNode {
        /// Its name with its unit address. Only the root's is empty.
        name: &'a str,
    },
    /// The innermost node ends.
    EndNode,
    /// A property of the innermost node, with its value.
    Property {
        /// Its name from the strings block.
        name: &'a str,
        /// Its value without padding.
        value: &'a [u8],
    },
    /// A word without meaning.
    Nop,
    /// The end of the tree.
    End,
}

impl Token<'_> {
    /// The word that begins a node.
    pub const BEGIN_NODE: u32 = 1;
    /// The word that ends a node.
    pub const END_NODE: u32 = 2;
    /// The word that begins a property.
    pub const PROPERTY: u32 = 3;
    const NOP: u32 = 4;
    const END: u32 = 9;
}

/// A token with its bytes and its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The token.
    pub token: Token<'a>,
    /// All its bytes with their padding, a multiple of 4.
    pub bytes: &'a [u8],
    /// Its offset in bytes from the start of the blob.
    pub offset: usize,
    /// Depth of the node that the token begins, ends or belongs to. The root's is 1.
    pub depth: usize,
}

/// The tokens of a structure block in their order. An error and the end of the tree are the last
/// items.
///
/// If the last item is [`Token::End`], the tokens form one tree: the root comes first, the
/// properties of a node come before its subnodes, and all names are UTF-8 of at most 255 bytes.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    /// The structure block from the next token on.
    rest: &'a [u8],
    /// Its offset in the blob.
    offset: usize,
    strings: &'a [u8],
    depth: usize,
    position: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    BeforeRoot,
    /// In a node, before the first of its subnodes.
    Properties,
    /// In a node, after a subnode.
    Subnodes,
    AfterRoot,
    Ended,
}

impl<'a> Tokens<'a> {
    /// Returns the tokens of a structure block at `offset` of its blob.
    pub(crate) fn new(structure: &'a [u8], offset: usize, strings: &'a [u8]) -> Self {
        Self { rest: structure, offset, strings, depth: 0, position: Position::BeforeRoot }
    }

    fn step(&mut self) -> Result<Piece<'a>, DtbError> {
        let offset = self.offset;
        let corrupt = |at, rule| DtbError::Corrupt { offset: offset + at, rule };
        let (token, len) = self.token()?;
        let (position, depth) = self.after(token)?;
        let padded = len.checked_next_multiple_of(4).and_then(|len| self.rest.split_at_checked(len));
        let (bytes, rest) = padded.ok_or(corrupt(4, TreeRule::WithinBlock))?;
        // The depth of a node counts the node itself, at its beginning and at its end.
        let piece = Piece { token, bytes, offset, depth: self.depth.max(depth) };
        *self = Self { rest, offset: offset + bytes.len(), strings: self.strings, depth, position };
        Ok(piece)
    }

    /// Returns the next token and its length in bytes without padding.
    fn token(&self) -> Result<(Token<'a>, usize), DtbError> {
        let corrupt = |at, rule| Err(DtbError::Corrupt { offset: self.offset + at, rule });
        let (words, _) = self.rest.as_chunks::<4>();
        let word = |index: usize| words.get(index).copied().map(u32::from_be_bytes);
        match word(0) {
            Some(Token::BEGIN_NODE) => match self.rest.get(4..).and_then(name_of) {
                Some(name) => Ok((Token::BeginNode { name }, 4 + name.len() + 1)),
                None => corrupt(4, TreeRule::NodeName),
            },
            Some(Token::END_NODE) => Ok((Token::EndNode, 4)),
            Some(Token::PROPERTY) => {
                let (Some(len), Some(name)) = (word(1), word(2)) else {
                    return corrupt(4, TreeRule::PropertyHead);
                };
                let Some(name) = self.strings.get(name as usize..).and_then(name_of) else {
                    return corrupt(8, TreeRule::PropertyName);
                };
                let end = (len as usize).saturating_add(PROPERTY_HEAD);
                match self.rest.get(PROPERTY_HEAD..end) {
                    Some(value) => Ok((Token::Property { name, value }, end)),
                    None => corrupt(4, TreeRule::WithinBlock),
                }
            }
            Some(Token::NOP) => Ok((Token::Nop, 4)),
            Some(Token::END) => Ok((Token::End, 4)),
            Some(_) => corrupt(0, TreeRule::KnownToken),
            None => corrupt(0, TreeRule::Complete),
        }
    }

    /// Returns position and depth after `token`, if the grammar allows it here.
    fn after(&self, token: Token<'_>) -> Result<(Position, usize), DtbError> {
        let corrupt = |at, rule| Err(DtbError::Corrupt { offset: self.offset + at, rule });
        let depth = self.depth;
        match (token, self.position) {
            // The specification allows it, but dtoolkit, as libfdt, looks for the root where the
            // block begins.
            (Token::Nop, Position::BeforeRoot) => corrupt(0, TreeRule::RootFirst),
            (Token::Nop, position) => Ok((position, depth)),
            (Token::BeginNode { .. }, Position::AfterRoot | Position::Ended) => corrupt(0, TreeRule::OneRoot),
            (Token::BeginNode { name }, _) if name.is_empty() != (depth == 0) => {
                corrupt(4, TreeRule::RootName)
            }
            (Token::BeginNode { .. }, _) => Ok((Position::Properties, depth + 1)),
            (Token::EndNode, Position::Properties | Position::Subnodes) => match depth.saturating_sub(1) {
                0 => Ok((Position::AfterRoot, 0)),
                parent => Ok((Position::Subnodes, parent)),
            },
            (Token::EndNode, _) => corrupt(0, TreeRule::BalancedNodes),
            (Token::Property { .. }, Position::Properties) => Ok((Position::Properties, depth)),
            (Token::Property { .. }, _) => corrupt(0, TreeRule::PropertyPlace),
            (Token::End, Position::AfterRoot) => Ok((Position::Ended, 0)),
            (Token::End, _) => corrupt(0, TreeRule::RootEnds),
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Piece<'a>, DtbError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position == Position::Ended {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.position = Position::Ended;
        }
        Some(step)
    }
}

/// Returns the name at the start of `bytes`, without its NUL.
fn name_of(bytes: &[u8]) -> Option<&str> {
    let len = bytes.iter().take(LONGEST_NAME + 1).position(|&byte| byte == 0)?;
    str::from_utf8(bytes.get(..len)?).ok()
}
