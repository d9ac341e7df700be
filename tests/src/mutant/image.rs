//! An Image, and where its functions are in it.

use std::fs;
use std::path::{Path, PathBuf};

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSegment, ObjectSymbol};

use super::instruction::{Change, Instruction};
use super::kallsyms::Kallsyms;
use crate::boot::{own_image_path, workspace};

/// A kernel that runs where it is linked, which `nokaslr` has it do.
#[derive(Debug)]
pub struct Kernel {
    image: Vec<u8>,
    /// The file with its symbols.
    pub symbols: PathBuf,
    /// Symbols by ascending address.
    functions: Vec<(u64, String)>,
    /// The link address of the first byte.
    first: u64,
}

impl Kernel {
    /// linmap's kernel.
    ///
    /// # Panics
    /// When it can't be built.
    pub fn own() -> Self {
        let image = fs::read(own_image_path()).expect("the Image");
        let symbols = own_image_path().with_file_name("linmap-kernel.elf");
        let bytes = fs::read(&symbols).expect("its ELF");
        let elf = ElfFile64::<LittleEndian>::parse(&*bytes).expect("an ELF file");
        let first = elf.segments().map(|segment| segment.address()).min().expect("a segment");
        let functions = elf.symbols().filter(|symbol| symbol.is_definition()).filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.starts_with('$'))?;
            Some((symbol.address(), format!("{:#}", rustc_demangle::demangle(name))))
        });
        Self::of(image, symbols.clone(), functions.collect(), first)
    }

    /// A kernel of Debian's: `linux-6.1`.
    ///
    /// # Panics
    /// When `cargo xtask setup` has not fetched it.
    pub fn linux(name: &str) -> Self {
        let path = workspace().join("target/payload").join(name).join("Image");
        let image = fs::read(&path).expect("the payload");
        let tables = Kallsyms::find(&image).expect("its symbols");
        let first = tables.first().expect("where it is linked");
        let mut functions = Vec::new();
        tables.each(|offset, kind, name| {
            if kind.eq_ignore_ascii_case(&'t') {
                functions.push((first + offset, name.to_owned()));
            }
        });
        Self::of(image, path, functions, first)
    }

    fn of(image: Vec<u8>, symbols: PathBuf, mut functions: Vec<(u64, String)>, first: u64) -> Self {
        functions.sort();
        Self { image, symbols, functions, first }
    }

    /// The function that the instruction at `pc` is in.
    pub fn function(&self, pc: u64) -> Option<&str> {
        let after = self.functions.partition_point(|(start, _)| *start <= pc);
        self.functions.get(after.checked_sub(1)?).map(|(_, name)| name.as_str())
    }

    /// The word of the instruction at `pc`.
    fn word(&self, pc: u64) -> Option<u32> {
        let at = usize::try_from(pc.checked_sub(self.first)?).ok()?;
        Some(u32::from_le_bytes(*self.image.get(at..)?.first_chunk()?))
    }

    /// The kind of the instruction at `pc`, as the Image has it: at its boot a kernel may replace
    /// it.
    pub fn instruction(&self, pc: u64) -> Option<Instruction> {
        Instruction::of(self.word(pc)?)
    }

    /// The kernel with a word of `function` replaced: that whose bits of `mask` are `word`.
    ///
    /// # Panics
    /// When the function does not have such a word, or has two.
    #[must_use]
    pub fn with(mut self, function: &str, mask: u32, word: u32, instead: u32) -> Self {
        let start = self.functions.iter().position(|(_, name)| name == function).expect(function);
        let (from, _) = self.functions[start];
        let (to, _) =
            *self.functions[start..].iter().find(|(at, _)| *at > from).expect("a function behind it");
        let is_it = |pc: &u64| self.word(*pc).is_some_and(|of| of & mask == word);
        let pcs: Vec<_> = (from..to).step_by(4).filter(is_it).collect();
        let [pc] = pcs[..] else { panic!("{function} has {word:#x} at {pcs:x?}") };
        let at = (pc - self.first) as usize;
        self.image[at..at + 4].copy_from_slice(&instead.to_le_bytes());
        self
    }

    /// Writes the Image to `path`, with the words at these addresses replaced.
    ///
    /// # Panics
    /// When an address is outside of it, or there is no room.
    pub fn write(&self, path: &Path, words: &[(u64, u32)]) {
        let mut image = self.image.clone();
        for (pc, word) in words {
            let at = (pc - self.first) as usize;
            image[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        fs::write(path, image).expect("room for an Image");
    }

    /// Writes the Image to `path`, with the instruction at `pc` changed.
    ///
    /// # Panics
    /// As [`Self::write`].
    pub fn write_mutant(&self, path: &Path, pc: u64, change: Change) {
        let word = self.word(pc).expect("an instruction of the Image");
        self.write(path, &[(pc, change.of(word))]);
    }
}
