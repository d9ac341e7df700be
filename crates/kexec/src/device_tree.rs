//! Reading a flattened device tree token by token (Devicetree Specification v0.4, chapter 5), so that it can be
//! copied with changes.
//!
//! Names are not judged: real trees have longer ones than the specification allows.

use thiserror::Error;

pub(crate) const MAGIC: u32 = 0xd00d_feed;
/// The version written, and the one a tree has to be compatible with.
pub(crate) const VERSION: u32 = 17;
/// Length of the header in bytes.
pub(crate) const HEADER_LEN: usize = 40;
const RESERVATION_LEN: usize = 16;

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
    #[error("the device tree's {block} at offset {offset:#x} is unaligned, unended or leaves the {total:#x} bytes of the tree")]
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
        let &[magic, total, structure, strings, reservations, version, compatible, boot_cpu, strings_len, len] = words
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
            words.get(index).map(|&word| u32::from_be_bytes(word)).ok_or(corrupt("the block ends within a token"))
        };
        let (token, len) = match word(0)? {
            BEGIN_NODE => {
                let name = rest.get(4..).and_then(nul_terminated).ok_or(corrupt("a node name has no end"))?;
                (Token::BeginNode { name }, 4 + name.len() + 1)
            }
            END_NODE => (Token::EndNode, 4),
            PROPERTY => {
                let [value_len, name_at] = [word(1)? as usize, word(2)? as usize];
                let name = self.tree.strings.get(name_at..).and_then(nul_terminated);
                let name = name.ok_or(corrupt("a property's name lies outside the strings block"))?;
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
            (Token::Property { .. }, _) => return Err(corrupt("a property outside a node or after a child node")),
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

fn nul_terminated(bytes: &[u8]) -> Option<&[u8]> {
    bytes.iter().position(|&byte| byte == 0).and_then(|end| bytes.get(..end))
}
