//! From Linux back to linmap, by Debian's kexec: as the next kernel, and as the crash kernel.

use std::fs;
use std::io::Write;

use linmap_tests::{Boot, Outcome, archive, file, own_image, payload};

/// The first program of every Linux here. With `stage=` on the command line it starts linmap;
/// without, it says what it found.
const INIT: &str = r#"#!/busybox sh
/busybox mkdir -p /bin /proc /sys /dev
/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
dmesg -n 1
[ -e /kexec ] && mv /libxenctrl.so "/$(strings /kexec | grep -m 1 '^libxenctrl\.so\.')"
kexec() {
    /ld-linux-aarch64.so.1 --library-path / /kexec "$@"
}
words=$(cat /proc/cmdline)
case " $words " in
*" stage=kexec "*)
    kexec -c -l /linmap --initrd=/archive --command-line="linmap.payload=linux a=bc" && kexec -e
    ;;
*" stage=crash "*)
    # The panic is meant: no level of messages goes to the console.
    echo 0 >/proc/sys/kernel/printk
    kexec -c -p /linmap --initrd=/archive --command-line="linmap.payload=linux a=bc" &&
        echo c >/proc/sysrq-trigger
    ;;
*)
    echo "linmap-userspace: cmdline=$words"
    echo "linmap-userspace: memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
    if [ -r /proc/vmcore ]; then
        echo "linmap-userspace: vmcore=$(stat -c %s /proc/vmcore)"
        head -c 16384 /proc/vmcore >/head
        echo "linmap-userspace: vmcore-release=$(strings /head | grep -m 1 '^OSRELEASE=')"
    fi
    echo "linmap-userspace: ok"
    ;;
esac
poweroff -f
"#;

/// What `cargo xtask setup` has downloaded.
fn downloaded(path: &str) -> Vec<u8> {
    fs::read(payload(path)).expect("a file")
}

/// kexec and its libraries.
const KEXEC: [&str; 12] = [
    "kexec",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libz.so.1",
    "libxenctrl.so",
    "libxencall.so.1",
    "libxendevicemodel.so.1",
    "libxenevtchn.so.1",
    "libxenforeignmemory.so.1",
    "libxengnttab.so.1",
    "libxentoolcore.so.1",
    "libxentoollog.so.1",
];

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// Boots Linux with linmap and an archive for it among its files, and with these words.
fn boot_by_linux(options: &str, words: &str, script: &str) -> Outcome {
    let user_space = archive(&[("busybox", &downloaded("busybox/busybox")), ("init", INIT.as_bytes())]);
    let for_linmap = archive(&[
        ("cmdline", b"earlycon panic=-1"),
        ("script", script.as_bytes()),
        // Packed: before kexec's code starts linmap, it reads all of this with the caches off, for
        // a digest.
        ("Image", &gzip(&downloaded("linux-6.12/Image"))),
        ("initrd", &user_space),
    ]);
    let kexec = KEXEC.map(|name| (name, downloaded(&format!("kexec-tools/{name}"))));
    let mut files: Vec<_> = kexec.iter().map(|(name, data)| (*name, &data[..])).collect();
    let own_image = own_image();
    files.extend([("linmap", &own_image[..]), ("archive", &for_linmap)]);
    // Linux unpacks archives that follow one another into the same files.
    let initrd = file(&[user_space.clone(), archive(&files)].concat());
    Boot::new(options).with("--initrd", initrd.path()).with("--append", words).run()
}

#[test]
fn linux_starts_linmap_by_kexec_and_linmap_starts_linux() {
    let outcome = boot_by_linux("--memory 1G --cpu neoverse-n1 --el 2", "stage=kexec", "verify; kexec");
    outcome.expect_success();
    let generations: Vec<_> = outcome.records.iter().filter(|r| r.contains_key("generation")).collect();
    assert_eq!(generations.len(), 2, "{}", outcome.console);
    assert!(generations.iter().all(|record| record["el"] == 2 && record["vhe"] == 1), "{generations:?}");
    assert_eq!(outcome.with("verify").expect("a verdict")["verify"], "ok");
    assert_eq!(outcome.user_space("cmdline"), "earlycon panic=-1 a=bc");
}

#[test]
fn linux_crashes_into_linmap_whose_linux_shows_the_crashed_one() {
    let words = "stage=crash crashkernel=320M";
    let outcome = boot_by_linux("--memory 1G --cpu neoverse-n1", words, "verify; kexec");
    outcome.expect_success();
    let memory: Vec<_> =
        outcome.records.iter().filter(|r| r.get("phase").is_some_and(|phase| phase == "memblock")).collect();
    assert_eq!(memory.len(), 2, "{}", outcome.console);
    assert_eq!(memory[1]["bytes"], 320u64 << 20, "{memory:?}");
    // In KiB: Linux finds no more memory than linmap did.
    let found: u64 = outcome.user_space("memory").parse().expect("a number");
    assert!((128 << 10..320 << 10).contains(&found), "{found}");
    // All of RAM but what is the crash kernel's own, and the crashed kernel's image a second time.
    let size: u64 = outcome.user_space("vmcore").parse().expect("a number");
    assert!((700 << 20..800 << 20).contains(&size), "{size:#x}");
    assert!(outcome.user_space("vmcore-release").starts_with("OSRELEASE=6.12"), "{}", outcome.console);
}
