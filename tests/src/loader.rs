//! QEMU's loader device, and the stub that enters an image it has loaded.

use std::path::Path;

/// The loader device that copies the file at `path` to `at`.
pub(crate) fn loaded(path: &Path, at: u64) -> String {
    format!("loader,file={},addr={at:#x},force-raw=on", path.display())
}

/// Code that enters the image at `image` with the device tree `dtb`, as booting.rst says.
pub(crate) fn stub(dtb: u64, image: u64) -> Vec<u8> {
    let mut stub = Vec::new();
    // ldr x0, DTB; mov x1, #0; mov x2, #0; mov x3, #0; ldr x4, IMAGE; br x4; DTB: .quad; IMAGE:
    // .quad
    for word in [0x5800_00c0u32, 0xd280_0001, 0xd280_0002, 0xd280_0003, 0x5800_0084, 0xd61f_0080] {
        stub.extend_from_slice(&word.to_le_bytes());
    }
    stub.extend_from_slice(&dtb.to_le_bytes());
    stub.extend_from_slice(&image.to_le_bytes());
    stub
}
