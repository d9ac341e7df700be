//! `linmap kexec plan` as a person runs it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tempfile::TempDir;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
const PAGE: usize = 0x1000;

/// The pages of the image's file, and those of them that are zeros.
const PAGES: usize = 24;
const ZEROS: [usize; 3] = [5, 6, 20];

/// 128 MiB of RAM of which the running kernel has 40.
const LAYOUT: &str = "\
[[region]]
start = 0x4000_0000
size = \"128M\"
[image]
start = 0x4020_0000
read-only = \"24M\"
data = \"16M\"
";

/// An Image whose memory has `image_size` bytes.
fn image(image_size: u64) -> Vec<u8> {
    let mut file: Vec<u8> = (0..PAGES).flat_map(|nth| [nth as u8 + 1; PAGE]).collect();
    for nth in ZEROS {
        file[nth * PAGE..][..PAGE].fill(0);
    }
    file[..64].fill(0);
    file[16..24].copy_from_slice(&image_size.to_le_bytes());
    file[24..32].copy_from_slice(&0b1010u64.to_le_bytes());
    file[56..60].copy_from_slice(b"ARM\x64");
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("memory");
    gzip.finish().expect("memory")
}

/// An EFI zboot image: a header with the place of the payload and its packing.
fn zboot(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x200];
    file[..2].copy_from_slice(b"MZ");
    file[4..8].copy_from_slice(b"zimg");
    file[8..12].copy_from_slice(&0x200u32.to_le_bytes());
    file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[24..28].copy_from_slice(b"gzip");
    file[56..60].copy_from_slice(&0x8182_23cd_u32.to_le_bytes());
    file.extend_from_slice(payload);
    file
}

/// A folder with files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        files.add("Image", &image(8 << 20));
        files.add("layout.toml", LAYOUT.as_bytes());
        files
    }

    fn add(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("room for it");
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_linmap"));
        command.current_dir(self.0.path()).args(["kexec", "plan"]).args(arguments);
        command.env_remove("CLICOLOR_FORCE").output().expect("linmap runs")
    }

    fn plan(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        assert_eq!((output.status.code(), text(output.stderr)), (Some(0), String::new()), "{arguments:?}");
        text(output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.plan(&[arguments, &["--json"]].concat())).expect("JSON")
    }
}

/// Compares with a file, or writes it with `LINMAP_WRITE_GOLDEN=1`.
fn assert_golden(name: &str, found: &str) {
    let path = Path::new(GOLDEN).join(name);
    if std::env::var_os("LINMAP_WRITE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&path, found).expect("room for it");
    }
    let golden = fs::read_to_string(&path).expect("a golden file");
    assert_eq!(found, golden, "{name}: LINMAP_WRITE_GOLDEN=1 writes it anew");
}

#[test]
fn a_payload_that_fits_into_free_memory_is_in_place_and_a_scattered_one_is_moved() {
    let files = Files::new();
    files.add("initrd", &[7; 3 * PAGE + 10]);
    let options = ["Image", "--layout", "layout.toml", "--initrd", "initrd"];
    assert_golden("kexec-in-place.txt", &files.plan(&options));
    let scattered = [&options[..], &["--scattered", "--list"]].concat();
    assert_golden("kexec-scattered.txt", &files.plan(&scattered));
    assert_golden("kexec-scattered.json", &files.json(&scattered[..6]).to_string());
}

