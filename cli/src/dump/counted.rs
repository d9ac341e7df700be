//! How many of what, in words.

use std::fmt;

/// A number of things, by the name of one.
#[derive(Clone, Copy, Debug)]
pub struct Counted(pub u64, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, one) = self;
        match (count, *one) {
            (1, one) => write!(f, "1 {one}"),
            (_, "leaf") => write!(f, "{count} leaves"),
            (_, "entry") => write!(f, "{count} entries"),
            (_, one) => write!(f, "{count} {one}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural() {
        let words = ["table", "leaf", "entry"];
        assert_eq!(words.map(|word| Counted(1, word).to_string()), ["1 table", "1 leaf", "1 entry"]);
        assert_eq!(words.map(|word| Counted(0, word).to_string()), ["0 tables", "0 leaves", "0 entries"]);
    }
}
