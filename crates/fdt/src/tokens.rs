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
    pub(crate) const NOP: u32 = 4;
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

    /// Checks all tokens, and calls `see` with the name, the offset in the blob and the depth of
    /// each node.
    pub(crate) fn check(mut self, mut see: impl FnMut(&[u8], usize, usize)) -> Result<(), DtbError> {
        let mut good = GoodNames([GoodNames::NONE; _]);
        while self.position != Position::Ended {
            self.skip_good_properties(&good);
            let offset = self.offset;
            let raw = self.raw_step()?;
            match raw.token {
                Raw::BeginNode { name } => see(name, offset, raw.depth),
                Raw::Property { name, .. } => {
                    self.property_name(name, offset)?;
                    good.add(name);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Moves behind properties that are whole, stand where they may, and have names that were found
    /// good: most of a tree.
    fn skip_good_properties(&mut self, good: &GoodNames) {
        if self.position != Position::Properties {
            return;
        }
        while let Some((head, value)) = self.rest.split_first_chunk::<PROPERTY_HEAD>() {
            let [token, len, name] = [0, 4, 8].map(|at| {
                head.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes)
            });
            let padded = (len as usize).checked_next_multiple_of(4);
            let Some(rest) = padded.and_then(|len| value.get(len..)) else { return };
            if token != Token::PROPERTY || !good.has(name) {
                return;
            }
            self.offset += self.rest.len() - rest.len();
            self.rest = rest;
        }
    }

    fn step(&mut self) -> Result<Piece<'a>, DtbError> {
        let offset = self.offset;
        let RawPiece { token, bytes, depth } = self.raw_step()?;
        let token = match token {
            // It was checked.
            Raw::BeginNode { name } => Token::BeginNode { name: str::from_utf8(name).unwrap_or_default() },
            Raw::EndNode => Token::EndNode,
            Raw::Property { name, value } => {
                let name = str::from_utf8(self.property_name(name, offset)?).unwrap_or_default();
                Token::Property { name, value }
            }
            Raw::Nop => Token::Nop,
            Raw::End => Token::End,
        };
        Ok(Piece { token, bytes, offset, depth })
    }

    /// Returns the name at offset `name` of the strings block, of the property whose token is at
    /// `offset` of the blob.
    fn property_name(&self, name: u32, offset: usize) -> Result<&'a [u8], DtbError> {
        let found = self.strings.get(name as usize..).and_then(utf8_name);
        found.ok_or(DtbError::Corrupt { offset: offset + 8, rule: TreeRule::PropertyName })
    }

    /// Returns the next token, and moves behind it.
    #[inline]
    fn raw_step(&mut self) -> Result<RawPiece<'a>, DtbError> {
        let (token, len) = self.token()?;
        let (position, depth) = self.after(token)?;
        let padded = len.checked_next_multiple_of(4).and_then(|len| self.rest.split_at_checked(len));
        let corrupt = DtbError::Corrupt { offset: self.offset + 4, rule: TreeRule::WithinBlock };
        let (bytes, rest) = padded.ok_or(corrupt)?;
        // The depth of a node counts the node itself, at its beginning and at its end.
        let piece = RawPiece { token, bytes, depth: self.depth.max(depth) };
        *self = Self { rest, offset: self.offset + bytes.len(), strings: self.strings, depth, position };
        Ok(piece)
    }

    /// Returns the next token and its length in bytes without padding.
    #[inline]
    fn token(&self) -> Result<(Raw<'a>, usize), DtbError> {
        let corrupt = |at, rule| Err(DtbError::Corrupt { offset: self.offset + at, rule });
        let (words, _) = self.rest.as_chunks::<4>();
        let word = |index: usize| words.get(index).copied().map(u32::from_be_bytes);
        match word(0) {
            Some(Token::BEGIN_NODE) => match self.rest.get(4..).and_then(utf8_name) {
                Some(name) => Ok((Raw::BeginNode { name }, 4 + name.len() + 1)),
                None => corrupt(4, TreeRule::NodeName),
            },
            Some(Token::END_NODE) => Ok((Raw::EndNode, 4)),
            Some(Token::PROPERTY) => {
                let (Some(len), Some(name)) = (word(1), word(2)) else {
                    return corrupt(4, TreeRule::PropertyHead);
                };
                let end = (len as usize).saturating_add(PROPERTY_HEAD);
                match self.rest.get(PROPERTY_HEAD..end) {
                    Some(value) => Ok((Raw::Property { name, value }, end)),
                    None => corrupt(4, TreeRule::WithinBlock),
                }
            }
            Some(Token::NOP) => Ok((Raw::Nop, 4)),
            Some(Token::END) => Ok((Raw::End, 4)),
            Some(_) => corrupt(0, TreeRule::KnownToken),
            None => corrupt(0, TreeRule::Complete),
        }
    }

    /// Returns position and depth after `token`, if the grammar allows it here.
    #[inline]
    fn after(&self, token: Raw<'_>) -> Result<(Position, usize), DtbError> {
        let corrupt = |at, rule| Err(DtbError::Corrupt { offset: self.offset + at, rule });
        let depth = self.depth;
        match (token, self.position) {
            // The specification allows it, but libfdt looks for the root where the block begins.
            (Raw::Nop, Position::BeforeRoot) => corrupt(0, TreeRule::RootFirst),
            (Raw::Nop, position) => Ok((position, depth)),
            (Raw::BeginNode { .. }, Position::AfterRoot | Position::Ended) => corrupt(0, TreeRule::OneRoot),
            (Raw::BeginNode { name }, _) if name.is_empty() != (depth == 0) => corrupt(4, TreeRule::RootName),
            (Raw::BeginNode { .. }, _) => Ok((Position::Properties, depth + 1)),
            (Raw::EndNode, Position::Properties | Position::Subnodes) => match depth.saturating_sub(1) {
                0 => Ok((Position::AfterRoot, 0)),
                parent => Ok((Position::Subnodes, parent)),
            },
            (Raw::EndNode, _) => corrupt(0, TreeRule::BalancedNodes),
            (Raw::Property { .. }, Position::Properties) => Ok((Position::Properties, depth)),
            (Raw::Property { .. }, _) => corrupt(0, TreeRule::PropertyPlace),
            (Raw::End, Position::AfterRoot) => Ok((Position::Ended, 0)),
            (Raw::End, _) => corrupt(0, TreeRule::RootEnds),
        }
    }
}

