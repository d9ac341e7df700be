//! Writing pieces of a flattened device tree (Devicetree Specification v0.4, chapter 5).

use core::fmt;

use linmap_fdt::{DeviceTree, Token};
use linmap_vmsa::PaRange;

use crate::TreeError;
use crate::cells::Widths;
use crate::output::Output;

/// The properties that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Bootargs,
    InitrdStart,
    InitrdEnd,
    KaslrSeed,
    RngSeed,
    UsableMemory,
    ElfCoreHeader,
    ReleaseAddress,
    AddressCells,
    SizeCells,
    Ranges,
    Compatible,
    Reg,
    Label,
}

impl Name {
    const ALL: [Self; 14] = [
        Self::Bootargs,
        Self::InitrdStart,
        Self::InitrdEnd,
        Self::KaslrSeed,
        Self::RngSeed,
        Self::UsableMemory,
        Self::ElfCoreHeader,
        Self::ReleaseAddress,
        Self::AddressCells,
        Self::SizeCells,
        Self::Ranges,
        Self::Compatible,
        Self::Reg,
        Self::Label,
    ];

    pub const fn text(self) -> &'static str {
        match self {
            Self::Bootargs => "bootargs",
            Self::InitrdStart => "linux,initrd-start",
            Self::InitrdEnd => "linux,initrd-end",
            Self::KaslrSeed => "kaslr-seed",
            Self::RngSeed => "rng-seed",
            Self::UsableMemory => "linux,usable-memory-range",
            Self::ElfCoreHeader => "linux,elfcorehdr",
            Self::ReleaseAddress => "cpu-release-addr",
            Self::AddressCells => "#address-cells",
            Self::SizeCells => "#size-cells",
            Self::Ranges => "ranges",
            Self::Compatible => "compatible",
            Self::Reg => "reg",
            Self::Label => "label",
        }
    }
}

/// Where the names are in the strings block of the result. Those that the source doesn't have follow its strings, all
/// of them whether they are used or not, so that the block is the same whatever is written.
struct Names {
    offsets: [usize; Name::ALL.len()],
    new: [Option<Name>; Name::ALL.len()],
}

impl Names {
    fn new(strings: &[u8]) -> Self {
        let mut end = strings.len();
        let found = Name::ALL.map(|name| (name, offset_of(name.text(), strings)));
        let offsets = found.map(|(name, offset)| {
            offset.unwrap_or_else(|| {
                let offset = end;
                end = end.saturating_add(name.text().len() + 1);
                offset
            })
        });
        Self { offsets, new: found.map(|(name, offset)| offset.is_none().then_some(name)) }
    }
}

/// Where `name` stands in the strings block, as a whole string or the end of one.
fn offset_of(name: &str, strings: &[u8]) -> Option<usize> {
    strings.windows(name.len() + 1).position(|end| end.split_last() == Some((&0, name.as_bytes())))
}

/// A device tree that is written piece by piece: first its structure, then [`finish`](Self::finish).
pub(crate) struct TreeOutput<'t, 'b> {
    tree: &'t DeviceTree<'t>,
    names: Names,
    output: Output<'b>,
    structure_at: usize,
}

impl<'t, 'b> TreeOutput<'t, 'b> {
    /// Begins a tree with the reservations of `tree`.
    pub fn new(tree: &'t DeviceTree<'t>, buffer: &'b mut [u8]) -> Self {
        let mut output = Output::new(buffer);
        output.put(&[0; DeviceTree::HEADER_LEN]);
        output.put(tree.reservations);
        let structure_at = output.len();
        Self { tree, names: Names::new(tree.strings), output, structure_at }
    }

    /// A token as it stands in the source.
    pub fn put(&mut self, bytes: &[u8]) {
        self.output.put(bytes);
    }

    pub fn begin_node(&mut self, name: fmt::Arguments<'_>) {
        self.put_u32(Token::BEGIN_NODE);
        // The output takes everything.
        let _ = fmt::Write::write_fmt(&mut self.output, name);
        self.output.put(&[0]);
        self.output.pad();
    }

    pub fn end_node(&mut self) {
        self.put_u32(Token::END_NODE);
    }

    pub fn property(&mut self, name: Name, value: &[u8]) -> Result<(), TreeError> {
        self.property_head(name, value.len())?;
        self.output.put(value);
        self.output.pad();
        Ok(())
    }

    pub fn property_string(&mut self, name: Name, text: &str) -> Result<(), TreeError> {
        self.property_head(name, text.len().saturating_add(1))?;
        self.output.put(text.as_bytes());
        self.output.put(&[0]);
        self.output.pad();
        Ok(())
    }

    pub fn property_ranges(
        &mut self,
        name: Name,
        ranges: &[PaRange],
        widths: Widths,
    ) -> Result<(), TreeError> {
        self.property_head(name, widths.len().saturating_mul(ranges.len()))?;
        for &range in ranges {
            for number in widths.bytes(range)? {
                self.output.put(&number);
            }
        }
        Ok(())
    }

    fn property_head(&mut self, name: Name, len: usize) -> Result<(), TreeError> {
        self.put_u32(Token::PROPERTY);
        self.put_len(len)?;
        self.put_len(self.names.offsets[name as usize])
    }

    /// Writes strings and header behind and before the structure, and returns the tree's length in bytes.
    pub fn finish(mut self) -> Result<usize, TreeError> {
        let strings_at = self.output.len();
        self.output.put(self.tree.strings);
        for name in self.names.new.into_iter().flatten() {
            self.output.put(name.text().as_bytes());
            self.output.put(&[0]);
        }
        let total = self.output.len();
        self.output.rewind();
        self.put_u32(DeviceTree::MAGIC);
        for offset in [total, self.structure_at, strings_at, DeviceTree::HEADER_LEN] {
            self.put_len(offset)?;
        }
        for word in [DeviceTree::VERSION, self.tree.last_compatible, self.tree.boot_cpu] {
            self.put_u32(word);
        }
        self.put_len(total.saturating_sub(strings_at))?;
        self.put_len(strings_at.saturating_sub(self.structure_at))?;
        Ok(total)
    }

    fn put_u32(&mut self, word: u32) {
        self.output.put(&word.to_be_bytes());
    }

    fn put_len(&mut self, len: usize) -> Result<(), TreeError> {
        self.put_u32(u32::try_from(len).map_err(|_| TreeError::TooLarge)?);
        Ok(())
    }
}
