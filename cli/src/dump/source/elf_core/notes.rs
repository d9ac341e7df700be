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
