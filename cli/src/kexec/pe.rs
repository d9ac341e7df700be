//! The length of a file by its PE header. Images that are EFI applications have one.

/// Returns how many bytes at least the file that begins with `head` has, if that says so: its
/// headers, and what its sections have in the file.
pub fn file_len(head: &[u8]) -> Option<u64> {
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = head.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
    };
    // e_lfanew. An Image without a PE header has 0 there.
    let start = usize::try_from(number(0x3c, 4)?).ok()?;
    if !head.starts_with(b"MZ") || start < 0x40 {
        return None;
    }
    let headers = start as u64 + 24;
    match head.get(start..start.checked_add(4)?) {
        Some(b"PE\0\0") => {}
        Some(_) => return None,
        None => return Some(headers),
    }
    let (Some(sections), Some(optional)) = (number(start + 6, 2), number(start + 20, 2)) else {
        return Some(headers);
    };
    let table = headers + optional;
    let end = (0..sections).fold(table + sections * 40, |end, nth| {
        let at = (table + nth * 40) as usize;
        let section = number(at + 16, 4).zip(number(at + 20, 4)).map_or(0, |(len, from)| len + from);
        end.max(section)
    });
    Some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with two sections, which end at 0x300.
    fn file() -> Vec<u8> {
        let mut file = vec![0; 0x300];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x40;
        file[0x40..0x44].copy_from_slice(b"PE\0\0");
        (file[0x46], file[0x54]) = (2, 16);
        for (at, from) in [(0x68, 0x100_u32), (0x68 + 40, 0x200)] {
            file[at + 16..at + 20].copy_from_slice(&0x100_u32.to_le_bytes());
            file[at + 20..at + 24].copy_from_slice(&from.to_le_bytes());
        }
        file
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_shorter_than_it_says() {
        let file = file();
        assert_eq!(file_len(&file), Some(0x300));
        for len in 0x40..file.len() {
            assert!(file_len(&file[..len]).is_some_and(|said| said > len as u64), "{len:#x}");
        }
        assert_eq!(file_len(b""), None);
        assert_eq!(file_len(&[0; 0x100]), None);
    }

    proptest! {
        #[test]
        fn no_head_panics(at in 0_usize..0x100, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut file = file();
            file[at..at + bytes.len()].copy_from_slice(&bytes);
            file_len(&file);
        }
    }
}
