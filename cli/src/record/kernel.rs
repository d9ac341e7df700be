//! The kernel that the user's QEMU boots, whose own symbols name its instructions.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::symbols::{self, Symbols};

/// The symbols to name instructions by: those of `given`, or of the kernel in QEMU's command line
/// if it has any.
///
/// # Errors
/// The file that was given has no symbols.
pub fn symbols(given: Option<&Path>, qemu: &[OsString]) -> Result<Option<Symbols>, Failure> {
    match given {
        Some(path) => symbols::open(path).map(Some),
        // Nobody asked for names: a kernel without any has none.
        None => Ok(kernel(qemu).and_then(|path| symbols::open(&path).ok())),
    }
}

/// The file behind `-kernel`, the last one as QEMU takes it.
fn kernel(qemu: &[OsString]) -> Option<PathBuf> {
    let is_kernel = |pair: &&[OsString]| matches!(pair[0].to_str(), Some("-kernel" | "--kernel"));
    qemu.windows(2).rfind(is_kernel).map(|pair| PathBuf::from(&pair[1]))
}

/// Whether the guest writes to the terminal itself, so that nothing else should.
pub fn has_terminal(qemu: &[OsString]) -> bool {
    let words = || qemu.iter().filter_map(|word| word.to_str());
    let is_told = words().any(|word| matches!(word, "-nographic" | "-curses") || word.contains("stdio"));
    // Without a display the serial line is QEMU's standard output, unless it is somewhere else.
    let is_elsewhere = words().any(|word| matches!(word.trim_start_matches('-'), "serial" | "daemonize"));
    is_told || !is_elsewhere && words().any(|word| word == "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_kernel_is_the_last_that_is_named() {
        assert_eq!(kernel(&words("q -M virt -kernel a -kernel b")), Some("b".into()));
        assert_eq!(kernel(&words("q -M virt -kernel")), None);
        let image = words("q -kernel /dev/null");
        assert!(symbols(None, &image).is_ok_and(|symbols| symbols.is_none()));
        assert!(symbols(Some(Path::new("/dev/null")), &image).is_err());
    }

    #[test]
    fn a_guest_on_the_terminal_is_told() {
        assert!(has_terminal(&words("q -nographic")));
        assert!(has_terminal(&words("q -serial mon:stdio -display none")));
        assert!(has_terminal(&words("q -display none")));
        assert!(!has_terminal(&words("q -display none -serial file:console")));
    }
}
