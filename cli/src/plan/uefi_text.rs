//! UEFI memory maps as bytes and as text.
//!
//! Three programs print them, each with one line for a descriptor:
//!
//! ```text
//! EFI shell, memmap:       BS_Data    0000000040000000-0000000040000FFF 0000000000000001 000000000000000F
//! U-Boot, efidebug memmap: BOOT DATA        0000000040000000-0000000040001000 WB
//! Linux, efi=debug:        efi:   0x000040000000-0x000040000fff [Boot Data  |   |  |  |WB|WT|WC|UC]
//! ```
//!
//! The shell and Linux give the last byte, U-Boot the first byte behind the range.

use linmap_memblock::{UefiAttributes, UefiMap, UefiType};

use crate::failure::Failure;

/// The length of `EFI_MEMORY_DESCRIPTOR`.
pub const DESCRIPTOR: usize = 40;
/// The lengths of descriptors: the least, and EDK2's.
const SIZES: [usize; 2] = [DESCRIPTOR, 48];
const PAGE: u64 = 0x1000;

/// Returns the size of the descriptors in `bytes`, if they are a memory map: all have a known type
/// or a vendor's, and at least one is memory.
pub fn descriptor_size(bytes: &[u8]) -> Option<usize> {
    let is_known = |kind: UefiType| kind.0 < 16 || kind.0 >= 0x7000_0000;
    let is_map = |size: &usize| {
        UefiMap::new(bytes, *size).is_ok_and(|map| {
            let mut descriptors = map.descriptors();
            descriptors.clone().all(|descriptor| is_known(descriptor.kind))
                && descriptors.any(|descriptor| descriptor.attributes.contains(UefiAttributes::WB))
        })
    };
    SIZES.into_iter().find(is_map)
}

/// The names of types as the shell, U-Boot and Linux abbreviate them, without what follows the
/// first word that tells them apart; by their numbers.
const TYPES: [(&str, u32); 45] = [
    ("loadercode", 1),
    ("loaderdata", 2),
    ("bs_code", 3),
    ("bootcode", 3),
    ("bs_data", 4),
    ("bootdata", 4),
    ("rt_code", 5),
    ("runtimecode", 5),
    ("rt_data", 6),
    ("runtimedata", 6),
    ("available", 7),
    ("conventional", 7),
    ("conventionalmemory", 7),
    ("unusable", 8),
    ("unusablemem", 8),
    ("unusablememory", 8),
    ("acpi_recl", 9),
    ("acpireclaim", 9),
    ("acpireclaimmem", 9),
    ("acpireclaimmemory", 9),
    ("acpi_nvs", 10),
    ("acpinvs", 10),
    ("acpimemnvs", 10),
    ("acpimemorynvs", 10),
    ("mmio", 11),
    ("io", 11),
    ("memorymappedi/o", 11),
    ("mmio_port", 12),
    ("mmioport", 12),
    ("mmioportspace", 12),
    ("ioport", 12),
    ("palcode", 13),
    ("pal", 13),
    ("persistent", 14),
    ("persistentmemory", 14),
    ("persistentmem", 14),
    ("unaccepted", 15),
    ("unacceptedmemory", 15),
    ("reserved", 0),
    ("bootservicescode", 3),
    ("bootservicesdata", 4),
    ("runtimeservicescode", 5),
    ("runtimeservicesdata", 6),
    ("mappedio", 11),
    ("mappedioport", 12),
];

/// The attributes that matter for memory, by the letters of Linux and of U-Boot.
const ATTRIBUTES: [(&str, u64); 6] = [
    ("WC", UefiAttributes::WC.0),
    ("WT", UefiAttributes::WT.0),
    ("WB", UefiAttributes::WB.0),
    ("UC", 1),
    ("SP", UefiAttributes::SPECIAL_PURPOSE.0),
    ("RUN", 1 << 63),
];

/// What begins a line of Linux's log, behind the time.
const LOG: &str = "efi: ";

/// A line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Descriptor {
    kind: u32,
    start: u64,
    pages: u64,
    attributes: u64,
}

/// Whether a line is a descriptor.
pub fn is_descriptor(line: &str) -> bool {
    parse(line).is_some()
}

