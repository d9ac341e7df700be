//! The trace as bytes: a file that can be read again, or a pipe.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::file_kind::FileKind;

/// Where a trace comes from.
pub struct Input {
    path: Option<PathBuf>,
    /// The length of a regular file, which can be read again.
    len: Option<u64>,
    form: Form,
    head: Vec<u8>,
    rest: Box<dyn Read + Send>,
}

/// The form of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Lines of `linmap-trace`.
    Lines,
    /// Records of `linmap-trace` in binary form.
    Binary,
    /// casemate's records.
    Casemate,
}

impl Form {
    /// The form's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lines => "linmap",
            Self::Binary => "linmap-binary",
            Self::Casemate => "casemate",
        }
    }
}

/// The name of standard input on the command line.
const STDIN: &str = "-";

impl Input {
    /// Opens the trace at `path`, and tells its form by its first lines.
    ///
    /// # Errors
    /// It can't be read, or is something else.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == STDIN {
            return Self::of(None, None, Box::new(io::stdin()))
                .map_err(|failure| failure.of("standard input"));
        }
        let named = |failure: Failure| failure.of(path.display());
        let file = File::open(path).map_err(|error| named(error.into()))?;
        let metadata = file.metadata().map_err(|error| named(error.into()))?;
        if metadata.is_dir() {
            return Err(named(Failure::new("is a directory, not a trace")));
        }
        let len = metadata.is_file().then_some(metadata.len());
        Self::of(Some(path.to_owned()), len, Box::new(file)).map_err(named)
    }

    /// The trace in `rest`, which is the file at `path` if it can be read again.
    ///
    /// # Errors
    /// It can't be read, or is something else.
    pub fn of(
        path: Option<PathBuf>,
        len: Option<u64>,
        mut rest: Box<dyn Read + Send>,
    ) -> Result<Self, Failure> {
        let mut head = Vec::new();
        rest.by_ref().take(FileKind::HEAD as u64).read_to_end(&mut head)?;
        let form = form(&head)?;
        Ok(Self { path, len, form, head, rest })
    }

    /// What the trace is called in messages.
    pub fn name(&self) -> String {
        self.path.as_ref().map_or("standard input".to_owned(), |path| path.display().to_string())
    }

    /// The form of the trace.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The bytes of a file; `None` for a pipe.
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// The file to read again; `None` for a pipe.
    pub fn again(&self) -> Option<PathBuf> {
        self.path.clone().filter(|_| self.len.is_some())
    }

    /// The bytes, from the first on.
    pub fn into_bytes(self) -> Box<dyn Read + Send> {
        Box::new(io::Cursor::new(self.head).chain(self.rest))
    }
}

/// The form of the trace that begins with `head`.
fn form(head: &[u8]) -> Result<Form, Failure> {
    const UNPACK: &str = "unpack it into a pipe:";
    let kind = FileKind::of(head);
    let wrong = Failure::new(format_args!("{kind}, not a trace"));
    match kind {
        FileKind::Text => {}
        FileKind::Trace => return Ok(Form::Binary),
        FileKind::Empty => {
            return Err(
                Failure::new("empty, not a trace").hint("a trace begins with a line `machine cpus=…`")
            );
        }
        FileKind::Utf16 => {
            return Err(wrong.hint("convert it: iconv -f UTF-16 -t UTF-8 FILE | linmap check -"));
        }
        FileKind::Gzip => return Err(wrong.hint(format_args!("{UNPACK} gzip -dc FILE | linmap check -"))),
        FileKind::Zstd => return Err(wrong.hint(format_args!("{UNPACK} zstd -dc FILE | linmap check -"))),
        FileKind::Xz => return Err(wrong.hint(format_args!("{UNPACK} xz -dc FILE | linmap check -"))),
        _ => return Err(wrong.hint("see `linmap check --help` for what a trace is")),
    }
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    Ok(match first {
        Some([b'(' | b';' | b'!', ..]) => Form::Casemate,
        _ => Form::Lines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_told_by_the_first_line() {
        assert_eq!(form(b"# a comment\n\nmachine cpus=1\n").unwrap(), Form::Lines);
        assert_eq!(form(b"\n (mem-init (id 0) (tid 0)").unwrap(), Form::Casemate);
        assert_eq!(form(b"; casemate\n").unwrap(), Form::Casemate);
        assert_eq!(form(b"\x93LMTRACE\x01").unwrap(), Form::Binary);
        let failure = |head: &[u8]| form(head).unwrap_err().to_string();
        assert!(failure(b"").starts_with("empty, not a trace"));
        assert!(failure(b"\x28\xb5\x2f\xfd\x00").starts_with("a zstd file, not a trace; unpack"));
        assert!(failure(b"\0\0").starts_with("a binary file of unknown kind, not a trace"));
    }
}
