//! Symbols of an ELF file.

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSegment, ObjectSymbol, SymbolKind};
use rustc_demangle::demangle;

use super::table::Symbols;
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
            symbols.add(symbol.address(), &format!("{:#}", demangle(name)));
        }
    }
    if symbols.len() == 0 {
        return Err(
            Failure::new("an ELF file without symbols").hint("it was stripped: give the one with symbols")
        );
    }
    let first = elf.segments().map(|segment| segment.address()).min();
    symbols.finish(first)
}

/// Whether an assembler's label, which has no type.
fn is_label<'a>(symbol: &impl ObjectSymbol<'a>) -> bool {
    symbol.kind() == SymbolKind::Unknown && symbol.section_index().is_some()
}
