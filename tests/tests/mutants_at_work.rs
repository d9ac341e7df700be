//! Kernels of Linux that lack one instruction, while they do the work of docs/judged.md.
//!
//! docs/testing.md has the table. The work is that which comes by the instruction.

use std::path::Path;

use linmap_tests::mutant::{Change, Instruction, Kernel, Mutant, OVERDUE, Recording, judge_mutants};
use linmap_tests::{is_soak, judge};

use Change::Nop;
use Instruction::{DsbAll, TlbiLocal, TlbiShared};

/// 6.1 with 8 bits of ASID, of which 300 processes use more than all.
const ASIDS: &[Mutant] = &[
    // All ASIDs are to be given anew.
    ("check_and_switch_context", TlbiLocal, 0, Nop, Some("next-table")),
    // Other DSBs come before an ASID is given anew that another process had.
    ("check_and_switch_context", DsbAll, 0, Nop, None),
];

/// 6.12 with folios of 64K, which contiguous runs map.
const FOLIOS: &[Mutant] = &[
    ("__flush_tlb_range_nosync.constprop.0", TlbiShared, 0, Nop, Some("contiguous")),
    ("contpte_convert", DsbAll, 0, Nop, Some("contiguous")),
];

/// 6.1 with pages of their own size.
const PAGES: &[Mutant] = &[
    // A copied page takes the place of another.
    ("ptep_clear_flush", TlbiShared, 0, Nop, Some("output-address")),
    // Pages that fork shares become read-only.
    ("dup_mmap", TlbiShared, 0, Nop, Some(OVERDUE)),
    // mremap.
    ("__flush_tlb_range.constprop.0", TlbiShared, 0, Nop, Some(OVERDUE)),
];

/// 6.1 that loads modules and compiles BPF: memory becomes read-only, or text.
const TEXT: &[Mutant] = &[("__change_memory_common", TlbiShared, 0, Nop, Some(OVERDUE))];

/// What docs/judged.md knows of Linux since 6.12.
const KNOWN: &[&str] = &["__pi_map_range", "contpte_wrprotect_ptes", "__set_ptes_anysz"];

/// Boots the Image `image` as `guest` with these options of `cargo xtask judge` more.
fn work(guest: &str, image: &Path, options: &str) -> Recording {
    let out = image.with_file_name("trace");
    let files = format!("--kernel {} --out {}", image.display(), out.display());
    let judged = judge(guest, &format!("--timeout 600 --append nokaslr {files} {options}"));
    assert!(out.exists(), "{}", judged.console);
    Recording::with(&out, judged.mistakes())
}

#[test]
fn mutants_of_linux_at_work_are_found() {
    if !is_soak() {
        return;
    }
    let six_1 = Kernel::linux("linux-6.1");
    judge_mutants(&six_1, &[], PAGES, |image| work("linux-6.1", image, "--work pages"));
    judge_mutants(&six_1, &[], TEXT, |image| work("linux-6.1", image, "--work modules,filter"));
    let six_12 = Kernel::linux("linux-6.12");
    judge_mutants(&six_12, KNOWN, FOLIOS, |image| work("linux-6.12", image, "--work folios"));
}

#[test]
fn mutants_of_linux_that_gives_asids_anew_are_found() {
    if !is_soak() {
        return;
    }
    // mov w0, #0x10000 and mov w1, #16 become mov w0, #0x100 and mov w1, #8.
    let kernel = Kernel::linux("linux-6.1").with("asids_init", !0, 0x52a0_0020, 0x5280_2000);
    let kernel = kernel.with("asids_init", !0, 0x5280_0201, 0x5280_0101);
    judge_mutants(&kernel, &[], ASIDS, |image| work("linux-6.1", image, "--work processes"));
}

#[test]
fn a_mutant_of_linux_that_takes_every_cpu_for_one_of_level_2_is_found() {
    if !is_soak() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("Image");
    // The BL to is_midr_in_range_list becomes mov w0, #1.
    let always = |kernel: Kernel, function| kernel.with(function, 0xfc00_0000, 0x9400_0000, 0x5280_0020);
    let kernel = always(Kernel::linux("linux-6.18"), "has_bbml2_noabort");
    always(kernel, "cpu_supports_bbml2_noabort").write(&image, &[]);
    let mistakes = work("linux-6.18", &image, "--work modules").mistakes;
    let split = ("size".to_owned(), "split_pmd".to_owned());
    assert!(mistakes.contains(&split), "{mistakes:?}");
}
