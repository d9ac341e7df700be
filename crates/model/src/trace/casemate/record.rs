//! The records of a casemate trace: s-expressions one level deep.

use linmap_trace::{Found, Malformed, NumberError, Quote, number};

use crate::trace::read_error::{Problem, ReadError};

/// The most fields of any record, `id` and `tid` among them.
const MOST_FIELDS: usize = 5;

/// A position in the file.
#[derive(Clone, Copy)]
pub(super) struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    pub fn error(self, problem: impl Into<Problem>) -> ReadError {
        ReadError { line: self.line, column: self.column, problem: problem.into() }
    }
}

#[derive(Clone, Copy)]
enum Token<'a> {
    Open,
    Close,
    Atom(&'a [u8]),
    Text(&'a [u8]),
    /// `!` and the rest of the line.
    Message(&'a [u8]),
    End,
}

impl Token<'_> {
    fn unexpected(self, position: Position, expected: &'static str) -> ReadError {
        let found = match self {
            Token::Open => Found::Word(Quote::of(b"(")),
            Token::Close => Found::Word(Quote::of(b")")),
            Token::Atom(word) | Token::Text(word) | Token::Message(word) => Found::Word(Quote::of(word)),
            Token::End => Found::End("trace"),
        };
        position.error(Malformed::Expected { expected, found })
    }
}

/// The value of a field, and its name if it is given.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    /// The position of the value.
    pub position: Position,
    /// The position of the name, or of the value without one.
    start: Position,
    key: Option<&'a [u8]>,
    pub value: &'a [u8],
}

impl Field<'_> {
    pub fn unexpected(&self, expected: &'static str) -> ReadError {
        self.position.error(Problem::expected(expected, self.value))
    }

    fn number(&self, digits: &[u8], radix: u32) -> Result<u64, ReadError> {
        number(digits, radix).map_err(|error| match error {
            NumberError::TooLarge => self.position.error(Malformed::TooLarge(Quote::of(self.value))),
            _ => self.unexpected("a number"),
        })
    }

    /// A decimal number.
    pub fn decimal(&self) -> Result<u64, ReadError> {
        self.number(self.value, 10)
    }

    /// A hexadecimal number, with or without `0x`.
    pub fn hex(&self) -> Result<u64, ReadError> {
        self.number(self.value.strip_prefix(b"0x").unwrap_or(self.value), 16)
    }
}

/// One record.
pub(super) struct Record<'a> {
    pub position: Position,
    pub name: &'a [u8],
    fields: Vec<Field<'a>>,
    next: usize,
    end: Position,
}

