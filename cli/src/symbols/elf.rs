//! Symbols of an ELF file.

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionKind, SymbolKind};
use rustc_demangle::demangle;

use super::table::{Rank, Symbols};
use crate::failure::Failure;

/// The code symbols of the ELF file `file`, with Rust's names as they are written.
pub fn symbols(file: &[u8]) -> Result<Symbols, Failure> {
    let elf = ElfFile64::<LittleEndian>::parse(file)
        .map_err(|error| Failure::from(error).hint("ELF files of arm64 are 64-bit little-endian"))?;
    let mut symbols = Symbols::default();
    for symbol in elf.symbols() {
        // `$x` and `$d` mark code and data.
        let named = symbol.name().ok().filter(|name| !name.starts_with('$'));
        if let Some(name) = named
            && symbol.is_definition() | (symbol.kind() == SymbolKind::Label || is_label(&symbol))
            && !matches!(symbol.kind(), SymbolKind::File | SymbolKind::Section | SymbolKind::Tls)
        {
            symbols.add(symbol.address(), rank(&symbol), &format!("{:#}", demangle(name)));
        }
    }
    if symbols.len() == 0 {
        return Err(
            Failure::new("an ELF file without symbols").hint("it was stripped: give the one with symbols")
        );
    }
    for section in elf.sections().filter(|section| section.kind() == SectionKind::Text) {
        // The symbols do not depend on a section's content: one that can't be read is left out.
        if let Ok(bytes) = section.data() {
            symbols.code.add(section.address(), bytes);
        }
    }
    let first = elf.segments().map(|segment| segment.address()).min();
    symbols.finish(first)
}

fn rank<'a>(symbol: &impl ObjectSymbol<'a>) -> Rank {
    match symbol.kind() {
        SymbolKind::Text if symbol.is_weak() => Rank::Weak,
        SymbolKind::Text if symbol.is_local() => Rank::Local,
        SymbolKind::Text => Rank::Global,
        _ => Rank::Other,
    }
}

/// Whether an assembler's label, which has no type.
fn is_label<'a>(symbol: &impl ObjectSymbol<'a>) -> bool {
    symbol.kind() == SymbolKind::Unknown && symbol.section_index().is_some()
}
