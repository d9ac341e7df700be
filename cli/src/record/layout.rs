//! Where the guest's RAM lies, and where it is in the file: by QEMU's `info mtree -f`.

use std::fmt::Write as _;

use super::command_line::MEMORY;
use crate::failure::Failure;

/// The ranges of RAM of our memory backend, as the plugin reads them: a line `START LENGTH OFFSET`
/// each, in hexadecimal. Flash and ROM come as `START LENGTH rom`.
///
/// # Errors
/// There are none: the machine takes no memory backend.
pub fn of(text: &str) -> Result<String, Failure> {
    let mut is_system = false;
    let mut lines = String::new();
    let mut has_ram = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("FlatView") {
            is_system = false;
        } else if line.starts_with("AS \"memory\"") {
            is_system = true;
        } else if is_system && let Some((start, len, offset)) = range(line) {
            let _ = writeln!(lines, "{start:x} {len:x} {offset:x}");
            has_ram = true;
        } else if is_system && let Some((start, len)) = rom(line) {
            let _ = writeln!(lines, "{start:x} {len:x} rom");
        }
    }
    if !has_ram {
        return Err(Failure::new("QEMU's machine has no RAM in the file that it was given")
            .hint("the recorder needs a machine whose memory can be shared, such as virt"));
    }
    Ok(lines)
}

/// A line as `0000000040000000-000000007fffffff (prio 0, ram): linmap-record @0000000000001000`.
fn range(line: &str) -> Option<(u64, u64, u64)> {
    let (range, rest) = line.split_once(" (prio ")?;
    let (_, rest) = rest.split_once("ram): ")?;
    let mut words = rest.split(' ');
    if words.next() != Some(MEMORY) {
        return None;
    }
    let offset = words.find_map(|word| word.strip_prefix('@')).map_or(Some(0), hex)?;
    let (start, len) = start_and_len(range)?;
    Some((start, len, offset))
}

/// A line as `0000000000000000-0000000003ffffff (prio 0, romd): virt.flash0`.
fn rom(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(" (prio ")?;
    let (_, kind) = rest.split_once(", ")?;
    let is_whole = |&(start, len): &(u64, u64)| (start | len) & 0xfff == 0;
    (kind.starts_with("romd): ") || kind.starts_with("rom): "))
        .then(|| start_and_len(range))?
        .filter(is_whole)
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

/// A range as `000000000000-000000000fff`.
fn start_and_len(range: &str) -> Option<(u64, u64)> {
    let (start, last) = range.split_once('-')?;
    let (start, last) = (hex(start)?, hex(last)?);
    Some((start, last.checked_sub(start)?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_is_where_the_backend_is_mapped() {
        let text = "FlatView #1\r\n AS \"memory\", root: system\r\n\
            \x20 0000000000000000-0000000003ffffff (prio 0, romd): virt.flash0\r\n\
            \x20 0000000040000000-000000007fffffff (prio 0, ram): linmap-record\r\n\
            \x20 0000000100000000-000000013fffffff (prio 0, ram): linmap-record @0000000040000000 KVM\r\n\
            FlatView #2\r\n AS \"I/O\", root: io\r\n\
            \x20 0000000000000000-000000000000ffff (prio 0, ram): linmap-record\r\n";
        assert_eq!(of(text).unwrap(), "0 4000000 rom\n40000000 40000000 0\n100000000 40000000 40000000\n");
        assert!(of("").unwrap_err().to_string().contains("no RAM"));
    }
}
