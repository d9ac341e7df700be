//! The next kernel's device tree: a copy of the running kernel's with changes.
//!
//! The tree is copied token by token. Only what [`NextTree`] names changes: all other nodes,
//! properties and memory reservations keep their bytes and their order. Rewriting a rewritten
//! tree with the same values gives the same bytes, so a tree does not grow from kexec to kexec.

use linmap_fdt::{CellCounts, DeviceTree, Piece, Token};
use linmap_memblock::covers_only;
use linmap_vmsa::{Pa, PaRange};

use super::chosen::{Chosen, CrashMemory, Seeds};
use super::names::{self, Writer};
use super::preserved::{self, PreservedRange};
use super::reserved_memory::{Reservations, ReservedMemory};
use super::section::Section;
use super::spin_table::{Found, SpinTable};
use super::strings::check_string;
use super::tree_error::TreeError;

/// The changes of the next kernel's device tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextTree<'a> {
    /// The command line, without a NUL.
    pub bootargs: &'a str,
    /// The range of the initrd, exactly as long as the initrd. `None` removes the initrd of the
    /// tree.
    pub initrd: Option<PaRange>,
    /// The random numbers for the next kernel.
    pub seeds: Seeds,
    /// The memory of a crash kernel, and the header of its core file. `None`, for an ordinary
    /// kernel, passes on those of the tree: a crash kernel hands them over to what it starts.
    pub crash: Option<CrashMemory<'a>>,
    /// The CPUs with `enable-method = "spin-table"` that wait in a pen of this kernel. All other
    /// CPUs wait where the tree says: in the firmware's pen, or in the pen of an earlier kernel.
    pub spin_table: Option<SpinTable<'a>>,
    /// What the running kernel was booted with and gives up: the ranges of its tree blob and its
    /// initrd. Reservations that cover only one of them are removed.
    pub vacated: &'a [PaRange],
    /// The preserved memory, at most [`MAX_PRESERVED`](crate::MAX_PRESERVED) ranges. They replace
    /// those of the tree.
    pub preserved: &'a [PreservedRange<'a>],
}

impl<'a> NextTree<'a> {
    /// Returns the length of the rewritten tree in bytes. It does not depend on the addresses of
    /// the initrd and the ELF core header, nor on the values of the seeds. So the tree can be
    /// measured before it is placed: any range that [`rewrite`](Self::rewrite) accepts stands for
    /// them.
    ///
    /// # Errors
    ///
    /// As [`rewrite`](Self::rewrite), without [`TreeError::NoRoom`].
    pub fn measure(&self, source: &[u8]) -> Result<usize, TreeError> {
        self.check()?;
        self.write(&DeviceTree::parse(source)?, &mut [])
    }

    /// Writes the device tree `source` with the changes into `output` and returns its length in
    /// bytes.
    ///
    /// - `/chosen` gets `bootargs`, the initrd, the seeds and the memory of a crash kernel. It is
    ///   created if it is missing.
    /// - `/reserved-memory` gets a node for the pen, `linmap-pen@…`, and one for each preserved
    ///   range, `linmap-preserved@…`. It is created if it is missing. The nodes of earlier kernels,
    ///   which have the `compatible` `linmap,pen` or `linmap,preserved`, are removed; the node of a
    ///   pen stays while a CPU waits in the pen. None is `no-map`: Linux then allocates nothing in
    ///   the range, as for the memory reservation block, but maps it, so that the reader of
    ///   preserved memory finds it in the linear map.
    /// - Entries of the memory reservation block, and children of `/reserved-memory` without
    ///   `compatible`, `no-map` and `phandle`, are removed if they cover only a range of `vacated`,
    ///   to the page. Boot loaders such as U-Boot reserve the tree and the initrd so. Linux would
    ///   keep that memory from use for ever.
    /// - `cpu-release-addr` of the CPUs in the pen is set. It keeps its width of 32 or 64 bits.
    ///
    /// `source` may have bytes after the tree.
    ///
    /// # Errors
    ///
    /// `output` is unchanged after
    /// - [`TreeError::DeviceTree`]: `source` is not a complete and well-formed device tree;
    /// - [`TreeError::SecondNode`]: `/chosen`, `/cpus` or `/reserved-memory` is ambiguous;
    /// - [`TreeError::Nul`]: the command line or a label has a NUL;
    /// - [`TreeError::RootCells`], [`TreeError::ReservedMemory`]: the tree has no form for a range
    ///   that Linux reads;
    /// - [`TreeError::PenUnaligned`], [`TreeError::ReleaseOutsidePen`],
    ///   [`TreeError::ReleaseTooHigh`], [`TreeError::TooManyPenned`], [`TreeError::PennedUnknown`]:
    ///   the next kernel would not find the CPUs in the pen, or could overwrite the pen;
    /// - [`TreeError::TooManyPreserved`],
    ///   [`TreeError::PreservedUnaligned`], [`TreeError::PreservedOverlap`]: the next kernel would
    ///   refuse the preserved ranges;
    /// - [`TreeError::UsableCount`], [`TreeError::OutsideUsable`]: a crash kernel would not find
    ///   its memory, its initrd or the ELF core header;
    /// - [`TreeError::NoRoom`], [`TreeError::Write`]: the result does not fit into `output`, or a
    ///   number into the tree.
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

