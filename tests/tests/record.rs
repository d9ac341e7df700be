//! `linmap record`: what a guest of QEMU does to its tables, recorded from outside and judged.

use std::process::Output;

use linmap_tests::{own_image_path, tool};

/// A run of `linmap record` with these options and these of QEMU.
fn record(options: &[&str], qemu: &str) -> (Option<i32>, String, String) {
    let mut command = tool();
    command.arg("record").args(options).arg("--").args(qemu.split_whitespace());
    let Output { status, stdout, stderr } = command.output().expect("linmap runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

#[test]
fn the_recorder_sees_our_own_boot_and_it_is_legal() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("a path");
    let image = own_image_path();
    let qemu = format!(
        "qemu-system-aarch64 -display none -monitor none -serial null -nic none -machine virt -smp 2 \
         -cpu cortex-a72 -m 1G -no-reboot -kernel {} -append linmap.payload=none",
        image.display()
    );
    let (code, said, errors) = record(&["--check", "--all", "--out", path], &qemu);
    assert_eq!(code, Some(0), "{said}{errors}");
    assert!(said.starts_with("the guest: legal"), "{said}");
    assert!(said.contains(" 0 stores missed"), "{said}");
    // The file has the same verdict.
    let checked = tool().args(["check", path]).output().expect("linmap runs");
    let again = String::from_utf8_lossy(&checked.stdout).into_owned();
    let verdict =
        |said: &str| said.lines().next().and_then(|line| line.split_once(": ")).map(|it| it.1.to_owned());
    assert_eq!(verdict(&again), verdict(&said), "{again}");
}

#[test]
fn what_cannot_be_recorded_is_said_in_one_line() {
    for (qemu, why) in [
        ("qemu-system-aarch64 -machine virt -accel kvm", "error: the accelerator is kvm"),
        ("no-such-qemu -machine virt", "error: no-such-qemu: "),
    ] {
        let (code, said, errors) = record(&["--check"], qemu);
        assert_eq!((code, said.as_str()), (Some(2), ""), "{errors}");
        assert!(errors.starts_with(why), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    // QEMU says itself what it does not take.
    let (code, _, errors) = record(&["--check"], "qemu-system-aarch64 -machine no-such -display none");
    assert_eq!(code, Some(2), "{errors}");
    assert!(
        errors.lines().last().is_some_and(|line| line.starts_with("error: QEMU did not start")),
        "{errors}"
    );
}
