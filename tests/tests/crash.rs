//! Crash kernels: reserving memory for them, loading them, entering them on panic, and passing them
//! the old kernel's memory.

use linmap_tests::{Boot, Outcome, pattern, soak_or_first};
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, U64};
use sha2::{Digest, Sha256};

const RESERVE: &str = "linmap.crashkernel=256M";
/// Where the kernel's image is mapped.
const IMAGE: std::ops::Range<u64> = 0xffff_fff8_4000_0000..0xffff_fff8_4040_0000;

fn run(options: &str, append: &str, script: &str) -> Outcome {
    Boot::new(options).with("--append", append).with("--script", script).run()
}

fn from_hex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks_exact(2).map(byte).collect()
}

/// The CPUs' numbers and program counters, and the text of VMCOREINFO, by the notes of a core
/// file's first bytes.
fn notes(head: &[u8]) -> (Vec<(u32, u64)>, String) {
    let header = FileHeader64::<LittleEndian>::parse(head).unwrap();
    let segments = header.program_headers(LittleEndian, head).unwrap();
    let segment = segments.iter().find(|s| s.p_type(LittleEndian) == elf::PT_NOTE).unwrap();
    let (mut cpus, mut info) = (Vec::new(), String::new());
    let mut notes = segment.notes(LittleEndian, head).unwrap().unwrap();
    while let Some(note) = notes.next().unwrap() {
        match note.name() {
            b"CORE" => {
                assert_eq!(note.n_type(LittleEndian), elf::NT_PRSTATUS);
                let thread = u32::from_le_bytes(*note.desc()[32..].first_chunk().unwrap());
                let (registers, _) =
                    object::slice_from_bytes::<U64<LittleEndian>>(&note.desc()[112..], 34).unwrap();
                cpus.push((thread, registers[32].get(LittleEndian)));
            }
            b"VMCOREINFO" => info = String::from_utf8(note.desc().to_vec()).unwrap(),
            other => panic!("a note of {:?}", String::from_utf8_lossy(other)),
        }
    }
    (cpus, info)
}