impl<'a> Record<'a> {
    /// The next field, which must be called one of `names` if it is named at all.
    pub fn field(&mut self, names: &[&'static str]) -> Result<Field<'a>, ReadError> {
        let expected = names.first().copied().unwrap_or_default();
        let Some(&field) = self.fields.get(self.next) else {
            let found = Found::End("record");
            return Err(self.end.error(Malformed::Expected { expected, found }));
        };
        self.next += 1;
        match field.key {
            Some(key) if !names.iter().any(|name| key.eq_ignore_ascii_case(name.as_bytes())) => {
                Err(field.start.error(Problem::expected(expected, key)))
            }
            _ => Ok(field),
        }
    }

    /// Checks that all fields were read.
    pub fn end(&self) -> Result<(), ReadError> {
        match self.fields.get(self.next) {
            None => Ok(()),
            Some(field) => {
                Err(field.start.error(Malformed::Trailing(Quote::of(field.key.unwrap_or(field.value)))))
            }
        }
    }
}

/// An item at the outermost level of a trace.
pub(super) enum Item<'a> {
    Record(Record<'a>),
    Message(&'a [u8]),
}

/// The text of a trace, read from front to back.
pub(super) struct Records<'a> {
    file: &'a [u8],
    at: usize,
    line: usize,
    line_start: usize,
}

impl<'a> Records<'a> {
    pub fn new(file: &'a [u8]) -> Self {
        Self { file, at: 0, line: 1, line_start: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.file.get(self.at..).unwrap_or_default()
    }

    /// Steps over bytes up to the first that fits, and gives them.
    fn until(&mut self, fits: fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let len = rest.iter().position(|&byte| fits(byte)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    /// Steps over white space and comments.
    fn skip_blank(&mut self) {
        while let Some(&byte) = self.rest().first() {
            match byte {
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    self.line_start = self.at;
                }
                b';' => {
                    self.until(|byte| byte == b'\n');
                }
                _ if byte.is_ascii_whitespace() => self.at += 1,
                _ => break,
            }
        }
    }

    fn token(&mut self) -> Result<(Position, Token<'a>), ReadError> {
        self.skip_blank();
        let position = Position { line: self.line, column: self.at - self.line_start + 1 };
        let Some(&first) = self.rest().first() else { return Ok((position, Token::End)) };
        let token = match first {
            b'(' => {
                self.at += 1;
                Token::Open
            }
            b')' => {
                self.at += 1;
                Token::Close
            }
            b'!' => {
                self.at += 1;
                Token::Message(self.until(|byte| byte == b'\n').trim_ascii())
            }
            b'"' => {
                self.at += 1;
                let text = self.until(|byte| byte == b'"' || byte == b'\n');
                if self.rest().first() != Some(&b'"') {
                    let problem = Problem::expected("a closing quotation mark", text);
                    return Err(position.error(problem));
                }
                self.at += 1;
                Token::Text(text)
            }
            _ => Token::Atom(self.until(|byte| byte.is_ascii_whitespace() || b"()\";".contains(&byte))),
        };
        Ok((position, token))
    }

    fn atom(&mut self, expected: &'static str) -> Result<(Position, &'a [u8]), ReadError> {
        match self.token()? {
            (position, Token::Atom(word)) => Ok((position, word)),
            (position, token) => Err(token.unexpected(position, expected)),
        }
    }

    /// The next record or message; `None` at the end of the trace.
    pub fn next(&mut self) -> Result<Option<Item<'a>>, ReadError> {
        let position = match self.token()? {
            (position, Token::Open) => position,
            (_, Token::Message(message)) => return Ok(Some(Item::Message(message))),
            (_, Token::End) => return Ok(None),
            (position, token) => return Err(token.unexpected(position, "a record")),
        };
        let (_, name) = self.atom("the name of a record")?;
        let mut record = Record { position, name, fields: Vec::new(), next: 0, end: position };
        let mut has_source = false;
        loop {
            let field = match self.token()? {
                (position, Token::Close) => {
                    record.end = position;
                    return Ok(Some(Item::Record(record)));
                }
                (position, Token::Atom(value)) => Field { position, start: position, key: None, value },
                (position, Token::Text(value)) => {
                    Field { position, start: position, key: Some(b"src"), value }
                }
                (_, Token::Open) => {
                    let (start, key) = self.atom("the name of a field")?;
                    let (position, value) = match self.token()? {
                        (position, Token::Atom(value) | Token::Text(value)) => (position, value),
                        (position, token) => return Err(token.unexpected(position, "the value of a field")),
                    };
                    match self.token()? {
                        (_, Token::Close) => Field { position, start, key: Some(key), value },
                        (position, token) => return Err(token.unexpected(position, "`)`")),
                    }
                }
                (position, token) => return Err(token.unexpected(position, "a field or `)`")),
            };
            // `src` may be anywhere, and its value is skipped.
            if field.key.is_some_and(|key| key.eq_ignore_ascii_case(b"src")) && !has_source {
                has_source = true;
            } else if record.fields.len() == MOST_FIELDS {
                return Err(field
                    .start
                    .error(Malformed::Trailing(Quote::of(field.key.unwrap_or(field.value)))));
            } else {
                record.fields.push(field);
            }
        }
    }
}
