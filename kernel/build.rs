//! Passes the linker script on.

fn main() {
    // Where the folder is now, which need not be where this was compiled.
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let script = format!("{folder}/kernel.ld");
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg-bins=-T{script}");
    // The file offset of each segment is its offset in the Image, so pages need no larger
    // alignment.
    println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
    // Cortex-A53 erratum 843419, an ADRP at the end of a page; the compiler asks for it on other
    // targets only.
    println!("cargo:rustc-link-arg-bins=--fix-cortex-a53-843419");
}
