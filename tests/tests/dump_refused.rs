//! `linmap dump` of guests that have no tables to show, or go away: one line with a hint, exit
//! code 2.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Output;
use std::thread;

use linmap_tests::{RunningGuest, file, own_image_path, tool};

/// Where the program and its tables lie: QEMU's tree begins RAM.
const CODE: u64 = 0x4020_0000;
const TABLES: u64 = 0x4030_0000;
/// No memory of `virt`.
const NOWHERE: u64 = 0x30_0000_0000;
/// 48 bits of VA in both halves, 4K pages, cached walks.
const TCR: u64 = 0x5_b510_3510;

/// A machine whose CPU sets these registers, with these words in memory at `TABLES`, and then spins
/// or faults.
fn with_registers(
    ttbr0: u64,
    ttbr1: u64,
    tcr: u64,
    words: &[u64],
) -> (RunningGuest, [tempfile::NamedTempFile; 2]) {
    // ldr x0-x3 of the words behind the code; msr ttbr0_el1, x0; ttbr1_el1, x1; tcr_el1, x2; isb;
    // msr sctlr_el1, x3; isb; b .
    let code: [u32; 12] = [
        0x5800_0180,
        0x5800_01a1,
        0x5800_01c2,
        0x5800_01e3,
        0xd518_2000,
        0xd518_2021,
        0xd518_2042,
        0xd503_3fdf,
        0xd518_1003,
        0xd503_3fdf,
        0x1400_0000,
        0xd503_201f,
    ];
    let sctlr = 0x30d0_1805u64;
    let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut program: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    program.extend(bytes(&[ttbr0, ttbr1, tcr, sctlr]));
    let files = [file(&program), file(&bytes(words))];
    let loaded = |nth: usize, at: u64| {
        format!("loader,file={},addr={at:#x},force-raw=on", files[nth].path().display())
    };
    let (code, tables) = (loaded(0, CODE), loaded(1, TABLES));
    let start = format!("loader,addr={CODE:#x},cpu-num=0");
    let guest = RunningGuest::start(
        "-M virt -cpu cortex-a72 -m 256M",
        &["-device", &code, "-device", &tables, "-device", &start],
    );
    (guest, files)
}

#[track_caller]
fn expect_refusal(output: &Output, parts: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty(), "nothing half written: {error}");
    let errors: Vec<_> = error.lines().filter(|line| !line.starts_with("note: ")).collect();
    assert_eq!(errors.len(), 1, "{error}");
    for part in parts {
        assert!(errors[0].contains(part), "{part}: {error}");
    }
    assert!(errors[0].starts_with("error: ") && errors[0].contains("; "), "no hint: {error}");
}

