//! `linmap dump` of Debian's kernels while they run.

use linmap_tests::{RunningGuest, agree_with_qemu, archive, file, payload};

/// The first program: it sleeps, so that the CPU is idle in the kernel.
const INIT: &str = "#!/busybox sh
/busybox mkdir -p /proc
/busybox mount -t proc proc /proc
/busybox dmesg -n 1
/busybox echo linmap-userspace: ok
while :; do /busybox sleep 1000; done
";

/// A guest whose Linux has started its user space.
struct Linux {
    guest: RunningGuest,
    _initrd: tempfile::NamedTempFile,
}

impl Linux {
    fn start(image: &str, options: &str, append: &str) -> Self {
        let busybox = std::fs::read(payload("busybox/busybox")).expect("a file");
        let initrd = file(&archive(&[("busybox", &busybox), ("init", INIT.as_bytes())]));
        let [kernel, archive] = [payload(&format!("{image}/Image")).as_path(), initrd.path()]
            .map(|path| path.display().to_string());
        let more = ["-kernel", &kernel, "-initrd", &archive, "-append", append];
        let mut guest = RunningGuest::start(options, &more);
        guest.wait_for(0, |text| text.contains("linmap-userspace: ok"));
        Self { guest, _initrd: initrd }
    }
}

#[test]
fn addresses_of_debians_kernels_translate_as_qemu_says() {
    for (image, cpu) in [("linux-6.12", "max"), ("linux-6.18", "cortex-a72")] {
        let mut linux = Linux::start(image, &format!("-M virt -m 1G -cpu {cpu}"), "quiet");
        linux.guest.stop_at("EL1h");
        agree_with_qemu(&mut linux.guest, 1, 10_000);
    }
}
