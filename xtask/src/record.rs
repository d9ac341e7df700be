//! The kernel's lines for machines: `linmap: ` and `key=value` pairs, one space between them. A
//! value with spaces stands in double quotes, with `\"` and `\\` inside.

use serde_json::{Map, Number, Value};

/// What a line for machines begins with.
pub const PREFIX: &str = "linmap: ";

/// A line's pairs in the order they were printed.
pub type Record = Map<String, Value>;

/// Where a line breaks the rules. Columns count bytes after the prefix, from 0.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No `=` after the key, or no key before it.
    #[error("no key=value at column {0}")]
    NoPair(usize),
    /// A quoted value without its closing quote.
    #[error("the quote at column {0} is never closed")]
    OpenQuote(usize),
    /// A backslash before anything but a quote or a backslash.
    #[error("unknown escape at column {0}")]
    Escape(usize),
    /// Something other than one space after a pair.
    #[error("one space expected at column {0}")]
    Separator(usize),
    /// The same key twice.
    #[error("the key at column {0} was there before")]
    Repeated(usize),
}

/// The pairs of a line for machines; `None` for any other line.
pub fn parse(line: &str) -> Option<Result<Record, RecordError>> {
    line.strip_prefix(PREFIX).map(pairs)
}

fn pairs(text: &str) -> Result<Record, RecordError> {
    let mut record = Record::new();
    let mut at = 0;
    loop {
        let (key, rest) = text[at..].split_once('=').ok_or(RecordError::NoPair(at))?;
        if key.is_empty() || key.contains([' ', '"', '\\']) {
            return Err(RecordError::NoPair(at));
        }
        let value_at = at + key.len() + 1;
        let (value, length) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted, value_at)?,
            None => {
                let plain = rest.split(' ').next().unwrap_or_default();
                (plain_value(plain), plain.len())
            }
        };
        if record.insert(key.to_owned(), value).is_some() {
            return Err(RecordError::Repeated(at));
        }
        at = value_at + length;
        match text.as_bytes().get(at) {
            None => return Ok(record),
            Some(b' ') => at += 1,
            Some(_) => return Err(RecordError::Separator(at)),
        }
    }
}

/// The value after an opening quote, and how many bytes it takes with both quotes.
fn quoted_value(text: &str, open_at: usize) -> Result<(Value, usize), RecordError> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok((Value::String(value), index + 2)),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                _ => return Err(RecordError::Escape(open_at + 1 + index)),
            },
            other => value.push(other),
        }
    }
    Err(RecordError::OpenQuote(open_at))
}

/// A number where the whole text is one: decimal, 0x and hex digits, or a decimal fraction.
/// Anything else, and what no 64 bits can hold, stays text.
fn plain_value(text: &str) -> Value {
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    if let Some(hex) = text.strip_prefix("0x") {
        let digits = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        return u64::from_str_radix(hex, 16).ok().filter(|_| digits).map(Number::from);
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match digits.split_once('.') {
        None if all_digits(digits) => {
            text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).ok()
        }
        Some((whole, fraction)) if all_digits(whole) && all_digits(fraction) => {
            text.parse().ok().and_then(Number::from_f64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(text: &str) -> Value {
        Value::Object(parse(text).unwrap().unwrap())
    }

    #[test]
    fn keys_keep_their_order_and_numbers_are_numbers() {
        let record =
            parse("linmap: phase=linear-map ticks=1234 base=0xffff_ bytes=0x4000 share=0.25 delta=-3");
        let record = record.unwrap().unwrap();
        assert_eq!(record.keys().collect::<Vec<_>>(), ["phase", "ticks", "base", "bytes", "share", "delta"]);
        assert_eq!(
            Value::Object(record),
            json!({"phase": "linear-map", "ticks": 1234, "base": "0xffff_", "bytes": 0x4000, "share": 0.25,
                   "delta": -3})
        );
    }

    #[test]
    fn the_largest_address_is_a_number_and_more_is_text() {
        assert_eq!(parsed("linmap: va=0xffffffffffffffff"), json!({"va": u64::MAX}));
        assert_eq!(parsed("linmap: va=0x10000000000000000"), json!({"va": "0x10000000000000000"}));
        assert_eq!(parsed("linmap: n=18446744073709551615"), json!({"n": u64::MAX}));
        assert_eq!(parsed("linmap: n=18446744073709551616"), json!({"n": "18446744073709551616"}));
    }

    #[test]
    fn quoted_values_hold_spaces_quotes_and_backslashes() {
        assert_eq!(
            parsed(r#"linmap: error=dtb what="bad \"magic\" in C:\\x, = sign" at=7"#),
            json!({"error": "dtb", "what": r#"bad "magic" in C:\x, = sign"#, "at": 7})
        );
        assert_eq!(parsed(r#"linmap: what="""#), json!({"what": ""}));
        assert_eq!(parsed(r#"linmap: what="12""#), json!({"what": "12"}));
    }

    #[test]
    fn values_that_only_look_like_numbers_stay_text() {
        for text in ["", "0x", "0x+1", "+1", "1.", ".5", "1.2.3", "1e3", "12a", "-", "inf", "6.12.95"] {
            assert_eq!(parsed(&format!("linmap: v={text}")), json!({"v": text}), "{text}");
        }
    }

    #[test]
    fn other_lines_are_no_records() {
        for line in ["", "linmap-userspace: ok", " linmap: a=1", "linmap:a=1", "[    0.0] linmap: a=1"] {
            assert!(parse(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_line_that_breaks_the_rules_is_named_with_its_column() {
        let error = |line: &str| parse(line).unwrap().unwrap_err();
        assert_eq!(error("linmap: "), RecordError::NoPair(0));
        assert_eq!(error("linmap: a=1 b"), RecordError::NoPair(4));
        assert_eq!(error("linmap: a=1  b=2"), RecordError::NoPair(4));
        assert_eq!(error("linmap: =1"), RecordError::NoPair(0));
        assert_eq!(error("linmap: a=\"x"), RecordError::OpenQuote(2));
        assert_eq!(error("linmap: a=\"\\n\""), RecordError::Escape(3));
        assert_eq!(error("linmap: a=\"x\"b=1"), RecordError::Separator(5));
        assert_eq!(error("linmap: a=1 a=2"), RecordError::Repeated(4));
    }
}
