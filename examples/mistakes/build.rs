//! Passes the linker script on.

fn main() {
    // Where the folder is now, which need not be where this was compiled.
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={folder}/mistakes.ld");
    println!("cargo:rustc-link-arg-bins=-T{folder}/mistakes.ld");
}