#[test]
fn linuxs_list_places_every_page_once() {
    let files = Files::new();
    let plan = files.json(&["Image", "--layout", "layout.toml", "--scattered", "--list"]);
    let hex = |value: &Value| -> u64 {
        let text = value.as_str().and_then(|text| text.strip_prefix("0x")).expect("a number");
        u64::from_str_radix(text, 16).expect("a number")
    };
    let zeros = hex(&plan["list"]["zeros"]);
    let (mut destination, mut content) = (0, std::collections::BTreeMap::new());
    let words: Vec<u64> = plan["list"]["words"].as_array().expect("words").iter().map(hex).collect();
    for word in &words {
        let (pa, flags) = (word & !0xfff, word & 0xfff);
        match flags {
            1 => destination = pa,
            8 => {
                assert_eq!(content.insert(destination, pa), None, "{destination:#x} is written twice");
                destination += PAGE as u64;
            }
            2 | 4 => {}
            flags => panic!("flags {flags:#x}"),
        }
    }
    assert_eq!(words.last(), Some(&4));
    let image = hex(&plan["entry"]);
    let pages: Vec<_> = (0..PAGES).map(|nth| content.get(&(image + (nth * PAGE) as u64)).copied()).collect();
    for (nth, source) in pages.iter().enumerate() {
        assert_eq!(*source == Some(zeros), ZEROS.contains(&nth), "page {nth}");
    }
    // The device tree has 16 pages of its own.
    assert_eq!(content.len(), PAGES + 16);
}

#[test]
fn a_payload_that_needs_the_running_kernels_memory_is_moved_there() {
    let files = Files::new();
    files.add("large", &image(100 << 20));
    let plan = files.json(&["large", "--layout", "layout.toml"]);
    let segment = &plan["segments"][0];
    assert_eq!(segment["source"], "pages");
    assert_eq!(segment["cleared_bytes"], ZEROS.len() * PAGE);
    assert_eq!(segment["moved_bytes"], (PAGES - ZEROS.len()) * PAGE);
    assert_eq!(plan["moves"]["in_place_bytes"], 0);
    // Half of the memory is not enough.
    files.add("larger", &image(130 << 20));
    let output = files.run(&["larger", "--layout", "layout.toml"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}

#[test]
fn a_kernel_is_unpacked_whatever_it_is_packed_with() {
    let files = Files::new();
    let raw = image(8 << 20);
    files.add("zstd", &zstd::encode_all(&raw[..], 1).expect("memory"));
    files.add("gzip", &gzip(&raw));
    files.add("vmlinuz.efi", &zboot(&gzip(&raw)));
    let of = |name: &str| {
        let plan = files.json(&[name, "--layout", "layout.toml"]);
        (plan["kernel"]["packing"].clone(), plan["segments"].clone(), plan["entry"].clone())
    };
    let (packing, segments, entry) = of("Image");
    assert_eq!(packing, "raw");
    for (name, packing) in [("zstd", "zstd"), ("gzip", "gzip"), ("vmlinuz.efi", "gzip")] {
        assert_eq!(of(name), (packing.into(), segments.clone(), entry.clone()), "{name}");
    }
}

#[test]
fn what_can_not_be_planned_is_one_line_with_a_hint() {
    let files = Files::new();
    files.add("elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0");
    files.add("empty", b"");
    files.add("cut", &gzip(&image(8 << 20))[..40]);
    let layout = ["--layout", "layout.toml"];
    for (arguments, part) in [
        (vec!["elf", layout[0], layout[1]], "elf: an ELF file is not an arm64 kernel; give an Image"),
        (vec!["layout.toml", layout[0], layout[1]], "a text file is not an arm64 kernel"),
        (vec!["empty", layout[0], layout[1]], "empty: an empty file"),
        (vec!["cut", layout[0], layout[1]], "cut: "),
        (vec!["missing", layout[0], layout[1]], "missing: No such file or directory (os error 2)"),
        (vec!["Image", "--dtb", "layout.toml"], "layout.toml: a layout is not a device tree"),
        (vec!["Image", "--layout", "Image"], "Image: an arm64 Image does not describe memory"),
        (vec!["Image", layout[0], layout[1], "--initrd", "empty"], "empty: an empty file"),
        (vec!["Image", layout[0], layout[1], "--cpus", "0"], "invalid value '0'"),
    ] {
        let output = files.run(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(error.starts_with("error: ") && error.contains(part), "{arguments:?}: {error}");
    }
}
