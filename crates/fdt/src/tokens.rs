//! A walk over the structure block of a device tree that checks every token (Devicetree Specification v0.4,
//! section 5.4).

use core::str;

use crate::DtbError;

/// Longest node or property name in bytes. Far above what exists; a bound keeps the walk linear when a hostile
/// tree points a thousand properties at one endless name.
const LONGEST_NAME: usize = 255;
/// What stands before a property's value: its token, the value's length, where the name is.
const PROPERTY_HEAD: usize = 12;
const BEYOND: &str = "a name or value reaches beyond the structure block";

/// What stands in the structure block.
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
    /// Nothing.
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

/// A token in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// What it says.
    pub token: Token<'a>,
    /// All its bytes with their padding, a multiple of 4.
    pub bytes: &'a [u8],
    /// Where it begins, in bytes from the start of the blob.
    pub offset: usize,
    /// Depth of the node that the token begins, ends or belongs to. The root's is 1.
    pub depth: usize,
}

/// The tokens of a structure block in their order. Nothing follows an error or the end of the tree.
///
/// Once the end was reached, the tokens make one tree: its root comes first, properties come before the subnodes
/// of their node, and all names are UTF-8 of at most 255 bytes.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    /// The structure block from the next token on.
    rest: &'a [u8],
    /// Where that begins in the blob.
    offset: usize,
    strings: &'a [u8],
    depth: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeRoot,
    /// In a node, before the first of its subnodes.
    Properties,
    /// In a node, behind a subnode.
    Subnodes,
    AfterRoot,
    Ended,
}

impl<'a> Tokens<'a> {
    /// The structure block begins at `offset` of its blob.
    pub(crate) fn new(structure: &'a [u8], offset: usize, strings: &'a [u8]) -> Self {
        Self { rest: structure, offset, strings, depth: 0, place: Place::BeforeRoot }
    }

    fn step(&mut self) -> Result<Piece<'a>, DtbError> {
        let offset = self.offset;
        let corrupt = |at, why| DtbError::Corrupt { offset: offset + at, why };
        let (token, len) = self.token()?;
        let (place, depth) = self.after(token)?;
        let padded = len.checked_next_multiple_of(4).and_then(|len| self.rest.split_at_checked(len));
        let (bytes, rest) = padded.ok_or(corrupt(4, BEYOND))?;
        // A node's depth is that after its beginning and before its end.
        let piece = Piece { token, bytes, offset, depth: self.depth.max(depth) };
        *self = Self { rest, offset: offset + bytes.len(), strings: self.strings, depth, place };
        Ok(piece)
    }

    /// The next token and its length in bytes without padding.
    fn token(&self) -> Result<(Token<'a>, usize), DtbError> {
        let corrupt = |at, why| Err(DtbError::Corrupt { offset: self.offset + at, why });
        let (words, _) = self.rest.as_chunks::<4>();
        let word = |index: usize| words.get(index).copied().map(u32::from_be_bytes);
        match word(0) {
            Some(Token::BEGIN_NODE) => match self.rest.get(4..).and_then(name_of) {
                Some(name) => Ok((Token::BeginNode { name }, 4 + name.len() + 1)),
                None => corrupt(4, "a node name has no end, over 255 bytes or no UTF-8"),
            },
            Some(Token::END_NODE) => Ok((Token::EndNode, 4)),
            Some(Token::PROPERTY) => {
                let (Some(len), Some(name)) = (word(1), word(2)) else {
                    return corrupt(4, "the structure block ends inside a property");
                };
                let Some(name) = self.strings.get(name as usize..).and_then(name_of) else {
                    return corrupt(
                        8,
                        "a property name lies outside the strings block, has no end, over 255 bytes or no UTF-8",
                    );
                };
                let end = (len as usize).saturating_add(PROPERTY_HEAD);
                match self.rest.get(PROPERTY_HEAD..end) {
                    Some(value) => Ok((Token::Property { name, value }, end)),
                    None => corrupt(4, BEYOND),
                }
            }
            Some(Token::NOP) => Ok((Token::Nop, 4)),
            Some(Token::END) => Ok((Token::End, 4)),
            Some(_) => corrupt(0, "there is no such token"),
            None => corrupt(0, "the structure block ends inside the tree"),
        }
    }

    /// Place and depth behind `token`, if the grammar allows it here.
    fn after(&self, token: Token<'_>) -> Result<(Place, usize), DtbError> {
        let corrupt = |at, why| Err(DtbError::Corrupt { offset: self.offset + at, why });
        let depth = self.depth;
        match (token, self.place) {
            // The specification allows it, but dtoolkit, as libfdt, looks for the root where the block begins.
            (Token::Nop, Place::BeforeRoot) => corrupt(0, "the tree does not begin with its root node"),
            (Token::Nop, place) => Ok((place, depth)),
            (Token::BeginNode { .. }, Place::AfterRoot | Place::Ended) => {
                corrupt(0, "there is a second root node")
            }
            (Token::BeginNode { name }, _) if name.is_empty() != (depth == 0) => {
                corrupt(4, "only the root node has no name")
            }
            (Token::BeginNode { .. }, _) => Ok((Place::Properties, depth + 1)),
            (Token::EndNode, Place::Properties | Place::Subnodes) => match depth.saturating_sub(1) {
                0 => Ok((Place::AfterRoot, 0)),
                parent => Ok((Place::Subnodes, parent)),
            },
            (Token::EndNode, _) => corrupt(0, "a node ends that never began"),
            (Token::Property { .. }, Place::Properties) => Ok((Place::Properties, depth)),
            (Token::Property { .. }, _) => corrupt(0, "a property stands outside a node or behind a subnode"),
            (Token::End, Place::AfterRoot) => Ok((Place::Ended, 0)),
            (Token::End, _) => corrupt(0, "the tree ends before its root node does"),
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Piece<'a>, DtbError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.place == Place::Ended {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.place = Place::Ended;
        }
        Some(step)
    }
}

/// The name that `bytes` begin with, without its NUL.
fn name_of(bytes: &[u8]) -> Option<&str> {
    let len = bytes.iter().take(LONGEST_NAME + 1).position(|&byte| byte == 0)?;
    str::from_utf8(bytes.get(..len)?).ok()
}
