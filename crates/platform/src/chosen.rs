//! What the boot loader passes in `/chosen`.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use linmap_fdt::number;
use linmap_vmsa::{Pa, PaRange};

/// Returns the property `name` of `/chosen` if it is a string.
pub fn string<'a>(fdt: Fdt<'a>, name: &str) -> Option<&'a str> {
    fdt.find_node("/chosen")?.property(name)?.value_as::<&'a str>().ok()
}

/// Returns the range of the initrd, if there is one.
/// [`Memblock::fill_from_fdt`](linmap_memblock::Memblock::fill_from_fdt) refuses a tree whose
/// initrd is malformed.
pub fn initrd(fdt: Fdt<'_>) -> Option<PaRange> {
    let chosen = fdt.find_node("/chosen")?;
    let address = |name: &str| number(chosen.property(name)?.value()).map(Pa);
    let range = PaRange::new(address("linux,initrd-start")?, address("linux,initrd-end")?);
    (!range.is_empty()).then_some(range)
}