/// Waits until the MMU is on: the machine is stopped and goes on at each look.
fn refused(guest: &RunningGuest, arguments: &[&str]) -> Output {
    for _ in 0..200 {
        let output = guest.dump_output(arguments);
        if !String::from_utf8_lossy(&output.stderr).contains("the MMU of EL1 is off") {
            return output;
        }
        thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the MMU stays off");
}

#[test]
fn a_guest_without_tables_is_one_line_with_a_hint() {
    let off = RunningGuest::start("-M virt -cpu cortex-a72 -m 128M -S", &[]);
    expect_refusal(&off.dump_output(&[]), &["SCTLR_EL1.M is clear, so the MMU of EL1 is off"]);
    expect_refusal(&off.dump_output(&["--cpu", "3"]), &["the guest has no CPU 3", "its CPUs are 0 to 0"]);
    expect_refusal(&off.dump_output(&["--regime", "el2"]), &["no such regime is known"]);
    let old = RunningGuest::start("-M virt -cpu cortex-a15 -m 128M -S", &[]);
    expect_refusal(&old.dump_output(&[]), &["the guest is arm, not aarch64"]);
}

#[test]
fn roots_and_tables_that_lead_nowhere_are_named() {
    let (guest, _files) = with_registers(NOWHERE, NOWHERE + 0x1000, TCR, &[]);
    expect_refusal(&refused(&guest, &[]), &["TTBR0_EL1 is 0x3000000000, where no memory is", "TTBR1_EL1 is"]);

    // TG1 0b00 is reserved, TG0 0b11 too.
    let (guest, _files) = with_registers(TABLES, TABLES, TCR & !(3 << 30) | 3 << 14, &[]);
    expect_refusal(
        &refused(&guest, &[]),
        &["TTBR0_EL1 is not shown: TCR_EL1 is 0x", "TTBR1_EL1 is not shown"],
    );

    // An identity map of RAM by one read-only block; then a root that is its own table at each
    // level, by three entries, and one to a table that is no memory.
    let mut words = vec![0; 0x600];
    words[0] = TABLES + 0x1003;
    words[0x200 + 1] = 0x4000_0781;
    for entry in [1, 2, 511] {
        words[0x400 + entry] = TABLES + 0x2003;
    }
    words[0x400 + 7] = NOWHERE | 3;
    let (guest, _files) = with_registers(TABLES, TABLES + 0x2000, TCR, &words);
    let output = refused(&guest, &["--findings"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(found.contains("problem: table-cycle: "), "{found}");
    assert!(found.contains("leads to 0x40302000, the L0 table on the way to it"), "{found}");
    assert!(found.contains("leads to 0x3000000000, which is no memory"), "{found}");
    assert!(!found.contains("TTBR0_EL1"), "the map of RAM has no flaw: {found}");
}

/// Talks to the stub as gdb does, which then expects the number of a process wherever one is meant.
fn use_as_gdb_does(at: &str) {
    let mut stub = UnixStream::connect(at).expect("QEMU listens");
    for packet in ["qSupported:multiprocess+;xmlRegisters=aarch64", "D;1"] {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(stub, "+${packet}#{sum:02x}").expect("QEMU reads");
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !said.contains(&b'#') {
            stub.read_exact(&mut byte).expect("QEMU answers");
            said.extend(byte);
        }
    }
}

#[test]
fn a_guest_goes_on_after_gdb_has_used_its_stub() {
    let path = own_image_path().display().to_string();
    let more = ["-kernel", &path, "-append", "linmap.shell"];
    let mut guest = RunningGuest::start("-M virt -m 256M -cpu max", &more);
    guest.wait_for(0, |text| text.contains("linmap> "));
    use_as_gdb_does(&guest.gdb());
    guest.dump(&["--summary"]);
    guest.type_in("verify");
}

/// Forwards between a debugger and the stub at `to`, until the stub has said `limit` bytes.
fn cut_after(limit: usize, at: &str, to: &str) -> thread::JoinHandle<usize> {
    let listener = UnixListener::bind(at).expect("a socket");
    let to = to.to_owned();
    thread::spawn(move || {
        let (mut tool, _) = listener.accept().expect("the tool connects");
        let mut stub = UnixStream::connect(to).expect("QEMU listens");
        let (mut from_tool, mut to_stub) =
            (tool.try_clone().expect("a socket"), stub.try_clone().expect("a socket"));
        let forward = thread::spawn(move || std::io::copy(&mut from_tool, &mut to_stub));
        let (mut said, mut piece) = (0, [0; 512]);
        while said < limit
            && let Ok(len @ 1..) = stub.read(&mut piece)
            && tool.write_all(&piece[..len]).is_ok()
        {
            said += len;
        }
        for socket in [&tool, &stub] {
            // It may be closed.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        let _ = forward.join();
        said
    })
}

#[test]
fn a_guest_that_goes_away_is_one_line_whenever_it_does() {
    let path = own_image_path().display().to_string();
    let options = "-M virt -m 1G -cpu max";
    let more = ["-kernel", &path, "-append", "linmap.shell linmap.leaf=page"];
    let mut guest = RunningGuest::start(options, &more);
    guest.wait_for(0, |text| text.contains("linmap> "));
    let all = guest.dump(&[]);
    let place = guest.path("cut");
    // In the greeting, in the description of the registers, in their values, in the tables.
    for limit in [1, 700, 20_000, 60_000, 90_000, 1 << 20, 4 << 20] {
        let cut = cut_after(limit, &place, &guest.gdb());
        let output = tool().args(["dump", "--gdb", &place]).output().expect("linmap runs");
        let said = cut.join().expect("it forwards");
        assert!(said >= limit, "the stub says no more than {said} bytes");
        expect_refusal(&output, &["the guest has gone away"]);
        std::fs::remove_file(&place).expect("the socket");
    }
    // Nobody puts it back: the stub does when the debugger is gone.
    assert_eq!(guest.dump(&[]), all);
    drop(guest);
    let gone = tool().args(["dump", "--gdb", &place]).output().expect("linmap runs");
    expect_refusal(&gone, &["No such file"]);
}
