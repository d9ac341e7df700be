//! Reading a flattened device tree token by token (Devicetree Specification v0.4, chapter 5), so that it can be
//! copied with changes.
//!
//! Names are not judged but for their length, and that generously: real trees have longer ones than the
//! specification allows.

use thiserror::Error;

pub(crate) const MAGIC: u32 = 0xd00d_feed;
/// The version written, and the one a tree has to be compatible with.
pub(crate) const VERSION: u32 = 17;
/// Length of the header in bytes.
pub(crate) const HEADER_LEN: usize = 40;
const RESERVATION_LEN: usize = 16;
/// Longest name in bytes. A bound keeps the walk linear when a hostile tree points all its properties at one
/// endless name.
const LONGEST_NAME: usize = 255;

pub(crate) const BEGIN_NODE: u32 = 1;
pub(crate) const END_NODE: u32 = 2;
pub(crate) const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Why a device tree can't be read. Offsets are in bytes from the start of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeviceTreeError {
    /// The tree is shorter than a header, or than its header says.
    #[error("the device tree is cut short: it needs {needed:#x} bytes and has {len:#x}")]
    CutShort {
        /// Bytes it should have.
        needed: usize,
        /// Bytes it has.
        len: usize,
    },
    /// It doesn't begin with the magic number of a flattened device tree.
    #[error("the device tree begins with {found:#010x} instead of 0xd00dfeed")]
    WrongMagic {
        /// The first word.
        found: u32,
    },
    /// It isn't compatible with version 17.
    #[error("the device tree has version {version}, compatible down to {last_compatible}; 17 is needed")]
    Version {
        /// Its version.
        version: u32,
        /// The oldest version whose readers understand it.
        last_compatible: u32,
    },
    /// A block doesn't lie within the tree, or is unaligned.
    #[error(
        "the device tree's {block} at offset {offset:#x} is unaligned, unended or leaves the {total:#x} bytes of the tree"
    )]
    BadBlock {
        /// Which block.
        block: &'static str,
        /// Where the header says it begins.
        offset: usize,
        /// Length of the tree in bytes, as the header says.
        total: usize,
    },
    /// The structure block breaks its own grammar.
    #[error("the device tree is corrupt at offset {offset:#x}: {what}")]
    Corrupt {
        /// Where.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

/// The blocks of a device tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceTree<'a> {
    /// The memory reservations with the empty one that ends them.
    pub(crate) reservations: &'a [u8],
    /// The strings block, which holds the names of properties.
    pub(crate) strings: &'a [u8],
    /// The CPU that booted, as its `reg` has it.
    pub(crate) boot_cpu: u32,
    /// Version of the oldest reader that understands the tree.
    pub(crate) last_compatible: u32,
    structure: &'a [u8],
    structure_at: usize,
}

/// What stands in the structure block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    BeginNode { name: &'a [u8] },
    EndNode,
    Property { name: &'a [u8] },
    Nop,
    End,
}

/// A token in its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) token: Token<'a>,
    /// Its bytes with their padding.
    pub(crate) bytes: &'a [u8],
    /// Offset in bytes from the start of the tree.
    pub(crate) offset: usize,
    /// Depth of the node that the token begins, ends or belongs to; the root's is 1.
    pub(crate) depth: usize,
}

impl<'a> DeviceTree<'a> {
    /// Finds the blocks. `bytes` may be longer than the tree.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, DeviceTreeError> {
        let cut = DeviceTreeError::CutShort { needed: HEADER_LEN, len: bytes.len() };
        let (header, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(cut)?;
        let (words, _) = header.as_chunks::<4>();
        let &[
            magic,
            total,
            structure,
            strings,
            reservations,
            version,
            compatible,
            boot_cpu,
            strings_len,
            len,
        ] = words
        else {
            return Err(cut);
        };
        let found = u32::from_be_bytes(magic);
        if found != MAGIC {
            return Err(DeviceTreeError::WrongMagic { found });
        }
        let [version, last_compatible] = [version, compatible].map(u32::from_be_bytes);
        if !(last_compatible..=version).contains(&VERSION) {
            return Err(DeviceTreeError::Version { version, last_compatible });
        }
        let size = |word| u32::from_be_bytes(word) as usize;
        let total = size(total);
        let cut = DeviceTreeError::CutShort { needed: total.max(HEADER_LEN), len: bytes.len() };
        let tree = bytes.get(..total).filter(|tree| tree.len() >= HEADER_LEN).ok_or(cut)?;
        let block = |block, offset, align: usize, len: Option<usize>| {
            let bytes = tree.get(offset..).filter(|_| offset.is_multiple_of(align));
            let bytes = bytes.and_then(|bytes| bytes.get(..len.unwrap_or(bytes.len())));
            bytes.ok_or(DeviceTreeError::BadBlock { block, offset, total })
        };
        let structure_at = size(structure);
        Ok(Self {
            reservations: {
                let offset = size(reservations);
                let all = block("memory reservation block", offset, 8, None)?;
                let (entries, _) = all.as_chunks::<RESERVATION_LEN>();
                let last = entries.iter().position(|entry| *entry == [0; RESERVATION_LEN]);
                let unended = DeviceTreeError::BadBlock { block: "memory reservation block", offset, total };
                last.and_then(|last| all.get(..(last + 1) * RESERVATION_LEN)).ok_or(unended)?
            },
            strings: block("strings block", size(strings), 1, Some(size(strings_len)))?,
            structure: block("structure block", structure_at, 4, Some(size(len)))?,
            structure_at,
            boot_cpu: u32::from_be_bytes(boot_cpu),
            last_compatible,
        })
    }

