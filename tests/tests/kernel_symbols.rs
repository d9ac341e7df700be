//! `linmap check --symbols` with the Images of Debian's kernels.

use std::fs;

use linmap_tests::{tool, workspace};

/// Where bootloaders put the kernels. None is linked here.
const PLACE: u64 = 0x4020_0000;

#[test]
fn instructions_are_named_by_the_kallsyms_of_every_kernel() {
    let trace = workspace().join("cli/examples/protect-page-without-tlbi.trace");
    let trace = fs::read_to_string(trace).expect("the example is there");
    let settled = trace.trim_end().strip_suffix("settled").expect("it ends so");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace");
    for kernel in ["linux-6.1", "linux-6.12", "linux-6.18", "linux-16k", "linux-newest"] {
        let image = workspace().join("target/payload").join(kernel).join("Image");
        // The second instruction of an Image is a branch to its entry.
        let bytes = fs::read(&image).expect("the payloads are cached");
        let branch = u32::from_le_bytes(*bytes[4..].first_chunk().expect("a whole header"));
        assert_eq!(branch >> 26, 0b00_0101, "{kernel}: a branch forwards");
        let entry = PLACE + 4 + u64::from(branch & 0x1ff_ffff) * 4;
        fs::write(&path, format!("{settled}settled pc={:#x}\n", entry + 8)).expect("room");
        let mut check = tool();
        check.arg("check").arg(&path).arg("--symbols").arg(&image);
        let output = check.arg(format!("--symbols-base={PLACE:#x}")).output().expect("linmap runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{kernel}: {text}");
        assert!(text.contains("primary_entry+0x8"), "{kernel}: {text}");
    }
}
