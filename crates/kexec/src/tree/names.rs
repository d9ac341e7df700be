//! The names of the properties that are written.

use linmap_fdt::{ADDRESS_CELLS, SIZE_CELLS};

pub(super) const BOOTARGS: &str = "bootargs";
pub(super) const INITRD_START: &str = "linux,initrd-start";
pub(super) const INITRD_END: &str = "linux,initrd-end";
pub(super) const KASLR_SEED: &str = "kaslr-seed";
pub(super) const RNG_SEED: &str = "rng-seed";
pub(super) const USABLE_MEMORY: &str = "linux,usable-memory-range";
pub(super) const ELF_CORE_HEADER: &str = "linux,elfcorehdr";
pub(super) const RELEASE_ADDRESS: &str = "cpu-release-addr";
pub(super) const RANGES: &str = "ranges";
pub(super) const COMPATIBLE: &str = "compatible";
pub(super) const REG: &str = "reg";
pub(super) const LABEL: &str = "label";

/// All of them.
pub(super) const ALL: [&str; 14] = [
    BOOTARGS,
    INITRD_START,
    INITRD_END,
    KASLR_SEED,
    RNG_SEED,
    USABLE_MEMORY,
    ELF_CORE_HEADER,
    RELEASE_ADDRESS,
    ADDRESS_CELLS,
    SIZE_CELLS,
    RANGES,
    COMPATIBLE,
    REG,
    LABEL,
];

/// Writes a tree with these names.
pub(super) type Writer<'t, 'b> = linmap_fdt::TreeWriter<'t, 'b, { ALL.len() }>;