    /// The tokens of the structure block up to and with its end. Nothing follows an error.
    pub(crate) fn tokens(&self) -> Tokens<'a> {
        Tokens { tree: *self, at: 0, depth: 0, place: Place::BeforeRoot }
    }

    /// Where `name` stands in the strings block, as a whole string or the end of one.
    pub(crate) fn string_offset(&self, name: &str) -> Option<usize> {
        let with_nul = name.len() + 1;
        self.strings.windows(with_nul).position(|window| window.split_last() == Some((&0, name.as_bytes())))
    }
}

/// A walk over the structure block that checks its grammar.
#[derive(Clone, Debug)]
pub(crate) struct Tokens<'a> {
    tree: DeviceTree<'a>,
    at: usize,
    depth: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeRoot,
    /// In a node, before the first of its children.
    Properties,
    /// In a node, after a child.
    Children,
    AfterRoot,
    Ended,
}

impl<'a> Tokens<'a> {
    fn step(&mut self) -> Result<Piece<'a>, DeviceTreeError> {
        let offset = self.tree.structure_at + self.at;
        let corrupt = |what| DeviceTreeError::Corrupt { offset, what };
        let rest = self.tree.structure.get(self.at..).unwrap_or_default();
        let (words, _) = rest.as_chunks::<4>();
        let word = |index: usize| {
            words
                .get(index)
                .map(|&word| u32::from_be_bytes(word))
                .ok_or(corrupt("the block ends within a token"))
        };
        let (token, len) = match word(0)? {
            BEGIN_NODE => {
                let name = rest
                    .get(4..)
                    .and_then(name_of)
                    .ok_or(corrupt("a node name does not end within 255 bytes"))?;
                (Token::BeginNode { name }, 4 + name.len() + 1)
            }
            END_NODE => (Token::EndNode, 4),
            PROPERTY => {
                let [value_len, name_at] = [word(1)? as usize, word(2)? as usize];
                let name = self.tree.strings.get(name_at..).and_then(name_of);
                let name = name
                    .ok_or(corrupt("a property's name does not end within 255 bytes of the strings block"))?;
                (Token::Property { name }, value_len.saturating_add(12))
            }
            NOP => (Token::Nop, 4),
            END => (Token::End, 4),
            _ => return Err(corrupt("there is no such token")),
        };
        let padded = len.checked_next_multiple_of(4).and_then(|len| rest.get(..len));
        let bytes = padded.ok_or(corrupt("a name or value goes beyond the block"))?;

