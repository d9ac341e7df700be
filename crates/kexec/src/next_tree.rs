//! The next kernel's device tree: the running one's, edited.
//!
//! The tree is copied token by token. Only what [`NextTree`] names changes; all other nodes and properties and the
//! memory reservations keep their bytes and their order. Rewriting a rewritten tree with the same values gives the
//! same bytes, so that a tree doesn't grow from kexec to kexec.

use linmap_fdt::{DeviceTree, DtbError, Piece, Token};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::cells::Cells;
use crate::chosen::{self, CrashMemory, Seeds};
use crate::kept::{self, KeptRange, MAX_KEPT};
use crate::reserved_memory::ReservedMemory;
use crate::spin_table::{Found, MAX_PENNED, SpinTable};
use crate::tree_output::{Name, TreeOutput};

/// What the next kernel's device tree says that the running one's doesn't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextTree<'a> {
    /// The command line, without a NUL.
    pub bootargs: &'a str,
    /// Where the initrd is, exactly as long as it is. `None` removes what the tree says about an earlier one.
    pub initrd: Option<PaRange>,
    /// What becomes of the random numbers for the next kernel.
    pub seeds: Seeds,
    /// What a crash kernel is told. `None`, for an ordinary one, removes what the tree says about it.
    pub crash: Option<CrashMemory<'a>>,
    /// Which CPUs with `enable-method = "spin-table"` wait in a pen of ours now, and where that is. All others wait where
    /// the tree says, be it the firmware's pen or an earlier one of ours.
    pub spin_table: Option<SpinTable<'a>>,
    /// Memory that is kept, at most [`MAX_KEPT`] ranges. They replace those that the tree has.
    pub kept: &'a [KeptRange<'a>],
}