/// Names of properties that were found good, by their offsets in the strings block. A tree has few
/// names and many properties. Of two offsets with one place the last is known.
struct GoodNames([u32; Self::PLACES]);

impl GoodNames {
    /// Most machines have fewer than a hundred names.
    const PLACES: usize = 256;
    /// An offset that no name has.
    const NONE: u32 = u32::MAX;

    fn index(name: u32) -> usize {
        (name ^ name >> 8) as usize % Self::PLACES
    }

    fn has(&self, name: u32) -> bool {
        self.0[Self::index(name)] == name && name != Self::NONE
    }

    fn add(&mut self, name: u32) {
        self.0[Self::index(name)] = name;
    }
}

/// A token whose name in the strings block is not checked.
#[derive(Clone, Copy)]
enum Raw<'a> {
    BeginNode {
        name: &'a [u8],
    },
    EndNode,
    /// `name` is an offset in the strings block.
    Property {
        name: u32,
        value: &'a [u8],
    },
    Nop,
    End,
}

struct RawPiece<'a> {
    token: Raw<'a>,
    bytes: &'a [u8],
    depth: usize,
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

/// Returns the name at the start of `bytes`, without its NUL, if it is UTF-8 and not too long.
#[inline]
fn utf8_name(bytes: &[u8]) -> Option<&[u8]> {
    const LOWEST_BITS: u64 = 0x0101_0101_0101_0101;
    const HIGHEST_BITS: u64 = LOWEST_BITS << 7;
    let (words, _) = bytes.get(..LONGEST_NAME + 1).unwrap_or(bytes).as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // Its lowest bit is in the first NUL, if there is one: only above that can a borrow set
        // another bit.
        let nul = word.wrapping_sub(LOWEST_BITS) & !word & HIGHEST_BITS;
        let before_nul = nul.wrapping_sub(1) & !nul;
        if word & before_nul & HIGHEST_BITS != 0 {
            break;
        }
        if nul != 0 {
            return bytes.get(..8 * index + nul.trailing_zeros() as usize / 8);
        }
    }
    // It is not ASCII, or ends in the last bytes of its block.
    let len = bytes.iter().take(LONGEST_NAME + 1).position(|&byte| byte == 0)?;
    bytes.get(..len).filter(|name| str::from_utf8(name).is_ok())
}
