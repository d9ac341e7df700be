//! The kernel's own image: its length, and where it lies.

use std::collections::BTreeSet;

use linmap_tests::{Boot, own_elf, soak_or_first};
use object::read::elf::{ElfFile64, ProgramHeader, SectionHeader};
use object::{Endianness, Object, ObjectSection, elf};

#[test]
fn an_image_of_several_tables_of_pages_runs_and_hands_over() {
    // Each granule is two builds of the kernel, so this is for long runs. With 4K the image takes
    // four tables, and its data lies in another one than its vectors.
    for granule in soak_or_first(0, &["4k", "16k", "64k"]) {
        let options = format!("--granule {granule} --payload self --memory 2G --cpus 4 --cpu max");
        let outcome = Boot::new(&options)
            .with("--append", "linmap.bbm=0")
            .with("--script", "verify; stress 25; verify; kexec load --scattered; kexec exec")
            .with_padding(5 << 20)
            .run();
        outcome.expect_success();
        let verdicts = outcome.records.iter().filter_map(|record| record.get("verify"));
        assert!(verdicts.eq(["ok", "ok"]), "{granule}");
    }
}

/// The addresses of the words that an image's RELR section names (the ELF gABI).
fn relocated(section: &[u8]) -> BTreeSet<u64> {
    let mut words = BTreeSet::new();
    let mut next = 0;
    for entry in section.chunks_exact(8).map(|entry| u64::from_le_bytes(entry.try_into().expect("8 bytes"))) {
        if entry & 1 == 0 {
            words.insert(entry);
            next = entry + 8;
        } else {
            words.extend((0..63).filter(|bit| entry >> (bit + 1) & 1 == 1).map(|bit| next + 8 * bit));
            next += 63 * 8;
        }
    }
    words
}

#[test]
fn every_address_in_the_image_is_relocated() {
    let bytes = own_elf();
    let elf = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
    let relr = elf.section_by_name(".relr.dyn").expect("relocations").data().expect("their bytes");
    let relocated = relocated(relr);
    let segments: Vec<(u64, &[u8], u64, bool)> = elf
        .elf_program_headers()
        .iter()
        .filter(|header| header.p_type(Endianness::Little) == elf::PT_LOAD)
        .map(|header| {
            let data = header.data(Endianness::Little, &*bytes).expect("its bytes");
            let is_text = header.p_flags(Endianness::Little) & elf::PF_X == elf::PF_X;
            (header.p_vaddr(Endianness::Little), data, header.p_memsz(Endianness::Little), is_text)
        })
        .collect();
    let start = segments.iter().map(|segment| segment.0).min().expect("a segment");
    let end = segments.iter().map(|segment| segment.0 + segment.2).max().expect("a segment");
    let mut found = BTreeSet::new();
    for (address, data, _, is_text) in segments {
        // At any byte: a packed structure may have an address anywhere.
        for (at, word) in data.windows(8).enumerate() {
            let value = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            if (start..=end).contains(&value) {
                found.insert(address + at as u64);
                assert!(!is_text, "code at {:#x} has an address, {value:#x}", address + at as u64);
            }
        }
    }
    // The section itself holds addresses too, as they are linked.
    let section = elf.section_by_name(".relr.dyn").expect("relocations");
    found.retain(|at| !(section.address()..section.address() + section.size()).contains(at));
    assert!(found.len() > 500, "{} words", found.len());
    assert_eq!(found, relocated);
    // Nothing else asks for a relocation.
    for section in elf.sections() {
        let kind = section.elf_section_header().sh_type(Endianness::Little);
        let is_relocation = kind == elf::SHT_RELA || kind == elf::SHT_REL;
        assert!(!is_relocation || section.size() == 0, "{:?}", section.name());
    }
}
