//! The words of the command line that linmap knows, and the command line that is part of the image.

use core::hint;

use linmap_fdt::first_string;
use linmap_platform::CommandLine;

use crate::arch::command_line::{CPUS, CRASH_KERNEL, GENERATION, is_ours};
use crate::arch::print::Quoted;
use crate::boot::memory_words::{MEMORY_MAP, OWN_LIMIT};
use crate::boot::pass::VA_BITS;
use crate::smp::command_line::is_bbm_of_cpu;
use crate::{report, say};

/// A command line in the image, which a tool can edit there. `earlycon=` in it gives a console even
/// when the device tree can't be read. 16 bytes of name and 240 of text, padded with NULs.
#[used]
#[unsafe(link_section = ".head.rodata")]
pub static BUILT_IN_COMMAND_LINE: [u8; 256] = {
    let name = *b"LINMAP-CMDLINE\0\0";
    let mut line = [0; 256];
    let mut i = 0;
    while i < name.len() {
        line[i] = name[i];
        i += 1;
    }
    line
};

/// Where the text of [`BUILT_IN_COMMAND_LINE`] begins.
pub const TEXT_AT: usize = 16;

/// Whether addresses are random: `off`, or `on`.
pub const KASLR: &str = "linmap.kaslr";

/// The words that linmap knows.
const WORDS: &[&str] = &[
    "linmap.bbm",
    "linmap.build",
    CPUS,
    CRASH_KERNEL,
    GENERATION,
    "linmap.generations",
    "linmap.icount",
    KASLR,
    "linmap.leaf",
    OWN_LIMIT,
    MEMORY_MAP,
    "linmap.mte",
    "linmap.pages",
    "linmap.payload",
    "linmap.repaint",
    "linmap.shell",
    "linmap.tables",
    "linmap.trace",
    VA_BITS,
];

/// The command line in the image.
pub fn built_in() -> CommandLine<'static> {
    // A tool may have edited the text since it was compiled, so the compiler must not rely on it.
    let line: &'static [u8; 256] = hint::black_box(&BUILT_IN_COMMAND_LINE);
    CommandLine::from_bytes(first_string(&line[TEXT_AT..]))
}

/// Warns of all words for linmap that it does not know, and of those that can't be read.
pub fn warn_of_unknown_words(line: CommandLine<'_>) {
    let unreadable = line.unreadable_words();
    if unreadable > 0 {
        say!("{unreadable} words of the command line are not UTF-8: they are left out");
        report!("warning=unreadable-words count={unreadable}");
    }
    for word in line.words().filter(is_ours) {
        if !WORDS.contains(&word.key()) && !is_bbm_of_cpu(word.key()) {
            say!("linmap does not know the word {}", word.as_str());
            report!("warning=unknown-word word={}", Quoted(word.as_str()));
        }
    }
}
