//! `linmap dump` of the core that linmap's crash kernel shows: the tables of the kernel that
//! crashed.

use linmap_tests::{RunningGuest, archive, file, own_image_path, payload, tool};
use serde_json::{Value, json};

/// The first program of the crash kernel: the core goes to the host.
const INIT: &str = "#!/busybox sh
/busybox mkdir -p /proc
/busybox mount -t proc proc /proc
/busybox dmesg -n 1
/to-host </proc/vmcore
/busybox echo linmap-userspace: ok
while :; do /busybox sleep 1000; done
";

/// A program that writes what it reads to the host's file `name`, by semihosting.
fn to_host(name: &str) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: usize = 0x78;
    const BUFFER: u64 = BASE + 0x1_0000;
    let code: [u32; 30] = [
        0x5280_0020, // mov w0, #SYS_OPEN
        0x1000_03a1, // adr x1, open
        0xd45e_0000, // hlt #0xf000
        0xaa00_03f3, // mov x19, x0
        0x5800_0414, // ldr x20, buffer
        0xd280_0000, // 0: mov x0, #0
        0xaa14_03e1, // mov x1, x20
        0xd2a0_0202, // mov x2, #0x10_0000
        0xd280_07e8, // mov x8, #read
        0xd400_0001, // svc #0
        0xf100_001f, // cmp x0, #0
        0x5400_010d, // b.le 1f
        0xa9be_53f3, // stp x19, x20, [sp, #-32]!
        0xf900_0be0, // str x0, [sp, #16]
        0x5280_00a0, // mov w0, #SYS_WRITE
        0x9100_03e1, // mov x1, sp
        0xd45e_0000, // hlt #0xf000
        0x9100_83ff, // add sp, sp, #32
        0x17ff_fff3, // b 0b
        0xf81f_0ff3, // 1: str x19, [sp, #-16]!
        0x5280_0040, // mov w0, #SYS_CLOSE
        0x9100_03e1, // mov x1, sp
        0xd45e_0000, // hlt #0xf000
        0xd280_0000, // mov x0, #0
        0xd280_0ba8, // mov x8, #exit
        0xd400_0001, // svc #0
        0xd503_201f,
        0xd503_201f,
        0xd503_201f,
        0xd503_201f,
    ];
    let words = BASE + HEADERS as u64 + 4 * code.len() as u64;
    let mut elf = Vec::new();
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    put(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_AARCH64, version, entry, headers of segments at 64, none of sections.
    put(&[2, 0, 183, 0, 1, 0, 0, 0]);
    for word in [BASE + HEADERS as u64, 64, 0] {
        put(&word.to_le_bytes());
    }
    put(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD of the file and the buffer behind it: readable, writable, executable.
    put(&[1, 0, 0, 0, 7, 0, 0, 0]);
    let bytes = HEADERS as u64 + 4 * code.len() as u64 + 32 + name.len() as u64 + 1;
    for word in [0, BASE, BASE, bytes, BUFFER - BASE + 0x10_0000, 0x1_0000] {
        put(&word.to_le_bytes());
    }
    for word in code {
        put(&word.to_le_bytes());
    }
    // open: the name, "wb", its length; buffer; the name.
    for word in [words + 32, 5, name.len() as u64, BUFFER] {
        put(&word.to_le_bytes());
    }
    put(name.as_bytes());
    put(&[0]);
    elf
}

#[track_caller]
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = tool().arg("dump").args(arguments).output().expect("linmap runs");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn a_core_of_the_crash_kernel_has_the_tables_of_the_kernel_that_crashed() {
    let host = tempfile::tempdir().expect("a folder");
    let vmcore = host.path().join("vmcore").display().to_string();
    let busybox = std::fs::read(payload("busybox/busybox")).expect("a file");
    let initrd = archive(&[("busybox", &busybox), ("init", INIT.as_bytes()), ("to-host", &to_host(&vmcore))]);
    let linux = std::fs::read(payload("linux-6.12/Image")).expect("a file");
    let for_linmap = file(&archive(&[("cmdline", b"quiet"), ("Image", &linux), ("initrd", &initrd)]));
    let [image, initrd] =
        [own_image_path().as_path(), for_linmap.path()].map(|path| path.display().to_string());
    let mut guest = RunningGuest::start(
        "-M virt -m 512M -cpu max -semihosting-config enable=on,target=native,userspace=on",
        &[
            "-kernel",
            &image,
            "-initrd",
            &initrd,
            "-append",
            "linmap.shell linmap.crashkernel=256M linmap.payload=linux linmap.va_bits=52",
        ],
    );
    guest.wait_for(0, |text| text.contains("linmap> "));
    guest.type_in("kexec load --crash");
    let of_kernel = ["--root", "ttbr1_el1"];
    let running = guest.dump_json(&of_kernel);
    let root: &Value = &running["roots"][0];
    let saved = guest.path("running");
    std::fs::write(&saved, running.to_string()).expect("a file");
    let from = guest.wait_for(0, |_| true).len();
    guest.send("panic\r");
    guest.wait_for(from, |text| text.contains("linmap-userspace: ok"));

    // VMCOREINFO leads to the tables, and names no memory types.
    let [mair, tcr] = ["mair", "tcr"].map(|name| root[name].as_str().expect("a value"));
    let (code, said) = run(&[&vmcore, "--mair", mair, "--tcr", tcr, "--diff", &saved]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 differences"), "{said}");
    let (code, listing) = run(&[&vmcore]);
    assert_eq!(code, Some(0), "{listing}");
    assert!(listing.contains("MAIR unknown: memory types by index"), "{listing}");
    assert!(listing.contains("under LPA2 the shareability is in TCR_EL1: --tcr VALUE names it"), "{listing}");

    // QEMU's core of the same machine has neither: now Linux runs in the memory that was kept.
    let core = guest.path("core");
    guest.qmp("dump-guest-memory", json!({"paging": false, "protocol": format!("file:{core}")}));
    let (code, said) = run(&[&core]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no VMCOREINFO; give them with --ttbr1 VALUE --tcr VALUE --mair VALUE"), "{said}");
    let table = root["table"].as_str().expect("a value");
    let given = ["--ttbr1", table, "--tcr", tcr, "--mair", mair];
    let (code, said) = run(&[&[core.as_str()], &given[..], &["--diff", saved.as_str()]].concat());
    assert_eq!((code, said.as_str()), (Some(0), "0 differences\n"));
    // And the two cores agree with each other.
    let (code, said) = run(&[&[core.as_str()], &given[..], &["--diff", vmcore.as_str()]].concat());
    assert_eq!((code, said.as_str()), (Some(0), "0 differences\n"));
}