#[test]
fn linux_shows_memory_and_cpus_of_the_kernel_that_crashed() {
    let outcome = run(
        "--memory 2G --cpus 4",
        // Linux can start a CPU only if it is off. Of two words for the number the last counts.
        &format!("{RESERVE} maxcpus=4 linmap_vmcore=0x60000000,0x100000"),
        "reserve 0x60000000 1M; fill 0x60000000 1M 7; kexec load --crash; kexec plan --crash; panic 2",
    );
    outcome.expect_success();
    let state = outcome.with("stopped").expect("the way into the crash kernel");
    assert_eq!((&state["cpu"], &state["stopped"], &state["running"]), (&2.into(), &3.into(), &0.into()));
    assert_eq!(outcome.user_space("initrd"), "ok");
    assert_eq!(outcome.user_space("cpus"), "4", "all others were off");
    // All of RAM but what is the crash kernel's own.
    let size: u64 = outcome.user_space("vmcore").parse().unwrap();
    assert!((0x7000_0000..0x7100_0000).contains(&size), "{size:#x}");
    let expected = Sha256::digest(pattern(1 << 20, 7));
    let expected: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(outcome.user_space("vmcore-sha256"), expected);

    let (cpus, info) = notes(&from_hex(outcome.user_space("vmcore-head")));
    assert_eq!(cpus.iter().map(|(thread, _)| *thread).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(cpus.iter().all(|(_, pc)| IMAGE.contains(pc)), "{cpus:x?}");
    let image = outcome.with("generation").unwrap()["image"].as_u64().unwrap();
    let offset = IMAGE.start.wrapping_sub(image);
    assert!(info.contains(&format!("NUMBER(kimage_voffset)={offset:#x}\n")), "{info}");
    assert!(info.starts_with("OSRELEASE=linmap-"), "{info}");
}

#[test]
fn a_crash_kernel_is_entered_from_any_cpu_by_a_panic_and_by_a_fault_at_both_levels() {
    let machines = [
        ("--cpu cortex-a72 --cpus 4 --el 2", "fault", 2),
        ("--cpu neoverse-n1 --cpus 2", "fault 1", 1),
        ("--cpu max --cpus 4 --el 2 --gic 3", "panic 3", 2),
    ];
    for &(options, end, el) in soak_or_first(2, &machines) {
        let outcome = run(&format!("--memory 2G {options}"), RESERVE, &format!("kexec load --crash; {end}"));
        outcome.expect_success();
        let level = format!("CPU: All CPU(s) started at EL{el}");
        assert!(outcome.console.contains(&level), "{options}\n{}", outcome.console);
        assert_eq!(outcome.user_space("cpus"), "1");
        assert!(outcome.user_space("cmdline").starts_with("maxcpus=1 reset_devices "));
    }
}

#[test]
fn a_cpu_that_fails_while_others_are_parked_is_not_parked_itself_and_nobody_stays_behind() {
    // Each edit parks the other CPUs.
    let edits = "split 3 0x60000000 2M; fold 0x60000000 2M; ".repeat(400);
    for end in soak_or_first(1, &["panic 2 30", "fault 1 30"]) {
        let outcome = run(
            "--memory 2G --cpus 4 --gic 3",
            &format!("{RESERVE} linmap.bbm=0 maxcpus=4"),
            &format!("reserve 0x60000000 2M; kexec load --crash; {end}; {edits}"),
        );
        outcome.expect_success();
        let state = outcome.with("stopped").expect("the way into the crash kernel");
        assert_eq!((&state["stopped"], &state["running"]), (&3.into(), &0.into()));
        assert_eq!(outcome.user_space("cpus"), "4", "no stop waits for a CPU that Linux starts");
    }
}

#[test]
fn no_interrupt_that_parks_waits_for_a_cpu_that_the_crash_kernel_starts() {
    // The boot CPU plans for longer than the others need to leave, checks no request during that
    // time, and then parks them. Linux takes the same interrupt as a request to stop.
    for gic in soak_or_first(1, &["3", "2"]) {
        let outcome = run(
            &format!("--memory 16G --cpus 4 --gic {gic}"),
            &format!("{RESERVE} linmap.bbm=0 linmap.leaf=page maxcpus=4"),
            "kexec load --crash; fault 1 0; ng on; ng off",
        );
        outcome.expect_success();
        assert_eq!(outcome.user_space("cpus"), "4");
    }
}

#[test]
fn a_crash_kernel_that_has_changed_is_not_entered() {
    let load = "kexec load --crash; kexec plan --crash";
    let first = run("--memory 1G --payload self", RESERVE, load);
    let loaded = first.expect_success().with("notes").expect("what is loaded").clone();
    let [entry, dtb, description] = ["entry", "dtb", "description"].map(|key| loaded[key].as_u64().unwrap());
    let plan = first.records.iter().find(|r| r.get("kexec").is_some_and(|kexec| kexec == "plan")).unwrap();
    let control = plan["control"].as_u64().unwrap();
    for (at, what) in [
        (entry + 0x1_2345, "image"),
        (dtb + 0x40, "dtb"),
        (control + 0x1040, "relocation code"),
        (description, "description"),
    ] {
        let outcome =
            run("--memory 1G --payload self", RESERVE, &format!("{load}; poke {at:#x} 0x5a; panic"));
        let error = outcome
            .records
            .iter()
            .filter_map(|r| r.get("error").map(|error| (error, r.get("what"))))
            .next_back();
        assert_eq!(error, Some((&"verify".into(), Some(&what.into()))), "{at:#x}\n{}", outcome.console);
        assert!(!outcome.console.contains("generation=1"), "{what}");
    }
}

#[test]
fn memory_stays_as_a_crash_kernel_was_told() {
    let script =
        "kexec load --crash; !memory remove 0x60000000 2M; kexec unload --crash; memory remove 0x60000000 2M";
    run("--memory 1G --payload self", RESERVE, script).expect_success();
}

#[test]
fn linmap_is_a_crash_kernel_that_keeps_to_its_memory() {
    let outcome = run(
        "--memory 2G --cpus 2 --payload self",
        "linmap.crashkernel=128M@0x60000000",
        "kexec load --crash; panic",
    );
    outcome.expect_success();
    let memory: Vec<_> =
        outcome.records.iter().filter(|r| r.get("phase").is_some_and(|phase| phase == "memblock")).collect();
    assert_eq!(memory.len(), 2);
    assert_eq!(memory[0]["bytes"], 0x8000_0000u64);
    assert_eq!(memory[1]["bytes"], 0x800_0000u64);
    assert_eq!(outcome.with("state").unwrap()["entry"], 0x6000_0000u64);
}

#[test]
fn a_crash_kernel_waits_beside_another_payload_and_can_be_unloaded() {
    let outcome = run(
        "--memory 2G",
        RESERVE,
        "!kexec unload --crash; kexec load --crash; !kexec load --crash; \
         !kexec load --crash --scattered; verify; kexec unload --crash; !kexec plan --crash; verify; \
         kexec load --crash; kexec load; kexec exec",
    );
    outcome.expect_success();
    assert!(!outcome.user_space("cmdline").contains("maxcpus"));
    assert!(!outcome.console.contains("linmap-userspace: vmcore="));
}

#[test]
fn a_reservation_that_can_not_be_is_named_and_the_boot_goes_on_without() {
    for (word, reason) in [
        ("x", "SIZE or SIZE@ADDRESS"),
        ("256M@", "SIZE or SIZE@ADDRESS"),
        ("0", "multiples of 0x200000"),
        ("3M", "multiples of 0x200000"),
        ("64M@0xfffffffff0000000", "is not all free memory"),
        ("64M@0x40000000", "is not all free memory"),
        ("64G", "0x1000000000 free bytes"),
    ] {
        let outcome = run(
            "--memory 1G --payload self",
            &format!("linmap.crashkernel={word}"),
            "mem; !kexec load --crash",
        );
        outcome.expect_success();
        let warning = outcome.with("warning").unwrap_or_else(|| panic!("{word}"));
        assert_eq!(warning["warning"], "crash-kernel");
        assert!(warning["what"].as_str().unwrap().contains(reason), "{word}: {warning:?}");
        let refused = outcome.with("refused").unwrap()["what"].as_str().unwrap().to_owned();
        assert!(refused.contains("no memory is reserved for a crash kernel"), "{refused}");
    }
}

#[test]
fn a_payload_larger_than_the_reservation_is_refused() {
    let outcome = Boot::new("--memory 1G")
        .with("--append", "linmap.crashkernel=32M")
        .with("--script", "!kexec load --crash; kexec load; kexec exec")
        .until_linux_starts()
        .run();
    outcome.expect_linux();
    let refused = outcome.with("refused").unwrap()["what"].as_str().unwrap().to_owned();
    assert!(refused.contains("no room for the image"), "{refused}");
}