/// Why a device tree can't be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TreeError {
    /// It can't be read.
    #[error(transparent)]
    DeviceTree(#[from] DtbError),
    /// A child of the root that is edited is there twice.
    #[error("the device tree has a second /{node} node at offset {offset:#x}")]
    SecondNode {
        /// `chosen`, `cpus` or `reserved-memory`.
        node: &'static str,
        /// Where the second begins, in bytes from the start of the tree.
        offset: usize,
    },
    /// A string holds a NUL, which would end it early.
    #[error("the {property} for the device tree has a NUL at byte {at}")]
    Nul {
        /// `bootargs` or `label`.
        property: &'static str,
        /// Where in the string.
        at: usize,
    },
    /// A range has to be written, and the root doesn't say how.
    #[error("{property} of the device tree's root is missing or not 1 or 2: a range can't be written")]
    RootCells {
        /// `#address-cells` or `#size-cells`.
        property: &'static str,
    },
    /// A range is above what the tree can say.
    #[error(
        "{range} can't be written with the root's {address_cells} address and {size_cells} size cells of 32 bits"
    )]
    TooFewCells {
        /// The range.
        range: PaRange,
        /// `#address-cells`.
        address_cells: u32,
        /// `#size-cells`.
        size_cells: u32,
    },
    /// A range has to be reserved, and Linux would not read it where it belongs (`fdt_scan_reserved_mem`).
    #[error(
        "/reserved-memory at offset {offset:#x} has no {property} as the root has it: Linux ignores all that is reserved there"
    )]
    ReservedMemory {
        /// Where the node ends, in bytes from the start of the tree.
        offset: usize,
        /// `#address-cells`, `#size-cells`, or `ranges`, which only has to be there.
        property: &'static str,
    },
    /// A pen is no whole pages.
    #[error("the spin-table pen {pen} is empty or not whole pages of {:#x} bytes", kept::PAGE)]
    PenUnaligned {
        /// The pen.
        pen: PaRange,
    },
    /// The word that CPUs watch is not 8 bytes of their pen.
    #[error(
        "the release address {release} is not that of an aligned 64-bit word in the spin-table pen {pen}"
    )]
    ReleaseOutsidePen {
        /// The word's address.
        release: Pa,
        /// The pen.
        pen: PaRange,
    },
    /// A CPU's node has a 32-bit number where the address belongs.
    #[error("cpu-release-addr at offset {offset:#x} has 32 bits, too few for {release}")]
    ReleaseTooHigh {
        /// Where the property begins, in bytes from the start of the tree.
        offset: usize,
        /// The address.
        release: Pa,
    },
    /// More CPUs wait than a pen is for.
    #[error("{count} CPUs in the spin-table pen, and it is for at most {MAX_PENNED}")]
    TooManyPenned {
        /// How many there are.
        count: usize,
    },
    /// The next kernel would not look for a CPU in the pen.
    #[error(
        "CPU {reg:#x} is in the spin-table pen, and no node of /cpus with that reg has enable-method spin-table and a cpu-release-addr of one or two cells"
    )]
    PennedUnknown {
        /// Its `reg`.
        reg: u64,
    },
    /// There are more kept ranges than a next kernel reads.
    #[error("{count} ranges to keep, and a device tree says at most {MAX_KEPT}")]
    TooManyKept {
        /// How many there are.
        count: usize,
    },
    /// Memory is kept in whole pages.
    #[error("the kept range {range} is empty or not whole pages of {:#x} bytes", kept::PAGE)]
    KeptUnaligned {
        /// The range.
        range: PaRange,
    },
    /// A kept range has bytes of another one or of the pen.
    #[error("the kept range {range} overlaps {other}, which is kept or the spin-table pen")]
    KeptOverlap {
        /// The range.
        range: PaRange,
        /// The other one.
        other: PaRange,
    },
    /// Linux reads one or two usable ranges.
    #[error("{count} usable ranges for a crash kernel, and Linux reads 1 or 2")]
    UsableCount {
        /// How many there are.
        count: usize,
    },
    /// A crash kernel maps its usable memory only.
    #[error("the crash kernel's {what} at {range} is empty or not in one of its usable ranges")]
    OutsideUsable {
        /// `initrd` or `ELF core header`.
        what: &'static str,
        /// Where it is.
        range: PaRange,
    },
    /// The output buffer is too small.
    #[error("the rewritten device tree needs {needed:#x} bytes, there is room for {capacity:#x}")]
    NoRoom {
        /// Length of the rewritten tree in bytes.
        needed: usize,
        /// Length of the buffer in bytes.
        capacity: usize,
    },
    /// The rewritten tree would have 4 GiB or more.
    #[error("the rewritten device tree would not fit in 32-bit offsets")]
    TooLarge,
}

