//! What the boot loader passes in `/chosen`.

use linmap_fdt::{Fdt, first_string, string};
use linmap_vmsa::{Pa, PaRange};

use crate::command_line::CommandLine;

/// Returns the command line, `bootargs`; an empty one if there is none. It ends at its first NUL:
/// boot loaders pad it.
pub fn command_line(fdt: Fdt<'_>) -> CommandLine<'_> {
    let bootargs = fdt.chosen().and_then(|chosen| chosen.property("bootargs"));
    CommandLine::from_bytes(first_string(bootargs.unwrap_or_default()))
}

/// Returns the path or alias of the console, without the options behind a colon.
pub fn stdout_path(fdt: Fdt<'_>) -> Option<&str> {
    string(fdt.chosen()?.property("stdout-path")?)?.split(':').next()
}

/// Returns the range of the initrd, if there is one.
/// [`Memblock::fill_from_fdt`](linmap_memblock::Memblock::fill_from_fdt) refuses a tree whose
/// initrd is malformed.
pub fn initrd(fdt: Fdt<'_>) -> Option<PaRange> {
    let [start, end] = fdt.chosen()?.values(["linux,initrd-start", "linux,initrd-end"]);
    let address = |value: Option<&[u8]>| linmap_fdt::number(value?).map(Pa);
    let range = PaRange::new(address(start)?, address(end)?);
    (!range.is_empty()).then_some(range)
}
