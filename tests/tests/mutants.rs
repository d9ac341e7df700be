//! Kernels that lack one instruction: the recorder and the model find what it was for.
//!
//! Each mutant is an Image with one word replaced. The control, the whole Image, is recorded first:
//! it makes no mistake, and its recording says that the instruction was executed. docs/testing.md
//! has the table.

use std::path::Path;
use std::process::Command;

use linmap_tests::mutant::{Change, Instruction, Kernel, Mutant, Recording, judge_mutants};
use linmap_tests::{archive, is_soak, soak_or_first, tool};

use Change::{Local, Nop};
use Instruction::{DsbAll, DsbStores, Isb, TlbiLocal, TlbiShared};

/// linmap's kernel at level 3, which verifies its map. The first three are tested always.
const OWN: &[Mutant] = &[
    // A window of two addresses through which the verifier reads tables.
    (VERIFIER, TlbiShared, 0, Local, Some("output-address")),
    (VERIFIER, DsbAll, 0, Nop, Some("output-address")),
    // The identity map is left for another of another size.
    (PAINT, Isb, 3, Nop, Some("translation-control")),
    (PAINT, Isb, 0, Nop, Some("translation-control")),
    (PAINT, Isb, 4, Nop, Some("translation-control")),
    (PAINT, TlbiLocal, 0, Nop, Some("translation-control")),
    (PAINT, DsbAll, 0, Nop, Some("translation-control")),
    ("kernel_main", TlbiLocal, 0, Nop, Some("translation-control")),
    (VERIFIER, TlbiShared, 0, Nop, Some("output-address")),
    (VERIFIER, DsbStores, 0, Nop, Some("output-address")),
    // A new page is only read through its address later: nothing says that it was too early.
    ("linmap_table::fixmap::Fixmap::map", Isb, 1, Nop, None),
];

/// The same under random changes, which fold tables to blocks and split blocks to tables.
const OWN_STRESSED: &[Mutant] = &[
    (FOLD, TlbiShared, 0, Nop, Some("next-table")),
    (FOLD, TlbiShared, 0, Local, Some("next-table")),
    (FOLD, DsbStores, 0, Nop, Some("next-table")),
    // Another DSB completes the TLBI before the frame of the table is another table.
    (FOLD, DsbAll, 0, Nop, None),
];

const VERIFIER: &str = "linmap_table::verify::verifier::Verifier<W,I,T,C>::table";
const FOLD: &str = "linmap::change::fold::<impl linmap::change::linear_map::LinearMap>::fold_in_use";
const PAINT: &str = "linmap_kernel::memory::linear_map::paint";

/// Debian's 6.1, from its start to the panic without a root file system.
const LINUX_6_1: &[Mutant] = &[
    ("__set_fixmap", TlbiShared, 0, Nop, Some("output-address")),
    ("__set_fixmap", TlbiShared, 0, Local, Some("output-address")),
    ("__set_fixmap", DsbStores, 1, Nop, Some("output-address")),
    ("__set_fixmap", DsbAll, 0, Nop, Some("output-address")),
    // No old translation is wrong before something relies on its absence.
    ("__set_fixmap", Isb, 1, Nop, None),
];

/// Records a boot of `kernel`'s Image `image` by QEMU with these options more, and judges it. A
/// mutant may not come to an end.
fn record(kernel: &Kernel, image: &Path, options: &[&str]) -> Recording {
    let out = image.with_file_name("trace");
    let mut record = Command::new("timeout");
    record.args(["--signal=INT", "60"]).arg(tool().get_program());
    record.args(["record", "--out"]).arg(&out).args(["--", "qemu-system-aarch64"]);
    record.args(["-display", "none", "-monitor", "none", "-serial", "null", "-nic", "none", "-no-reboot"]);
    record.args(["-machine", "virt"]).args(options).arg("-kernel").arg(image);
    let output = record.output().expect("linmap runs");
    let is_over = output.status.code() == Some(124);
    assert!(output.status.success() || is_over, "{}", String::from_utf8_lossy(&output.stderr));
    Recording::read(&out, kernel)
}

/// Records and judges mutants of linmap's kernel, which executes `script` on `cpus` CPUs.
fn judge_own(mutants: &[Mutant], script: &str, cpus: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let initrd = folder.path().join("initrd");
    std::fs::write(&initrd, archive(&[("script", script.as_bytes())])).expect("room for an archive");
    let initrd = initrd.to_str().expect("a path");
    let line = "linmap.bbm=3 nokaslr linmap.payload=none";
    let options = ["-smp", cpus, "-cpu", "max,midr=0x410fd842", "-m", "512M"];
    let options = [&options[..], &["-initrd", initrd, "-append", line]].concat();
    let kernel = Kernel::own();
    judge_mutants(&kernel, &[], mutants, |image| record(&kernel, image, &options));
}

#[test]
fn mutants_of_our_kernel_are_found_and_the_kernel_is_legal() {
    judge_own(soak_or_first(3, OWN), "verify", "2");
    if is_soak() {
        judge_own(OWN_STRESSED, "stress 60 0x1a7", "4");
    }
}

#[test]
fn mutants_of_linux_are_found_and_linux_is_legal() {
    if !is_soak() {
        return;
    }
    let options = ["-smp", "4", "-cpu", "cortex-a72", "-m", "1G", "-append", "nokaslr panic=-1"];
    let kernel = Kernel::linux("linux-6.1");
    judge_mutants(&kernel, &[], LINUX_6_1, |image| record(&kernel, image, &options));
}
