//! The command line of the payload.

use linmap_platform::{CommandLine, CommandLineError, Word, join_words};

/// The words for every crash kernel of Linux: the other CPUs of the crashed kernel cannot be
/// started, and devices are in the state in which it left them (admin-guide/kdump).
const CRASHED: CommandLine<'static> = CommandLine::new("maxcpus=1 reset_devices");

/// Writes the payload's command line into `buffer`: the words of `archive`, the archive's
/// `cmdline`, then `passed_on`, the words of this kernel's own command line that are not for this
/// kernel itself. A `--` in `archive` makes all words after it arguments of init, as in Linux.
///
/// # Errors
/// As [`join_words`].
pub fn payload_line<'w, 'b>(
    archive: CommandLine<'w>,
    passed_on: impl Iterator<Item = Word<'w>> + Clone,
    buffer: &'b mut [u8],
) -> Result<&'b str, CommandLineError> {
    join_words(archive.words().chain(passed_on).map(Word::as_str), buffer)
}

/// Writes the command line of a crash kernel into `buffer`: `maxcpus=1 reset_devices`, then the
/// words of [`payload_line`] without `crashkernel`, since its memory has no room for a crash kernel
/// of its own.
///
/// # Errors
/// As [`join_words`].
pub fn crash_line<'w, 'b>(
    archive: CommandLine<'w>,
    passed_on: impl Iterator<Item = Word<'w>> + Clone,
    buffer: &'b mut [u8],
) -> Result<&'b str, CommandLineError> {
    let theirs = archive.words().chain(passed_on).filter(|word| word.key() != "crashkernel");
    // At the front, since arguments of init may follow a `--` in the archive's line.
    join_words(CRASHED.words().chain(theirs).map(Word::as_str), buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_passed_on(word: &Word<'_>) -> bool {
        !word.key().starts_with("linmap.")
    }

    #[test]
    fn the_payload_gets_the_archives_words_and_then_those_passed_on() {
        let boot = CommandLine::new(r#"linmap.build=base quiet "linmap.leaf=page" x="1 2" linmapx.a"#);
        let mut buffer = [0; 64];
        assert_eq!(
            payload_line(
                CommandLine::new("console=ttyAMA0\n"),
                boot.words().filter(is_passed_on),
                &mut buffer
            ),
            Ok(r#"console=ttyAMA0 quiet x="1 2" linmapx.a"#)
        );
        let none = CommandLine::new("linmap.shell").words().filter(is_passed_on);
        assert_eq!(payload_line(CommandLine::new(""), none, &mut buffer), Ok(""));
    }

    #[test]
    fn a_crash_kernel_is_told_first_that_it_has_one_cpu() {
        let boot = CommandLine::new("linmap.crashkernel=256M linmap.cpus=4 quiet linmap.generation=1");
        let archive = CommandLine::new("a crashkernel=64M -- b");
        let mut buffer = [0; 80];
        assert_eq!(
            crash_line(archive, boot.words().filter(is_passed_on), &mut buffer),
            Ok("maxcpus=1 reset_devices a -- b quiet")
        );
    }
}