    /// Checks all rules that do not depend on the source.
    fn check(&self) -> Result<(), TreeError> {
        check_string(names::BOOTARGS, self.bootargs)?;
        if let Some(crash) = self.crash {
            crash.check(self.initrd)?;
        }
        if let Some(spin_table) = self.spin_table {
            spin_table.check()?;
        }
        preserved::check(self.preserved, self.spin_table.map(|spin_table| spin_table.pen))
    }

    /// Writes as much of the tree as fits into `buffer`, and returns the length of the whole tree.
    fn write(&self, tree: &DeviceTree<'_>, buffer: &mut [u8]) -> Result<usize, TreeError> {
        let is_kept = |address, size| !self.is_vacated(address, size);
        let mut output = Writer::new(tree, names::ALL, is_kept, buffer);
        let mut walk = Walk::default();
        let reservations = self.reservations();
        let left_behind = self.spin_table.and_then(|spin_table| spin_table.left_behind(tree));
        let left_behind = left_behind.as_deref();
        let mut tokens = tree.tokens();
        while let Some(piece) = tokens.next() {
            let piece = piece?;
            // The tokens after a node's beginning tell whether the node changes.
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
                        output.copy(piece.bytes);
                        self.chosen().write(walk.root, &mut output)?;
                        continue;
                    }
                }
                (Token::Property { name, .. }, Some(Section::Chosen), 2) if self.chosen().replaces(name) => {
                    continue;
                }
                (Token::Property { name, value }, Some(Section::ReservedMemory), 2) => {
                    walk.reserved.note(name, value);
                }
                (Token::BeginNode { .. }, Some(Section::ReservedMemory), 3)
                    if walk.reserved.is_replaced(reservations, left_behind, properties())
                        || walk.reserved.is_vacated(self.vacated, properties()) =>
                {
                    walk.removing = true;
                    continue;
                }
                (Token::BeginNode { .. }, Some(Section::Cpus), 3) => {
                    walk.in_pen = self.spin_table.and_then(|pen| Some((pen, pen.nth(properties())?)));
                }
                (Token::Property { name, value }, Some(Section::Cpus), 3) => {
                    if let Some((spin_table, nth)) = walk.in_pen
                        && name == names::RELEASE_ADDRESS
                        && let Some(release) = spin_table.release_value(value.len(), piece.offset)?
                    {
                        output.property(names::RELEASE_ADDRESS, &release)?;
                        walk.found.insert(nth);
                        continue;
                    }
                }
                (Token::EndNode, section, 2) => {
                    if section == Some(Section::ReservedMemory) {
                        walk.reserved.write_nodes(reservations, walk.root, piece.offset, &mut output)?;
                    }
                    walk.section = None;
                }
                (Token::EndNode, _, 1) => self.write_missing(&walk, &piece, &mut output)?,
                _ => {}
            }
            output.copy(piece.bytes);
        }
        if let Some(spin_table) = self.spin_table {
            walk.found.check(spin_table)?;
        }
        Ok(output.finish()?)
    }

    /// Writes the children of the root that the source lacks.
    fn write_missing(
        &self,
        walk: &Walk<'_>,
        end_of_root: &Piece<'_>,
        output: &mut Writer<'_, '_>,
    ) -> Result<(), TreeError> {
        if !walk.seen.contains(&Some(Section::Chosen)) {
            output.begin_node(format_args!("{}", Section::Chosen.name()));
            self.chosen().write(walk.root, output)?;
            output.end_node();
        }
        let reservations = self.reservations();
        if !reservations.is_empty() && !walk.seen.contains(&Some(Section::ReservedMemory)) {
            output.begin_node(format_args!("{}", Section::ReservedMemory.name()));
            let made = ReservedMemory::make(walk.root, output)?;
            made.write_nodes(reservations, walk.root, end_of_root.offset, output)?;
            output.end_node();
        }
        Ok(())
    }

    /// Returns whether an entry of the memory reservation block ends with the running kernel.
    fn is_vacated(&self, address: u64, size: u64) -> bool {
        PaRange::from_len(Pa(address), size).is_some_and(|entry| covers_only(entry, self.vacated))
    }

    fn chosen(&self) -> Chosen<'a> {
        Chosen { bootargs: self.bootargs, initrd: self.initrd, seeds: self.seeds, crash: self.crash }
    }

    fn reservations(&self) -> Reservations<'a> {
        Reservations { pen: self.spin_table.map(|spin_table| spin_table.pen), preserved: self.preserved }
    }
}

/// The state of the walk over the source.
#[derive(Default)]
struct Walk<'a> {
    root: CellCounts,
    reserved: ReservedMemory,
    seen: [Option<Section>; Section::ALL.len()],
    section: Option<Section>,
    /// In a child of /reserved-memory that is removed.
    removing: bool,
    /// In the node of a CPU in the pen: the CPU's index in the list.
    in_pen: Option<(SpinTable<'a>, usize)>,
    /// The CPUs in the pen that the next kernel will find.
    found: Found,
}

impl Walk<'_> {
    /// Notes the beginning of a child of the root.
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
