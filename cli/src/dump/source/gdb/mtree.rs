//! Where the guest has memory, by what QEMU's monitor says to `info mtree -f`.

use std::ops::Range;

/// The ranges of RAM, ROM and flash in the view of memory that the system has, ascending and
/// disjoint; empty if there is no such view.
///
/// The text has a `FlatView` for each space of addresses, with the names of those that share it as
/// ` AS "memory", …`, and then a line for each range:
/// `  0000000040000000-00000000bfffffff (prio 0, ram): mach-virt.ram`.
pub fn memory(text: &str) -> Vec<Range<u64>> {
    let mut is_system = false;
    let mut ranges = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("FlatView") {
            is_system = false;
        } else if line.starts_with("AS \"memory\"") {
            is_system = true;
        } else if is_system && let Some(range) = range(line) {
            ranges.push(range);
        }
    }
    super::super::ranges::disjoint(ranges)
}

/// The range of a line, if it is memory.
fn range(line: &str) -> Option<Range<u64>> {
    let (range, rest) = line.split_once(" (prio ")?;
    let (_, rest) = rest.split_once(", ")?;
    let (kind, _) = rest.split_once(')')?;
    if !matches!(kind.strip_prefix("nv-").unwrap_or(kind), "ram" | "rom" | "romd") {
        return None;
    }
    let (start, last) = range.split_once('-')?;
    let [start, last] = [start, last].map(|number| u64::from_str_radix(number, 16));
    Some(start.ok()?..last.ok()?.checked_add(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of QEMU 10.0.2, shortened.
    const TEXT: &str = "FlatView #0\r\n AS \"gpex-root\", root: bus master container\r\n\
        Root memory region: (none)\r\n  No rendered FlatView\r\n\r\n\
        FlatView #1\r\n AS \"memory\", root: system\r\n AS \"cpu-memory-0\", root: system\r\n\
        Root memory region: system\r\n\
        \x20 0000000000000000-0000000003ffffff (prio 0, romd): virt.flash0\r\n\
        \x20 0000000004000000-0000000007ffffff (prio 0, romd): virt.flash1\r\n\
        \x20 0000000008000000-000000000800ffff (prio 0, i/o): gicv3_dist\r\n\
        \x20 0000000040000000-00000000bfffffff (prio 0, ram): mach-virt.ram\r\n\
        \x20 0000000880000000-00000008ffffffff (prio 0, nv-ram): nvdimm @0000000000001000\r\n\
        FlatView #2\r\n AS \"I/O\", root: io\r\n Root memory region: io\r\n\
        \x20 0000000000000000-000000000000ffff (prio 0, ram): other\r\n";

    #[test]
    fn memory_is_what_the_system_sees_as_ram_rom_or_flash() {
        let expected = [0..0x800_0000, 0x4000_0000..0xc000_0000, 0x8_8000_0000..0x9_0000_0000];
        assert_eq!(memory(TEXT), expected);
        assert_eq!(memory(""), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn of_any_text_the_ranges_ascend(
            cut in 0..TEXT.len(),
            mutations in prop::collection::vec((0..TEXT.len(), any::<char>()), 0..20),
        ) {
            let mut text: Vec<char> = TEXT.chars().take(cut).collect();
            for (at, with) in mutations {
                if let Some(at) = text.get_mut(at) {
                    *at = with;
                }
            }
            let ranges = memory(&text.into_iter().collect::<String>());
            prop_assert!(ranges.iter().all(|range| range.start < range.end));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