        let mut depth = self.depth;
        self.place = match (token, self.place) {
            (Token::Nop, place) => place,
            (Token::BeginNode { .. }, Place::BeforeRoot | Place::Properties | Place::Children) => {
                depth += 1;
                self.depth = depth;
                Place::Properties
            }
            (Token::EndNode, Place::Properties | Place::Children) => {
                self.depth = depth.saturating_sub(1);
                if self.depth == 0 { Place::AfterRoot } else { Place::Children }
            }
            (Token::Property { .. }, Place::Properties) => Place::Properties,
            (Token::End, Place::AfterRoot) => Place::Ended,
            (Token::BeginNode { .. }, _) => return Err(corrupt("a second root node")),
            (Token::EndNode, _) => return Err(corrupt("the end of a node that never began")),
            (Token::Property { .. }, _) => {
                return Err(corrupt("a property outside a node or after a child node"));
            }
            (Token::End, _) => return Err(corrupt("the end of the tree within a node")),
        };
        self.at += bytes.len();
        Ok(Piece { token, bytes, offset, depth })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Piece<'a>, DeviceTreeError>;

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

/// The name at the start of `bytes`, without its NUL.
fn name_of(bytes: &[u8]) -> Option<&[u8]> {
    bytes.iter().take(LONGEST_NAME + 1).position(|&byte| byte == 0).and_then(|end| bytes.get(..end))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const RESERVATIONS_AT: u32 = 40;
    const STRUCTURE_AT: u32 = 56;

    /// A tree of the words given as its structure block, and the strings `a` and (unended) `b`.
    fn tree(structure: &[u32]) -> Vec<u8> {
        let structure_len = 4 * structure.len() as u32;
        let strings_at = STRUCTURE_AT + structure_len;
        let header =
            [MAGIC, strings_at + 3, STRUCTURE_AT, strings_at, RESERVATIONS_AT, 17, 16, 0, 3, structure_len];
        let words = header.iter().chain(&[0; 4]).chain(structure);
        words.flat_map(|word| word.to_be_bytes()).chain(*b"a\0b").collect()
    }

    /// A tree that is right, with one word of its header changed.
    fn changed(word: usize, value: u32) -> Vec<u8> {
        let mut bytes = tree(&[BEGIN_NODE, 0, END_NODE, END]);
        bytes[4 * word..4 * word + 4].copy_from_slice(&value.to_be_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<usize, DeviceTreeError> {
        let tree = DeviceTree::parse(bytes)?;
        tree.tokens().try_fold(0, |count, piece| piece.map(|_| count + 1))
    }

    fn corrupt_at(structure: &[u32]) -> u32 {
        match read(&tree(structure)) {
            Err(DeviceTreeError::Corrupt { offset, .. }) => offset as u32 - STRUCTURE_AT,
            other => panic!("{structure:x?} gave {other:?}"),
        }
    }

    #[test]
    fn tokens_come_with_the_depth_of_their_node() {
        let name = u32::from_be_bytes(*b"abc\0");
        let bytes = tree(&[
            NOP,
            BEGIN_NODE,
            0,
            PROPERTY,
            2,
            0,
            0xffff_0000,
            BEGIN_NODE,
            name,
            END_NODE,
            NOP,
            END_NODE,
            END,
        ]);
        let tokens: Vec<_> = DeviceTree::parse(&bytes).unwrap().tokens().map(Result::unwrap).collect();
        let seen: Vec<_> = tokens.iter().map(|piece| (piece.token, piece.depth, piece.bytes.len())).collect();
        assert_eq!(
            seen,
            [
                (Token::Nop, 0, 4),
                (Token::BeginNode { name: b"" }, 1, 8),
                (Token::Property { name: b"a" }, 1, 16),
                (Token::BeginNode { name: b"abc" }, 2, 8),
                (Token::EndNode, 2, 4),
                (Token::Nop, 1, 4),
                (Token::EndNode, 1, 4),
                (Token::End, 0, 4),
            ]
        );
    }

    #[test]
    fn a_tree_that_is_cut_short_is_refused() {
        let bytes = tree(&[BEGIN_NODE, 0, END_NODE, END]);
        assert_eq!(read(&bytes), Ok(3));
        let needed = bytes.len();
        let len = needed - 1;
        assert_eq!(read(&bytes[..len]), Err(DeviceTreeError::CutShort { needed, len }));
        assert_eq!(read(&bytes[..39]), Err(DeviceTreeError::CutShort { needed: 40, len: 39 }));
        assert_eq!(read(&changed(1, 39)), Err(DeviceTreeError::CutShort { needed: 40, len: needed }));
    }

    #[test]
    fn another_kind_of_file_or_version_is_refused() {
        assert_eq!(read(&changed(0, 7)), Err(DeviceTreeError::WrongMagic { found: 7 }));
        for (word, version, last_compatible) in [(5, 16, 16), (6, 17, 18)] {
            let value = if word == 5 { version } else { last_compatible };
            assert_eq!(
                read(&changed(word, value)),
                Err(DeviceTreeError::Version { version, last_compatible })
            );
        }
    }

    #[test]
    fn blocks_outside_the_tree_or_unaligned_are_refused() {
        for (word, value) in
            [(2, 0xffff_fffc), (2, 57), (3, 0xffff_ffff), (4, 44), (4, 64), (8, 4), (9, 0xffff_fff0)]
        {
            let error = read(&changed(word, value)).unwrap_err();
            assert!(matches!(error, DeviceTreeError::BadBlock { .. }), "word {word} {value:#x}: {error}");
        }
        let mut unended = tree(&[BEGIN_NODE, 0, END_NODE, END]);
        unended[47] = 1;
        let error = read(&unended).unwrap_err();
        assert!(matches!(error, DeviceTreeError::BadBlock { offset: 40, .. }), "{error}");
    }

    #[test]
    fn a_structure_block_that_breaks_the_grammar_is_refused_where_it_does() {
        assert_eq!(corrupt_at(&[]), 0);
        assert_eq!(corrupt_at(&[END]), 0);
        assert_eq!(corrupt_at(&[END_NODE]), 0);
        assert_eq!(corrupt_at(&[5]), 0);
        assert_eq!(corrupt_at(&[PROPERTY, 0, 0]), 0);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0]), 8);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0, END]), 8);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0x6161_6161]), 0);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0, END_NODE]), 12);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0, END_NODE, BEGIN_NODE, 0]), 12);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0, PROPERTY, 8, 0, 1]), 8);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0, PROPERTY, u32::MAX, 0, 1]), 8);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0, PROPERTY, 0]), 8);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0, PROPERTY, 0, 2]), 8);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0, PROPERTY, 0, u32::MAX]), 8);
        assert_eq!(corrupt_at(&[BEGIN_NODE, 0, BEGIN_NODE, 0, END_NODE, PROPERTY, 0, 0]), 20);
    }
}
