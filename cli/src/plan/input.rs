//! Reading an input and telling its kind.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::failure::Failure;
use crate::file_kind::FileKind;
use crate::plan::uefi_text;

/// The most bytes of an input: no memory description is as long.
pub const LIMIT: u64 = 64 << 20;

/// What the user may give.
pub const KINDS: &str = "give a device tree, the text of /proc/iomem, a UEFI memory map or a layout in TOML";

/// What an input is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InputKind {
    /// A flattened device tree.
    DeviceTree,
    /// The text of /proc/iomem.
    Iomem,
    /// UEFI's GetMemoryMap as bytes.
    UefiMap,
    /// A UEFI memory map as a firmware's shell or a kernel's log prints it.
    UefiText,
    /// A layout in TOML.
    Layout,
}

impl InputKind {
    /// The kind in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceTree => "device tree",
            Self::Iomem => "/proc/iomem",
            Self::UefiMap | Self::UefiText => "UEFI memory map",
            Self::Layout => "layout",
        }
    }

    /// Tells the kind of `bytes`.
    fn of(bytes: &[u8]) -> Result<Self, Failure> {
        let head = bytes.get(..FileKind::HEAD).unwrap_or(bytes);
        match FileKind::of(head) {
            FileKind::DeviceTree => Ok(Self::DeviceTree),
            FileKind::Text => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Self::of_text(text)),
                Err(error) => Err(Failure::new(format_args!(
                    "a text file with a byte at {} that is not UTF-8",
                    error.valid_up_to()
                ))),
            },
            FileKind::Binary if uefi_text::descriptor_size(bytes).is_some() => Ok(Self::UefiMap),
            kind => Err(Failure::new(format_args!("{kind} does not describe memory")).hint(KINDS)),
        }
    }

    fn of_text(text: &str) -> Self {
        let is_iomem = |line: &str| {
            let range = line.trim_start().split_once(" : ").and_then(|(range, _)| range.split_once('-'));
            let is_hexadecimal =
                |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            range.is_some_and(|(first, last)| is_hexadecimal(first) && is_hexadecimal(last))
        };
        if text.lines().find(|line| !line.trim().is_empty()).is_some_and(is_iomem) {
            Self::Iomem
        } else if text.lines().any(uefi_text::is_descriptor) {
            Self::UefiText
        } else {
            Self::Layout
        }
    }
}

/// An input that was read.
#[derive(Debug)]
pub struct Input {
    /// Its name in messages.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// What it is.
    pub kind: InputKind,
}

impl Input {
    /// Reads the file at `path`, or standard input for `-`.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            let name = "standard input";
            return Self::of_reader(name.into(), std::io::stdin().lock()).map_err(|error| error.of(name));
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::from(error).of(&name))?;
        Self::of_reader(name.clone(), file).map_err(|error| error.of(&name))
    }

    fn of_reader(name: String, reader: impl Read) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        reader.take(LIMIT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LIMIT {
            let head = bytes.get(..FileKind::HEAD).unwrap_or(&bytes);
            let kind = FileKind::of(head);
            return Err(Failure::new(format_args!("{kind} of more than {} MiB", LIMIT >> 20)).hint(KINDS));
        }
        Self::new(name, bytes)
    }

    /// An input that was read.
    pub fn new(name: String, bytes: Vec<u8>) -> Result<Self, Failure> {
        let kind = InputKind::of(&bytes)?;
        Ok(Self { name, bytes, kind })
    }

    /// The content as text; an input of a kind that is text is valid UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_an_input_is_told_by_its_content() {
        let text = |text: &str| InputKind::of(text.as_bytes()).ok();
        assert_eq!(text("\n40000000-7fffffff : System RAM\n"), Some(InputKind::Iomem));
        assert_eq!(text("00000000-00000000 : System RAM\n"), Some(InputKind::Iomem));
        let map = "Type       Start            End              # Pages          Attributes\n\
                   Available  0000000040000000-000000007FFFFFFF 0000000000040000 000000000000000F\n";
        assert_eq!(text(map), Some(InputKind::UefiText));
        assert_eq!(text("[[region]]\nstart = 0\n"), Some(InputKind::Layout));
        assert_eq!(InputKind::of(b"\xd0\x0d\xfe\xed\0\0\0\x48").ok(), Some(InputKind::DeviceTree));
    }

    #[test]
    fn a_wrong_kind_is_named_as_what_it_is() {
        let error = |bytes: &[u8]| InputKind::of(bytes).expect_err("a wrong kind").to_string();
        assert!(error(b"").starts_with("an empty file does not describe memory; give a device tree"));
        assert!(error(b"\x1f\x8b\x08").starts_with("a gzip file"));
        assert!(error(b"\x7fELF").starts_with("an ELF file"));
        assert!(error(b"\0\x01\x02").starts_with("a binary file of unknown kind"));
    }
}
