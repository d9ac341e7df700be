//! What the values of properties mean (Devicetree Specification v0.4, section 2.2.4).

use core::str;

/// Returns the string at the start of a value, without its NUL: all bytes before the first NUL.
/// What follows the NUL is padding, and means nothing. A value without a NUL is a string as a
/// whole.
pub fn first_string(value: &[u8]) -> &[u8] {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    value.get(..end).unwrap_or_default()
}

/// Returns the [`first_string`] of a value if it is UTF-8.
pub fn string(value: &[u8]) -> Option<&str> {
    str::from_utf8(first_string(value)).ok()
}

/// Returns the strings of a list, each of which ends with a NUL. Those that are empty or not UTF-8
/// are left out.
pub fn strings(value: &[u8]) -> impl Iterator<Item = &str> {
    let named = value.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    named.filter_map(|name| str::from_utf8(name).ok())
}

/// Returns whether the value of a `compatible` property has the string `name`.
pub fn is_compatible(value: &[u8], name: &str) -> bool {
    value.split(|&byte| byte == 0).any(|found| found == name.as_bytes())
}

/// Returns the number in a value of one or two cells.
pub fn number(value: &[u8]) -> Option<u64> {
    let wide = value.try_into().map(u64::from_be_bytes);
    wide.ok().or_else(|| value.try_into().map(u32::from_be_bytes).map(u64::from).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_at_its_first_nul() {
        for value in [&b"page\0"[..], b"page\0\0", b"page\0ab", b"page\0\xff\xfe", b"page"] {
            assert_eq!((first_string(value), string(value)), (&b"page"[..], Some("page")));
        }
        assert_eq!((string(b""), string(b"\0x"), string(b"\xff\0")), (Some(""), Some(""), None));
    }

    #[test]
    fn a_list_leaves_out_what_is_no_name() {
        assert!(strings(b"arm,gic-400\0\0\xff\0arm,pl390").eq(["arm,gic-400", "arm,pl390"]));
        assert!(is_compatible(b"a\0b\0\0", "b") && !is_compatible(b"ab\0", "b"));
    }
}