impl NextTree<'_> {
    /// Length in bytes of the rewritten tree. It doesn't depend on where the initrd and the ELF core header are, nor
    /// on which numbers the seeds are, so that a place for the tree can be found first: any range that [`rewrite`](Self::rewrite)
    /// takes stands for them.
    ///
    /// # Errors
    ///
    /// As [`rewrite`](Self::rewrite), without [`TreeError::NoRoom`].
    pub fn measure(&self, source: &[u8]) -> Result<usize, TreeError> {
        self.check()?;
        self.write(&DeviceTree::parse(source)?, &mut [])
    }

    /// Writes the device tree `source` with these changes into `output` and returns its length in bytes.
    ///
    /// - `/chosen` is made if there is none. It gets `bootargs`, the initrd, seeds and what a crash kernel needs.
    /// - `/reserved-memory` gets a node for the pen, `linmap-pen@…`, and one for each kept range, `linmap-kept@…`;
    ///   nodes that say the same of earlier generations are removed, pens once no CPU waits in them. They are known by
    ///   their `compatible`, `linmap,pen` and `linmap,kept`. `/reserved-memory` is made if there is none.
    ///   None is `no-map`: Linux then allocates nothing there, as for the memory reservation block, and maps the memory
    ///   with what lies around it, so that whoever reads kept bytes finds them in its linear map.
    /// - `cpu-release-addr` of the CPUs in the pen is set, as a 32-bit or 64-bit number like the one that was there.
    ///   All other CPUs keep theirs.
    ///
    /// `source` may be longer than its header says.
    ///
    /// # Errors
    ///
    /// `output` is left as it was when
    /// - [`TreeError::DeviceTree`]: `source` is no device tree, not all of one, or a broken one;
    /// - [`TreeError::SecondNode`]: nobody can tell which `/chosen`, `/cpus` or `/reserved-memory` the next kernel
    ///   would read;
    /// - [`TreeError::Nul`]: the command line or a label can't be stored;
    /// - [`TreeError::RootCells`], [`TreeError::TooFewCells`], [`TreeError::ReservedMemory`]: the tree has no way to
    ///   say a range so that it is read;
    /// - [`TreeError::PenUnaligned`], [`TreeError::ReleaseOutsidePen`], [`TreeError::ReleaseTooHigh`],
    ///   [`TreeError::TooManyPenned`], [`TreeError::PennedUnknown`]: CPUs would not be safe in the pen, or not be found
    ///   there;
    /// - [`TreeError::TooManyKept`], [`TreeError::KeptUnaligned`], [`TreeError::KeptOverlap`]: the next kernel would
    ///   refuse the kept ranges;
    /// - [`TreeError::UsableCount`], [`TreeError::OutsideUsable`]: a crash kernel would not find its memory, its
    ///   initrd or the ELF core header;
    /// - [`TreeError::NoRoom`], [`TreeError::TooLarge`]: the result has no room.
    pub fn rewrite(&self, source: &[u8], output: &mut [u8]) -> Result<usize, TreeError> {
        self.check()?;
        let tree = DeviceTree::parse(source)?;
        let capacity = output.len();
        let needed = self.write(&tree, &mut [])?;
        if needed > capacity {
            return Err(TreeError::NoRoom { needed, capacity });
        }
        self.write(&tree, output)
    }

    /// Checks what doesn't depend on the tree.
    fn check(&self) -> Result<(), TreeError> {
        check_string(Name::Bootargs, self.bootargs)?;
        if let Some(crash) = self.crash {
            crash.check(self.initrd)?;
        }
        if let Some(spin_table) = self.spin_table {
            spin_table.check()?;
        }
        kept::check(self.kept, self.spin_table.map(|spin_table| spin_table.pen))
    }

    /// Writes as much of the tree as `buffer` holds, and returns the whole tree's length.
    fn write(&self, tree: &DeviceTree<'_>, buffer: &mut [u8]) -> Result<usize, TreeError> {
        let mut output = TreeOutput::new(tree, buffer);
        let mut walk = Walk::default();
        let left_behind = self.spin_table.and_then(|spin_table| spin_table.left_behind(tree));
        let left_behind = left_behind.as_deref();
        let mut tokens = tree.tokens();
        while let Some(piece) = tokens.next() {
            let piece = piece?;
            // What follows a node's beginning says whether it is one that changes.
            let properties = || tokens.clone().map_while(Result::ok);
            if walk.removing {
                walk.removing = !(piece.token == Token::EndNode && piece.depth == 3);
                continue;
            }
            match (piece.token, walk.section, piece.depth) {
                (Token::Property { name, value }, _, 1) => walk.root.note(name, value),
                (Token::BeginNode { name }, _, 2) => {
                    walk.enter(name, piece.offset)?;
                    if walk.section == Some(Section::Chosen) {
                        output.put(piece.bytes);
                        chosen::write(self, walk.root, &mut output)?;
                        continue;
                    }
                }
                (Token::Property { name, .. }, Some(Section::Chosen), 2) if chosen::replaces(name) => {
                    continue;
                }
                (Token::Property { name, value }, Some(Section::ReservedMemory), 2) => {
                    walk.reserved.note(name, value);
                }
                (Token::BeginNode { .. }, Some(Section::ReservedMemory), 3)
                    if walk.reserved.gives_way(self, left_behind, properties()) =>
                {
                    walk.removing = true;
                    continue;
                }
                (Token::BeginNode { .. }, Some(Section::Cpus), 3) => {
                    walk.in_pen = self.spin_table.and_then(|pen| Some((pen, pen.nth(properties())?)));
                }
                (Token::Property { name, value }, Some(Section::Cpus), 3) => {
                    if let Some((spin_table, nth)) = walk.in_pen
                        && name == Name::ReleaseAddress.text()
                        && let Some(release) = spin_table.release_value(value.len(), piece.offset)?
                    {
                        output.property(Name::ReleaseAddress, &release)?;
                        walk.found.insert(nth);
                        continue;
                    }
                }
                (Token::EndNode, section, 2) => {
                    if section == Some(Section::ReservedMemory) {
                        walk.reserved.write_nodes(self, walk.root, piece.offset, &mut output)?;
                    }
                    walk.section = None;
                }
                (Token::EndNode, _, 1) => self.write_missing(&walk, &piece, &mut output)?,
                _ => {}
            }
            output.put(piece.bytes);
        }
        if let Some(spin_table) = self.spin_table {
            walk.found.check(spin_table)?;
        }
        output.finish()
    }

    /// Writes the children of the root that the tree doesn't have.
    fn write_missing(
        &self,
        walk: &Walk<'_>,
        end_of_root: &Piece<'_>,
        output: &mut TreeOutput<'_, '_>,
    ) -> Result<(), TreeError> {
        if !walk.seen.contains(&Some(Section::Chosen)) {
            output.begin_node(format_args!("{}", Section::Chosen.name()));
            chosen::write(self, walk.root, output)?;
            output.end_node();
        }
        let reserves = self.spin_table.is_some() || !self.kept.is_empty();
        if reserves && !walk.seen.contains(&Some(Section::ReservedMemory)) {
            output.begin_node(format_args!("{}", Section::ReservedMemory.name()));
            let made = ReservedMemory::make(walk.root, output)?;
            made.write_nodes(self, walk.root, end_of_root.offset, output)?;
            output.end_node();
        }
        Ok(())
    }
}

