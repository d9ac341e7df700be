//! The notes of an ELF core.

/// The text of the note `VMCOREINFO`, if it is there. A note that is cut off ends the search.
pub fn vmcoreinfo(notes: &[u8]) -> Option<String> {
    let mut rest = notes;
    loop {
        let head = rest.first_chunk::<12>()?;
        let word = |nth: usize| -> Option<usize> {
            let bytes = *head.get(nth * 4..)?.first_chunk()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let (name_len, content_len) = (word(0)?, word(1)?);
        let name = rest.get(12..)?.get(..name_len)?;
        let content_at = 12usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let content = rest.get(content_at..)?.get(..content_len)?;
        if name == b"VMCOREINFO\0" || name == b"VMCOREINFO" {
            return Some(String::from_utf8_lossy(content).into_owned());
        }
        // The last note may lack the bytes that would align the next one.
        rest = rest.get(content_at.checked_add(content_len.checked_next_multiple_of(4)?)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(name: &str, content: &[u8]) -> Vec<u8> {
        let mut note: Vec<u8> =
            [name.len() as u32, content.len() as u32, 1].into_iter().flat_map(u32::to_le_bytes).collect();
        for part in [name.as_bytes(), content] {
            note.extend_from_slice(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    fn notes() -> Vec<u8> {
        [note("CORE\0", &[1; 393]), note("VMCOREINFO\0", b"PAGESIZE=4096\n")].concat()
    }

    #[test]
    fn vmcoreinfo_is_found_among_other_notes_and_without_what_aligns_it() {
        assert_eq!(vmcoreinfo(&notes()).unwrap(), "PAGESIZE=4096\n");
        assert_eq!(vmcoreinfo(&notes()[..notes().len() - 2]).unwrap(), "PAGESIZE=4096\n");
        assert_eq!(vmcoreinfo(&note("CORE\0", &[])), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn any_notes_end(
            changes in prop::collection::vec((0_usize..440, any::<u8>()), 0..8),
            len in 0_usize..440,
        ) {
            let mut notes = notes();
            for (at, byte) in changes {
                if let Some(there) = notes.get_mut(at) {
                    *there = byte;
                }
            }
            notes.truncate(len);
            let _ = vmcoreinfo(&notes);
        }
    }
}
