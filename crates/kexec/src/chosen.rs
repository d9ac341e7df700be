//! Rewriting the `/chosen` node of a flattened device tree: the command line and the initrd of the next kernel.
//!
//! The tree is copied token by token and only `/chosen` changes; all other nodes and properties and the memory
//! reservations keep their bytes and their order. Rewriting a rewritten tree with the same values gives the same
//! bytes, so that a tree doesn't grow from kexec to kexec.

use linmap_memblock::{DeviceTree, DtbError, Token};
use linmap_vmsa::PaRange;
use thiserror::Error;

const BOOTARGS: &str = "bootargs";
const INITRD_START: &str = "linux,initrd-start";
const INITRD_END: &str = "linux,initrd-end";
/// The properties that are replaced or removed.
const REPLACED: [&str; 3] = [BOOTARGS, INITRD_START, INITRD_END];

/// What `/chosen` has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// The command line, without a NUL.
    pub bootargs: &'a str,
    /// Where the initrd is, exactly as long as it is. `None` removes what the tree says about an earlier one.
    pub initrd: Option<PaRange>,
}

/// Why a device tree can't be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChosenError {
    /// It can't be read.
    #[error(transparent)]
    DeviceTree(#[from] DtbError),
    /// There are two `/chosen` nodes.
    #[error("the device tree has a second /chosen node at offset {offset:#x}")]
    SecondChosen {
        /// Where the second begins, in bytes from the start of the tree.
        offset: usize,
    },
    /// The command line holds a NUL, which would end it early.
    #[error("the command line for the device tree has a NUL at byte {at}")]
    NulInBootargs {
        /// Where in the command line.
        at: usize,
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

impl Chosen<'_> {
    /// Length in bytes of the rewritten tree. It doesn't depend on where the initrd is, so that a place for the
    /// tree can be found before one for the initrd is known: any range stands for it.
    ///
    /// # Errors
    ///
    /// As [`Chosen::rewrite`], without [`ChosenError::NoRoom`].
    pub fn measure(&self, source: &[u8]) -> Result<usize, ChosenError> {
        self.write(&DeviceTree::parse(source)?, &mut [])
    }

    /// Writes the device tree `source` with this `/chosen` into `output` and returns its length in bytes.
    /// `/chosen` is made if there is none. `source` may be longer than its header says.
    ///
    /// # Errors
    ///
    /// `output` is left as it was when
    /// - [`ChosenError::DeviceTree`]: `source` is no device tree, not all of one, or a broken one;
    /// - [`ChosenError::SecondChosen`]: nobody can tell which `/chosen` the next kernel would read;
    /// - [`ChosenError::NulInBootargs`]: the command line can't be stored;
    /// - [`ChosenError::NoRoom`], [`ChosenError::TooLarge`]: the result has no room.
    pub fn rewrite(&self, source: &[u8], output: &mut [u8]) -> Result<usize, ChosenError> {
        let tree = DeviceTree::parse(source)?;
        let capacity = output.len();
        let needed = self.write(&tree, &mut [])?;
        if needed > capacity {
            return Err(ChosenError::NoRoom { needed, capacity });
        }
        self.write(&tree, output)
    }

    /// Writes as much of the tree as `output` holds, and returns the whole tree's length.
    fn write(&self, tree: &DeviceTree<'_>, output: &mut [u8]) -> Result<usize, ChosenError> {
        if let Some(at) = self.bootargs.bytes().position(|byte| byte == 0) {
            return Err(ChosenError::NulInBootargs { at });
        }
        let mut output = Output { bytes: output, len: 0 };
        let names = Names::new(tree);
        output.put(&[0; DeviceTree::HEADER_LEN]);
        output.put(tree.reservations);
        let structure_at = output.len;
        self.write_structure(tree, &names, &mut output)?;
        let strings_at = output.len;
        output.put(tree.strings);
        for name in names.new.into_iter().flatten() {
            output.put_string(name);
        }
        let total = output.len;

        output.len = 0;
        output.put_u32(DeviceTree::MAGIC);
        for offset in [total, structure_at, strings_at, DeviceTree::HEADER_LEN] {
            output.put_len(offset)?;
        }
        for word in [DeviceTree::VERSION, tree.last_compatible, tree.boot_cpu] {
            output.put_u32(word);
        }
        output.put_len(total.saturating_sub(strings_at))?;
        output.put_len(strings_at.saturating_sub(structure_at))?;
        Ok(total)
    }

    fn write_structure(
        &self,
        tree: &DeviceTree<'_>,
        names: &Names,
        output: &mut Output<'_>,
    ) -> Result<(), ChosenError> {
        let mut in_chosen = false;
        let mut written = false;
        for piece in tree.tokens() {
            let piece = piece?;
            match piece.token {
                Token::BeginNode { name } if piece.depth == 2 && is_chosen(name) => {
                    if written {
                        return Err(ChosenError::SecondChosen { offset: piece.offset });
                    }
                    output.put(piece.bytes);
                    self.write_properties(names, output)?;
                    in_chosen = true;
                    written = true;
                    continue;
                }
                Token::Property { name } if in_chosen && piece.depth == 2 && REPLACED.contains(&name) => {
                    continue;
                }
                Token::EndNode if piece.depth == 2 => in_chosen = false,
                Token::EndNode if piece.depth == 1 && !written => {
                    output.put_u32(Token::BEGIN_NODE);
                    output.put_string("chosen");
                    output.pad();
                    self.write_properties(names, output)?;
                    output.put_u32(Token::END_NODE);
                }
                _ => {}
            }
            output.put(piece.bytes);
        }
        Ok(())
    }

    fn write_properties(&self, names: &Names, output: &mut Output<'_>) -> Result<(), ChosenError> {
        let [bootargs, start, end] = names.offsets;
        output.put_u32(Token::PROPERTY);
        output.put_len(self.bootargs.len().saturating_add(1))?;
        output.put_len(bootargs)?;
        output.put_string(self.bootargs);
        output.pad();
        if let Some(initrd) = self.initrd {
            for (name, address) in [(start, initrd.start), (end, initrd.end)] {
                output.put_u32(Token::PROPERTY);
                output.put_len(size_of::<u64>())?;
                output.put_len(name)?;
                output.put(&address.0.to_be_bytes());
            }
        }
        Ok(())
    }
}

/// Whether a child of the root is what `/chosen` finds.
fn is_chosen(name: &str) -> bool {
    name.strip_prefix("chosen").is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

/// Where the names of [`REPLACED`] are in the strings block of the result.
struct Names {
    offsets: [usize; REPLACED.len()],
    /// Those that the source doesn't have: they follow its strings in this order.
    new: [Option<&'static str>; REPLACED.len()],
}

impl Names {
    fn new(tree: &DeviceTree<'_>) -> Self {
        let mut end = tree.strings.len();
        let found = REPLACED.map(|name| (name, offset_of(name, tree.strings)));
        let offsets = found.map(|(name, offset)| {
            offset.unwrap_or_else(|| {
                let offset = end;
                end = end.saturating_add(name.len() + 1);
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

/// A buffer that is written as far as it goes, and how much was asked of it.
struct Output<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
    }

    fn put_u32(&mut self, word: u32) {
        self.put(&word.to_be_bytes());
    }

    fn put_len(&mut self, len: usize) -> Result<(), ChosenError> {
        self.put_u32(u32::try_from(len).map_err(|_| ChosenError::TooLarge)?);
        Ok(())
    }

    fn put_string(&mut self, string: &str) {
        self.put(string.as_bytes());
        self.put(&[0]);
    }

    /// Tokens begin at multiples of 4 bytes; the structure block itself does too.
    fn pad(&mut self) {
        while !self.len.is_multiple_of(4) {
            self.put(&[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use dtoolkit::fdt::{Fdt, FdtNode};
    use dtoolkit::{Node, Property};
    use linmap_memblock::parse_dtb;
    use linmap_vmsa::Pa;
    use proptest::prelude::*;
    use vm_fdt::{FdtReserveEntry, FdtWriter};

    use super::*;

    const INITRD: PaRange = PaRange::new(Pa(0x12_4800_0000), Pa(0x12_4fff_f123));
    const NEW: Chosen<'static> = Chosen { bootargs: "console=ttyAMA0 quiet", initrd: Some(INITRD) };

    /// A tree whose `/chosen` gets the properties given, if it gets any; other nodes have some of the same names.
    fn tree(chosen: Option<&[(&str, &[u8])]>) -> Vec<u8> {
        let reservations = [FdtReserveEntry::new(0x8000_0000, 0x1_0000).unwrap()];
        let mut fdt = FdtWriter::new_with_mem_reserv(&reservations).unwrap();
        let root = fdt.begin_node("").unwrap();
        fdt.property_u32("#address-cells", 2).unwrap();
        fdt.property_string("bootargs", "not this one").unwrap();
        if let Some(properties) = chosen {
            let node = fdt.begin_node("chosen").unwrap();
            for (name, value) in properties {
                fdt.property(name, value).unwrap();
            }
            let child = fdt.begin_node("framebuffer").unwrap();
            fdt.property_string("bootargs", "nor this one").unwrap();
            fdt.end_node(child).unwrap();
            fdt.end_node(node).unwrap();
        }
        let memory = fdt.begin_node("memory@80000000").unwrap();
        fdt.property_array_u64("reg", &[0x8000_0000, 0x4000_0000]).unwrap();
        fdt.property_string("bootargs", "nor this").unwrap();
        let chosen = fdt.begin_node("chosen").unwrap();
        fdt.end_node(chosen).unwrap();
        fdt.end_node(memory).unwrap();
        fdt.end_node(root).unwrap();
        fdt.finish().unwrap()
    }

    fn full() -> Vec<u8> {
        tree(Some(&[
            ("linux,initrd-start", &[0x48, 0, 0, 0]),
            ("kaslr-seed", &[1, 2, 3, 4, 5, 6, 7, 8]),
            ("bootargs", b"old\0"),
            ("linux,initrd-end", &[0x49, 0, 0, 0]),
            ("stdout-path", b"/pl011@9000000\0"),
        ]))
    }

    fn rewritten(chosen: &Chosen<'_>, source: &[u8]) -> Vec<u8> {
        let mut output = std::vec![0xaa; chosen.measure(source).unwrap()];
        assert_eq!(chosen.rewrite(source, &mut output), Ok(output.len()));
        output
    }

    /// Every property of every node as text, without those of `/chosen` that are replaced.
    fn kept(tree: &[u8]) -> Vec<String> {
        fn visit(node: &FdtNode<'_>, path: &str, lines: &mut Vec<String>) {
            let in_chosen = path.strip_prefix('/').is_some_and(is_chosen);
            // A /chosen that was made must not count as a difference.
            lines.extend((!in_chosen).then(|| path.to_string()));
            for property in node.properties() {
                if !in_chosen || !REPLACED.contains(&property.name()) {
                    lines.push(format!("{path}:{}={:?}", property.name(), property.value()));
                }
            }
            for child in node.children() {
                visit(&child, &format!("{path}/{}", child.name()), lines);
            }
        }
        let fdt = parse_dtb(tree).unwrap();
        let mut lines: Vec<_> = fdt.memory_reservations().map(|entry| format!("{entry:?}")).collect();
        lines.push(fdt.boot_cpuid_phys().to_string());
        visit(&fdt.root(), "", &mut lines);
        lines
    }

    fn chosen_says(tree: &[u8]) -> (Option<String>, Option<[u64; 2]>) {
        let fdt = parse_dtb(tree).unwrap();
        let node = fdt.find_node("/chosen").unwrap();
        let get = |name| {
            // dtoolkit's iterator panics when it is asked again after its end, hence fuse.
            let mut all = node.properties().fuse().filter(|property| property.name() == name);
            let first = all.next();
            assert!(all.next().is_none(), "{name} stands twice");
            first
        };
        let bootargs = get(BOOTARGS).map(|property| property.value_as::<&str>().unwrap().to_string());
        let address = |name| get(name).map(|property| property.value_as::<u64>().unwrap());
        (bootargs, address(INITRD_START).zip(address(INITRD_END)).map(<[u64; 2]>::from))
    }

    #[test]
    fn bootargs_and_initrd_are_replaced_and_all_else_is_kept() {
        let result = rewritten(&NEW, &full());
        let expected = (Some(NEW.bootargs.to_string()), Some([INITRD.start.0, INITRD.end.0]));
        assert_eq!(chosen_says(&result), expected);
        assert_eq!(kept(&result), kept(&full()));
    }

    #[test]
    fn without_an_initrd_the_old_one_is_forgotten() {
        let result = rewritten(&Chosen { initrd: None, ..NEW }, &full());
        assert_eq!(chosen_says(&result), (Some(NEW.bootargs.to_string()), None));
        assert_eq!(parse_dtb(&result).unwrap().find_node("/chosen").unwrap().property(INITRD_END), None);
        assert_eq!(kept(&result), kept(&full()));
    }

    #[test]
    fn a_tree_without_chosen_gets_one() {
        let source = tree(None);
        let result = rewritten(&NEW, &source);
        let expected = (Some(NEW.bootargs.to_string()), Some([INITRD.start.0, INITRD.end.0]));
        assert_eq!(chosen_says(&result), expected);
        assert_eq!(kept(&result), kept(&source));
    }

    #[test]
    fn rewriting_twice_is_rewriting_once() {
        for source in [full(), tree(None), tree(Some(&[]))] {
            let once = rewritten(&NEW, &source);
            assert_eq!(rewritten(&NEW, &once), once);
            let other = Chosen { bootargs: "", initrd: None };
            assert_eq!(rewritten(&NEW, &rewritten(&other, &once)), once);
        }
    }

    #[test]
    fn bytes_after_the_tree_are_ignored() {
        let mut padded = full();
        padded.resize(0x1_0000, 0xee);
        assert_eq!(rewritten(&NEW, &padded), rewritten(&NEW, &full()));
    }

    #[test]
    fn a_buffer_that_is_too_small_is_left_as_it_was() {
        let needed = NEW.measure(&full()).unwrap();
        let mut output = std::vec![0xaa; needed - 1];
        let capacity = needed - 1;
        assert_eq!(NEW.rewrite(&full(), &mut output), Err(ChosenError::NoRoom { needed, capacity }));
        assert!(output.iter().all(|&byte| byte == 0xaa));
    }

    #[test]
    fn a_command_line_with_a_nul_is_refused() {
        let chosen = Chosen { bootargs: "quiet\0root=x", initrd: None };
        assert_eq!(chosen.measure(&full()), Err(ChosenError::NulInBootargs { at: 5 }));
    }

    #[test]
    fn two_chosen_nodes_are_refused() {
        let mut fdt = FdtWriter::new().unwrap();
        let root = fdt.begin_node("").unwrap();
        for name in ["chosen", "chosen@0"] {
            let node = fdt.begin_node(name).unwrap();
            fdt.end_node(node).unwrap();
        }
        fdt.end_node(root).unwrap();
        let source = fdt.finish().unwrap();
        assert_eq!(NEW.measure(&source), Err(ChosenError::SecondChosen { offset: 56 + 8 + 12 + 4 }));
    }

    #[test]
    fn a_property_name_longer_than_the_specification_allows_does_no_harm() {
        let long = "snps,a-property-name-of-more-than-thirty-one-characters";
        let mut fdt = FdtWriter::new().unwrap();
        let root = fdt.begin_node("").unwrap();
        fdt.property_null("a").unwrap();
        fdt.end_node(root).unwrap();
        let mut source = fdt.finish().unwrap();
        // vm-fdt checks names, so that the long one is put in afterwards: the name is the end of the tree.
        assert!(source.ends_with(b"a\0"));
        source.truncate(source.len() - 2);
        source.extend(long.bytes().chain([0]));
        let total = source.len() as u32;
        source[4..8].copy_from_slice(&total.to_be_bytes());
        source[32..36].copy_from_slice(&(long.len() as u32 + 1).to_be_bytes());
        let result = rewritten(&NEW, &source);
        assert!(kept(&result).iter().any(|line| line.contains(long)));
        assert_eq!(kept(&result), kept(&source));
    }

    proptest! {
        #[test]
        fn any_command_line_and_initrd_can_be_read_back(
            bootargs in "[ -~]{0,80}",
            initrd in prop::option::of((0u64..1 << 48, 1u64..1 << 32)),
        ) {
            let range = initrd.map(|(start, len)| PaRange::new(Pa(start), Pa(start + len)));
            let chosen = Chosen { bootargs: &bootargs, initrd: range };
            for source in [full(), tree(None)] {
                let result = rewritten(&chosen, &source);
                let expected = (Some(bootargs.clone()), range.map(|range| [range.start.0, range.end.0]));
                prop_assert_eq!(chosen_says(&result), expected);
                prop_assert_eq!(kept(&result), kept(&source));
            }
        }

        #[test]
        fn no_change_to_a_tree_panics_and_what_is_written_can_be_read(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            whole in any::<bool>(),
        ) {
            let mut source = full();
            for (at, value) in flips {
                *at.get_mut(&mut source) ^= value;
            }
            if !whole {
                source.truncate(cut.index(source.len()));
            }
            match NEW.measure(&source) {
                Ok(len) => {
                    let mut output = std::vec![0; len];
                    prop_assert_eq!(NEW.rewrite(&source, &mut output), Ok(len));
                    prop_assert_eq!(NEW.measure(&output), Ok(len));
                    prop_assert_eq!(kept(&output), kept(&source));
                    prop_assert!(Fdt::new(&output).is_ok() || Fdt::new(&source).is_err());
                }
                Err(ChosenError::DeviceTree(error)) => prop_assert_eq!(parse_dtb(&source).err(), Some(error)),
                Err(error) => prop_assert!(matches!(error, ChosenError::SecondChosen { .. }), "{error}"),
            }
        }
    }
}