/// Returns the descriptors of `text` as bytes of 40 each, and the number of the line of each.
///
/// # Errors
/// A line has a range, but is no descriptor. In a log such lines may be others' than UEFI's.
pub fn descriptors(text: &str) -> Result<(Vec<u8>, Vec<usize>), Failure> {
    let (mut bytes, mut lines) = (Vec::new(), Vec::new());
    let is_log = text.lines().find(|line| is_descriptor(line)).is_some_and(|line| line.contains(LOG));
    for (number, line) in (1..).zip(text.lines()) {
        let has_range = line.split(is_separator).any(looks_like_range);
        if let Some(Descriptor { kind, start, pages, attributes }) = parse(line) {
            let words = [u64::from(kind), start, 0, pages, attributes];
            bytes.extend(words.into_iter().flat_map(u64::to_le_bytes));
            lines.push(number);
        } else if has_range && line.contains(LOG) == is_log {
            return Err(Failure::new(format_args!("line {number}: a range that is no descriptor"))
                .hint("it needs a type, its first and last address in order, and as many pages"));
        }
    }
    Ok((bytes, lines))
}

/// Returns the map that `bytes` hold.
pub fn map_of(bytes: &[u8]) -> Result<UefiMap<'_>, Failure> {
    let size = descriptor_size(bytes).unwrap_or(DESCRIPTOR);
    Ok(UefiMap::new(bytes, size)?)
}

fn parse(line: &str) -> Option<Descriptor> {
    // Of Linux's log: what follows `efi:`, behind the time.
    let (line, is_log) = match line.split_once(LOG) {
        Some((_, rest)) => (rest, true),
        None => (line, false),
    };
    let range = line.split(is_separator).find_map(range)?;
    let in_brackets = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match in_brackets.filter(|_| is_log) {
        Some((fields, _)) => {
            let mut fields = fields.split('|').map(str::trim);
            let kind = kind(fields.next()?)?;
            let attributes = fields.clone().filter_map(attribute).fold(0, |all, attribute| all | attribute);
            // Attributes that the kernel has no letters for come as one number.
            let number = fields.filter_map(|field| field.strip_prefix("attr=0x")).find_map(hexadecimal);
            of_range(kind, range.0, range.1.checked_add(1)?, number.unwrap_or(attributes))
        }
        None if is_log => None,
        None => {
            let mut words = line.split_whitespace();
            let name: String = words.by_ref().take_while(|word| self::range(word).is_none()).collect();
            let kind = kind(&name)?;
            let rest: Vec<_> = words.collect();
            match rest[..] {
                // The shell: pages and attributes as numbers of 16 digits.
                [pages, attributes] if pages.len() == 16 && attributes.len() == 16 => {
                    let of = of_range(kind, range.0, range.1.checked_add(1)?, hexadecimal(attributes)?)?;
                    (of.pages == hexadecimal(pages)?).then_some(of)
                }
                // U-Boot: attributes by letters.
                [] => of_range(kind, range.0, range.1, 0),
                [attributes] => {
                    let letters = attributes.split('|');
                    let attributes = letters.filter_map(attribute).fold(0, |all, attribute| all | attribute);
                    of_range(kind, range.0, range.1, attributes)
                }
                _ => None,
            }
        }
    }
}

fn of_range(kind: u32, start: u64, end: u64, attributes: u64) -> Option<Descriptor> {
    let len = end.checked_sub(start)?;
    Some(Descriptor { kind, start, pages: len.div_ceil(PAGE), attributes })
}

fn is_separator(at: char) -> bool {
    at.is_whitespace() || "[]=()*".contains(at)
}

/// Whether `word` is `START-END`, also one that can't be read.
fn looks_like_range(word: &str) -> bool {
    let begins = |text: &str| text.len() >= 8 && text.starts_with(|at: char| at.is_ascii_hexdigit());
    word.split_once('-').is_some_and(|(start, end)| begins(start) && begins(end))
}

/// Reads `START-END`, each at least 8 hexadecimal digits.
fn range(word: &str) -> Option<(u64, u64)> {
    let (start, end) = word.split_once('-')?;
    let address = |text: &str| hexadecimal(text.strip_prefix("0x").unwrap_or(text));
    let is_long = |text: &str| text.len() >= 8;
    (is_long(start) && is_long(end)).then_some(())?;
    Some((address(start)?, address(end)?))
}

fn hexadecimal(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
}

