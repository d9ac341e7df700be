//! Chooses the granule, and passes it and the linker script on.
//!
//! The page size is a constant of the linker script, the early tables and the assembly, so each
//! granule has an image of its own. The features `granule-16k` and `granule-64k` choose; without
//! either it is 4K.

use linmap_vmsa::{Geometry, Granule, Level};

/// The address sizes of the kernel's half with each granule unless the command line asks for
/// others: whole tables at every level, with at most 48 bits, which every CPU has.
fn geometry() -> Geometry {
    let has = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_GRANULE_{feature}")).is_some();
    let (granule, va_bits) = match (has("16K"), has("64K")) {
        (false, false) => (Granule::K4, 48),
        (true, false) => (Granule::K16, 47),
        (false, true) => (Granule::K64, 48),
        (true, true) => panic!("the features granule-16k and granule-64k exclude each other"),
    };
    Geometry::new(granule, va_bits, 48).expect("sizes that TCR can hold")
}

/// Where the image is linked, before the end: in the last 32 GiB of the address space. The linear
/// map has the first half of the kernel's half, so these belong to the rest at every VA size from
/// 36 bits on.
const IMAGE_FROM_END: u64 = 31 << 30;

/// How many tables lead to a page: one at each level.
fn levels(geometry: Geometry) -> i8 {
    4 - geometry.start_level().number()
}

fn main() {
    let geometry = geometry();
    let of = |va_bits| Geometry::new(geometry.granule(), va_bits, 48).expect("sizes that TCR can hold");
    let (identity, widest) = (of(48), of(52));
    let page = geometry.granule().bytes();
    let table = geometry.entry_bytes(Level::L2);
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    // A test makes the image longer than a table of pages maps.
    println!("cargo:rerun-if-env-changed=LINMAP_IMAGE_PADDING");
    let padding =
        std::env::var("LINMAP_IMAGE_PADDING").map_or(0, |bytes| bytes.parse::<u64>().expect("bytes"));
    let write = |name: &str, text: String| std::fs::write(format!("{out}/{name}"), text).expect("writable");
    write(
        "granule.rs",
        format!(
            "/// The granule of this image.\npub const GRANULE: Granule = Granule::{:?};\n\
             /// Bits of virtual address of the kernel's half by default.\n\
             pub const VA_BITS: u8 = {};\n\
             /// Where the kernel image is linked and mapped, away from the linear map.\n\
             pub const IMAGE: Va = Va(0u64.wrapping_sub({} << 30));\n",
            geometry.granule(),
            geometry.va_bits(),
            IMAGE_FROM_END >> 30,
        ),
    );
    write(
        "granule.ld",
        format!(
            "PAGE = {page};\nTABLE = {table:#x};\nIMAGE = {:#x};\nPADDING = {padding};\n\
             IDENTITY_TABLES = {};\nFIXED_TABLES = {};\n",
            0u64.wrapping_sub(IMAGE_FROM_END),
            // A table a level for the code, and another below the root for the words of parking.
            2 * levels(identity) - 1,
            // Beside the tables that lead to the fixmap at the largest VA size, the image takes one
            // more at level 2 with 4K, and the DTB's window a table of pages where no block is
            // small enough.
            levels(widest) + 1
        ),
    );
    // Where the folder is now, which need not be where this was compiled.
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let script = format!("{folder}/kernel.ld");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg-bins=-L{out}");
    println!("cargo:rustc-link-arg-bins=-T{script}");
    // The file offset of each segment is its offset in the Image, so pages need no larger
    // alignment.
    println!("cargo:rustc-link-arg-bins=-zmax-page-size={page}");
    // Cortex-A53 erratum 843419, an ADRP at the end of a page; the compiler asks for it on other
    // targets only.
    println!("cargo:rustc-link-arg-bins=--fix-cortex-a53-843419");
}
