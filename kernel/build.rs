//! Chooses the granule, and passes it and the linker script on.
//!
//! The page size is a constant of the linker script, the early tables and the assembly, so each
//! granule has an image of its own. The features `granule-16k` and `granule-64k` choose; without
//! either it is 4K.

use linmap_vmsa::{Geometry, Granule};

/// The address sizes of the kernel's half with each granule: whole tables at every level, with at
/// most 48 bits, which every CPU has.
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

/// Where the image is linked in the half of the space that the linear map leaves: 2 GiB from its
/// start.
const IMAGE_OFFSET: u64 = 2 << 30;

/// How many tables lead to a page: one at each level.
fn levels(geometry: Geometry) -> i8 {
    4 - geometry.start_level().number()
}

fn main() {
    let geometry = geometry();
    let identity = Geometry::new(geometry.granule(), 48, 48).expect("sizes that TCR can hold");
    let page = geometry.granule().bytes();
    let image = (u64::MAX << (geometry.va_bits() - 1)) + IMAGE_OFFSET;
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    let write = |name: &str, text: String| std::fs::write(format!("{out}/{name}"), text).expect("writable");
    write(
        "granule.rs",
        format!(
            "/// The granule of this image.\npub const GRANULE: Granule = Granule::{:?};\n\
             /// Bits of virtual address of the kernel's half.\npub const VA_BITS: u8 = {};\n\
             /// Where the kernel image is linked and mapped, away from the linear map.\n\
             pub const IMAGE: Va = Va((u64::MAX << (VA_BITS - 1)) + ({} << 30));\n",
            geometry.granule(),
            geometry.va_bits(),
            IMAGE_OFFSET >> 30
        ),
    );
    write(
        "granule.ld",
        format!(
            "PAGE = {page};\nIMAGE = {image:#x};\nIDENTITY_TABLES = {};\nSWAPPER_TABLES = {};\n",
            levels(identity),
            // The DTB's window takes a table of pages where no block is small enough.
            levels(geometry) + if page == 4096 { 1 } else { 2 }
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
