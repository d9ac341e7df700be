//! `verify` against damage: whatever bit is wrong in whatever entry of the live tables is noticed,
//! and what changes of the map do is not taken for damage.

use linmap_tests::{Boot, Outcome};

/// BBM level 3, so that changes run in use.
const LEVEL_3: &str = "--memory 4G --cpus 4 --cpu max,midr=0x410fd842";

/// An entry by an address and its level, what it is, and which bits to flip, one set at a time.
type Damage = (u64, u8, &'static str, Vec<u64>);

fn bits(numbers: impl IntoIterator<Item = u32>) -> Vec<u64> {
    numbers.into_iter().map(|bit| 1 << bit).collect()
}

/// The entries of a machine with 4 GiB from 1 GiB on. The image lies at 0x40200000.
fn damages() -> Vec<Damage> {
    vec![
        // Valid, type, AttrIndx, AP[1], AP[2], SH, AF, nG, nT, address, reserved bits 48 to 50,
        // DBM, contiguous, PXN, UXN, software bits, PBHA.
        (
            0xffff_0000_0060_0000,
            2,
            "a block",
            bits([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 16, 21, 30, 47, 48, 49, 50, 51, 52, 53, 54]),
        ),
        (0xffff_0000_0060_0000, 2, "a block", bits(55..64)),
        (0xffff_0000_0220_0000, 2, "one of a contiguous run", bits([0, 7, 11, 21, 52, 54, 55])),
        (0xffff_0000_4000_0000, 1, "a block of 1 GiB", bits([7, 11, 12, 16, 31, 53, 63])),
        (0xffff_0000_0020_0000, 3, "the alias of the image's text", bits([6, 7, 11, 52, 53])),
        (0xffff_fff8_4000_0000, 3, "the image's text", bits([11, 55, 58, 63])),
        (0xffff_fff8_401f_f000, 3, "an unused entry behind the image", vec![1 << 3, 0x60_0000_4020_0703]),
        (0xffff_ffff_e010_0000, 3, "an unused entry of the stacks", vec![1 << 63, 0x60_0000_4020_0703]),
        (0xffff_ffff_ff60_0000, 2, "the device tree", bits([7, 53])),
        (0xffff_ffff_ffc8_0000, 3, "a free slot of the fixmap", vec![1 << 40, 0x60_0000_4020_0703]),
        (0xffff_0000_0000_0000, 1, "a table descriptor", bits([2, 11, 51, 58, 59, 60, 61, 63])),
        // PXNTable and APTable[1] would end the kernel.
        (0xffff_fff8_4000_0000, 1, "the image's table descriptor", bits([9, 52, 61, 63])),
        (0xffff_4000_0000_0000, 0, "a far hole", bits([1, 12, 63])),
        // An alias of 1 GiB of memory far behind the map.
        (0xffff_0040_0000_0000, 1, "a hole", vec![1 << 62, 0x60_0000_4000_0701]),
    ]
}

/// The first address that the entry for `va` at `level` translates.
fn entry_start(va: u64, level: u8) -> u64 {
    va >> (39 - 9 * level) << (39 - 9 * level)
}

fn failures(outcome: &Outcome) -> Vec<&str> {
    let failed = outcome.records.iter().filter(|record| record.get("verify").is_some_and(|v| v == "failed"));
    failed.filter_map(|record| record["what"].as_str()).collect()
}

#[test]
fn any_wrong_bit_in_any_kind_of_entry_is_noticed() {
    let mut script = String::from("verify; ");
    let mut flips = Vec::new();
    for (va, level, what, sets) in damages() {
        for set in sets {
            script.push_str(&format!(
                "flip {va:#x} {level} {set:#x}; !verify; flip {va:#x} {level} {set:#x}; "
            ));
            flips.push((va, level, what, set));
        }
        script.push_str("verify; ");
    }
    script.push_str("!flip 0xffff000040000000 3 1; !flip 0x40000000 3 1; !flip 0xffff000000000000 4 1; dump");
    let outcome = Boot::new(LEVEL_3).with("--script", script).run();
    outcome.expect_success();
    let failures = failures(&outcome);
    assert_eq!(failures.len(), flips.len(), "{failures:#?}");
    for ((va, level, what, set), failure) in flips.into_iter().zip(failures) {
        // A bit that breaks a contiguous run is told where the run begins.
        let start = format!("TTBR1: {:#018x}: entry ", entry_start(va, level));
        let run = "contiguous run";
        assert!(failure.starts_with(&start) || failure.contains(run), "{set:#x} in {what}: {failure}");
    }
    assert_eq!(outcome.with("dump").expect("a dump")["wx"], 0);
}

#[test]
fn memory_that_is_writable_at_one_address_and_executable_at_another_is_shown() {
    let script = "dump; \
        flip 0xffff000000200000 3 0x80; !dump; flip 0xffff000000200000 3 0x80; \
        flip 0xffff000000600000 2 0x20000000000000; !dump; flip 0xffff000000600000 2 0x20000000000000; \
        flip 0xffff004000000000 1 0x60000040000701; !dump; flip 0xffff004000000000 1 0x60000040000701; \
        dump";
    let outcome = Boot::new(LEVEL_3).with("--script", script).run();
    outcome.expect_success();
    let pairs: Vec<u64> = outcome.records.iter().filter_map(|record| record.get("wx")?.as_u64()).collect();
    assert_eq!(pairs, [0, 1, 1, 1, 0], "{}", outcome.console);
}

#[test]
fn what_changes_of_the_map_do_is_no_damage() {
    let changes = "reserve 0x80000000 64M; \
        protect ro 0x80000000 4K; verify; protect invalid 0x80100000 2M; verify; \
        text 0x80400000 64K; verify; split 3 0x80800000 2M; verify; fold 0x80800000 2M; verify; \
        ng on; verify; protect nx 0x80400000 64K; protect rw 0x80400000 32K; verify; \
        memory remove 0x90001000 1G; verify; memory add 0x90001000 1G; verify; \
        kexec load --crash; verify; ng off; verify; kexec unload --crash; verify; \
        protect valid 0x80100000 2M; verify; free 0x80000000 64M; verify";
    let verified = |options: &str, append: &str| {
        let outcome = Boot::new(options)
            .with("--append", format!("linmap.crashkernel=128M {append}"))
            .with("--script", changes)
            .run();
        outcome.expect_success();
        let verified = |record: &&_| linmap_tests::Record::get(record, "verify").is_some_and(|v| v == "ok");
        let count = outcome.records.iter().filter(verified).count();
        assert_eq!(count, changes.matches("verify").count(), "{}", outcome.console);
        outcome
    };
    verified(LEVEL_3, "");
    // Everything that changes sizes parks.
    verified(LEVEL_3, "linmap.bbm=0");
    verified("--memory 4G --cpus 2 --gic 3 --el 2 --cpu cortex-a72", "linmap.leaf=page");
    // Blocks that are repainted to pages.
    let repainted = verified(LEVEL_3, "linmap.bbm.cpu2=1");
    assert!(repainted.console.contains("phase=repaint"), "{}", repainted.console);
}

#[test]
fn a_change_that_the_record_has_no_room_for_is_refused() {
    // Every other page: two boundaries each.
    let mut script = String::from("reserve 0x80000000 4M; ");
    for nth in 0..256 {
        script.push_str(&format!("protect ro {:#x} 4K; ", 0x8000_0000u64 + nth * 0x2000));
    }
    script.push_str(
        "!protect ro 0x80300000 4K; verify; protect ro 0x80000000 1M; verify; \
         protect ro 0x80300000 4K; verify; free 0x80000000 4M; verify",
    );
    let outcome = Boot::new("--memory 4G").with("--script", script).run();
    outcome.expect_success();
    let refused = outcome.with("refused").expect("a refusal");
    let what = refused["what"].as_str().unwrap_or_default();
    assert!(what.contains("the record of changed memory has room for 512 boundaries"), "{what}");
}