fn kind(name: &str) -> Option<u32> {
    let name: String = name.chars().filter(|at| !at.is_whitespace()).collect::<String>().to_lowercase();
    TYPES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn attribute(letters: &str) -> Option<u64> {
    ATTRIBUTES.iter().find(|(known, _)| *known == letters).map(|(_, bits)| *bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_read_from_the_lines_of_three_programs() {
        let conventional =
            |attributes| Some(Descriptor { kind: 7, start: 0x4000_0000, pages: 0x4_0000, attributes });
        let parsed = [
            "Available  0000000040000000-000000007FFFFFFF 0000000000040000 000000000000000F",
            "CONVENTIONAL     0000000040000000-0000000080000000 WB",
            "[    0.000000] efi:   0x000040000000-0x00007fffffff \
             [Conventional|   |  |  |  |  |  |  |  |  |   |WB|WT|WC|UC]*",
            "efi: mem01: [Conventional Memory|   |  |  |WB|WT|WC|UC] \
             range=[0x0000000040000000-0x000000007fffffff] (1024MB)",
        ]
        .map(parse);
        assert_eq!(parsed, [conventional(0xf), conventional(8), conventional(0xf), conventional(0xf)]);
        let runtime = parse("RUNTIME DATA     000000007f000000-000000007f002000 WB|RT");
        assert_eq!(runtime, Some(Descriptor { kind: 6, start: 0x7f00_0000, pages: 2, attributes: 8 }));
        let unknown = parse("efi:   0x0004000000-0x000400ffff [Boot Data|attr=0x8000000000000008]");
        assert_eq!(unknown.map(|of| of.attributes), Some(1 << 63 | 8));
    }

    #[test]
    fn other_lines_are_no_descriptors() {
        for line in [
            "",
            "Type       Start            End              # Pages          Attributes",
            "  Reserved  :              4 Pages (16,384 Bytes)",
            "40000000-7fffffff : System RAM",
            "efi: EFI v2.7 by EDK II",
            "efi: SMBIOS 3.0=0x7f000000 MEMATTR=0x7e000000",
            "Available  0000000040000000-000000007FFFFFFF 0000000000000001 000000000000000F",
            "Available  0000000080000000-000000007FFFFFFF",
            "Available  ffffffffffffffff-ffffffffffffffff 0000000000000001 000000000000000F",
            "Nonsense   0000000040000000-000000007FFFFFFF 0000000000040000 000000000000000F",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_with_a_range_that_is_no_descriptor_is_an_error_by_its_number() {
        let good = "Available  0000000040000000-000000007FFFFFFF 0000000000040000 000000000000000F";
        for bad in [
            "Available  0000000080000000-00000000BFFFFFFF 0000000000000001 000000000000000F",
            "Available  00000000BFFFFFFF-0000000080000000 0000000000040000 000000000000000F",
            "Available  00000000800000zz-00000000BFFFFFFF 0000000000040000 000000000000000F",
            "Bogus_Typ  0000000080000000-00000000BFFFFFFF 0000000000040000 000000000000000F",
            "Available  0000000080000000-00000000BFFFFFFF 00000000000040000 000000000000000F",
            "Available  0000000080000000-FFFFFFFFFFFFFFFF 0000000000040000 000000000000000F",
        ] {
            let error = descriptors(&format!("{good}\n\n{bad}\n")).unwrap_err().to_string();
            assert!(error.starts_with("line 3: "), "{bad}: {error}");
        }
        // Others' lines in Linux's log.
        let log = "[    0.0] efi:   0x000040000000-0x00007fffffff [Conventional|   |WB|WT|WC|UC]\n\
                   [    0.0]   node   0: [mem 0x0000000040000000-0x00000000bfffffff]\n";
        assert_eq!(descriptors(log).unwrap().1, [1]);
    }

    #[test]
    fn bytes_are_a_map_by_the_length_of_their_descriptors() {
        let descriptor =
            |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|at| at.to_le_bytes()).collect() };
        let short = descriptor(&[7, 0x4000_0000, 0, 16, 15, 4, 0x5000_0000, 0, 16, 15]);
        assert_eq!(descriptor_size(&short), Some(40));
        let long = descriptor(&[7, 0x4000_0000, 0, 16, 15, 0, 4, 0x5000_0000, 0, 16, 15, 0]);
        assert_eq!(descriptor_size(&long), Some(48));
        assert_eq!(descriptor_size(&[0; 480]), None);
        assert_eq!(descriptor_size(&short[..79]), None);
        assert_eq!(descriptor_size(b""), None);
    }
}
