//! What the device tree's /chosen says to this kernel.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use linmap_vmsa::{Pa, PaRange};

/// A string property of /chosen.
pub fn string<'a>(fdt: Fdt<'a>, name: &str) -> Option<&'a str> {
    fdt.find_node("/chosen")?.property(name)?.value_as::<&'a str>().ok()
}

/// The boot loader's initrd, as /chosen gives it. Memblock has already refused one that is malformed.
pub fn initrd(fdt: Fdt<'_>) -> Option<PaRange> {
    let chosen = fdt.find_node("/chosen")?;
    let address = |name: &str| {
        let property = chosen.property(name)?;
        let wide = property.value_as::<u64>().ok();
        wide.or_else(|| property.value_as::<u32>().ok().map(u64::from)).map(Pa)
    };
    let range = PaRange::new(address("linux,initrd-start")?, address("linux,initrd-end")?);
    (!range.is_empty()).then_some(range)
}