/// Checks that a string property can be stored.
pub(crate) fn check_string(property: Name, text: &str) -> Result<(), TreeError> {
    match text.bytes().position(|byte| byte == 0) {
        Some(at) => Err(TreeError::Nul { property: property.text(), at }),
        None => Ok(()),
    }
}

/// The properties of the node whose beginning was the token before `pieces`.
pub(crate) fn properties_of<'a>(
    pieces: impl Iterator<Item = Piece<'a>>,
) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    pieces.take_while(|piece| matches!(piece.token, Token::Property { .. } | Token::Nop)).filter_map(
        |piece| match piece.token {
            Token::Property { name, value } => Some((name, value)),
            _ => None,
        },
    )
}

/// A child of the root that is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Chosen,
    Cpus,
    ReservedMemory,
}

impl Section {
    const ALL: [Self; 3] = [Self::Chosen, Self::Cpus, Self::ReservedMemory];

    const fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Cpus => "cpus",
            Self::ReservedMemory => "reserved-memory",
        }
    }

    /// Whether a child of the root is what readers find by this name: with or without a unit address.
    pub fn is_named(self, name: &str) -> bool {
        name.strip_prefix(self.name()).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    }
}

/// Where the walk over the source is, and what it has seen.
#[derive(Default)]
struct Walk<'a> {
    root: Cells,
    reserved: ReservedMemory,
    seen: [Option<Section>; Section::ALL.len()],
    section: Option<Section>,
    /// In a child of /reserved-memory that is left out.
    removing: bool,
    /// Set in the node of a CPU in the pen, with its place in the list.
    in_pen: Option<(SpinTable<'a>, usize)>,
    /// CPUs in the pen that the next kernel will find.
    found: Found,
}

impl Walk<'_> {
    /// A child of the root begins.
    fn enter(&mut self, name: &str, offset: usize) -> Result<(), TreeError> {
        self.section = Section::ALL.into_iter().find(|section| section.is_named(name));
        let Some(section) = self.section else { return Ok(()) };
        if self.seen.contains(&Some(section)) {
            return Err(TreeError::SecondNode { node: section.name(), offset });
        }
        if let Some(free) = self.seen.iter_mut().find(|seen| seen.is_none()) {
            *free = Some(section);
        }
        Ok(())
    }
}
