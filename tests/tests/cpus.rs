//! Several CPUs: brought up, interrupted, refused, switched off and on, and handed over, on
//! machines of many kinds.

use std::path::PathBuf;
use std::process::Command;

use linmap_tests::cpus::{CpuTree, Method, expect_cpus, expect_warning, psci, shown};
use linmap_tests::{Boot, RAM, file, soak_or_first};

#[test]
fn all_cpus_come_and_answer_with_both_gics_at_both_levels() {
    for cpu in ["max", "neoverse-n1", "cortex-a72"] {
        for gic in [2, 3] {
            for el in [1, 2] {
                let options = format!("--memory 1G --cpus 4 --cpu {cpu} --gic {gic} --el {el}");
                let outcome = Boot::new(&options).with("--script", "cpus; verify").run();
                expect_cpus(&outcome, 4, 4);
                let phase = outcome.phase("cpus");
                assert_eq!(phase["gic"], gic, "{options}");
                assert_eq!(phase["method"], "psci", "{options}");
                // Two stacks more for each of three CPUs, with a guard each.
                assert_eq!(outcome.with("verify").expect("a verdict")["verify"], "ok", "{options}");
            }
        }
    }
}

#[test]
fn more_cpus_than_a_gicv2_has_places_for_come_too() {
    let outcome = Boot::new("--memory 1G --cpus 9").with("--script", "cpus; verify").run();
    expect_cpus(&outcome, 9, 9);
    // QEMU has 16 CPUs in a cluster, and the redistributors of 123 in a region; 64 share a table of
    // stacks.
    let outcome = Boot::new("--memory 1G --cpus 130").with("--script", "cpus; verify").run();
    expect_cpus(&outcome, 130, 130);
    assert_eq!(shown(&outcome)[17]["mpidr"], 0x101, "{}", outcome.console);
    assert_eq!(shown(&outcome)[129]["mpidr"], 0x801, "{}", outcome.console);
}

#[test]
fn versal_has_two_cpus() {
    let outcome = Boot::new("--machine xlnx-versal-virt --memory 2G").with("--script", "cpus; verify").run();
    expect_cpus(&outcome, 2, 2);
}

#[test]
fn one_cpu_needs_no_interrupt_controller() {
    let outcome = Boot::new("--memory 1G --cpus 1").with("--script", "cpus").run();
    expect_cpus(&outcome, 1, 1);
    assert_eq!(outcome.phase("cpus")["method"], "none");
}

#[test]
fn as_many_cpus_come_as_are_wanted() {
    for (wanted, online) in [(1, 1), (3, 3), (4, 4), (64, 4)] {
        let outcome = Boot::new("--memory 1G --cpus 4")
            .with("--append", format!("linmap.cpus={wanted}"))
            .with("--script", "cpus")
            .run();
        expect_cpus(&outcome, online, 4);
    }
    for wrong in ["0", "-1", "many", ""] {
        let append = format!("linmap.cpus={wrong}");
        let outcome = Boot::new("--memory 1G --cpus 2 --payload none").with("--append", append).run();
        outcome.expect_error("cpus", &["linmap.cpus="]);
    }
}

#[test]
fn cpus_of_a_spin_table_come_and_go_and_come_back() {
    const MACHINE: &str = "--machine raspi4b --memory 2G";
    let tree = CpuTree::raspi4b();
    let outcome = tree.boot(MACHINE, "", "cpus; verify");
    expect_cpus(&outcome, 4, 4);
    assert_eq!(outcome.phase("cpus")["method"], "spin-table");
    let outcome =
        tree.boot(MACHINE, "linmap.cpus=2", "cpu-off 1; cpus; cpu-on 1; cpu-on 3; cpu-off 3; verify");
    outcome.expect_success();
    let states: Vec<_> = shown(&outcome).iter().map(|cpu| cpu["state"].clone()).collect();
    assert_eq!(states, ["online", "uncalled", "off", "off"]);
    expect_cpus(&tree.boot(MACHINE, "", "cpu-off 3; cpu-off 1; cpu-on 1; cpu-on 3; cpus"), 4, 4);
}

#[test]
fn a_cpu_that_comes_uncalled_waits_until_it_is_called() {
    // The mailboxes of 1 and 2 are exchanged: the call of 1 brings 2, which is not meant yet.
    let mut tree = CpuTree::raspi4b();
    tree.cpus[1].method = Some(Method::SpinTable(Some(0xe8)));
    tree.cpus[2].method = Some(Method::SpinTable(Some(0xe0)));
    let outcome = tree.boot("--machine raspi4b --memory 2G", "linmap.cpus=4", "cpus; verify");
    expect_cpus(&outcome, 3, 4);
    expect_warning(&outcome, &["CPU 1", "did not start within 5000 ms"]);
    assert_eq!(shown(&outcome)[1]["state"], "lost");
    // The call of 2 brought it: it is found where it waits, and goes to the pen.
    let outcome = tree.boot("--machine raspi4b --memory 2G --payload self", "linmap.cpus=4", "kexec");
    outcome.expect_success();
    let phases = outcome.records.iter().filter(|r| r.get("phase").is_some_and(|phase| phase == "cpus"));
    let online: Vec<_> = phases.map(|phase| phase["online"].clone()).collect();
    assert_eq!(online, [3, 4], "{}", outcome.console);
    // All share one that only 1 watches.
    let mut tree = CpuTree::raspi4b();
    for cpu in &mut tree.cpus {
        cpu.method = Some(Method::SpinTable(Some(0xe0)));
    }
    let outcome = tree.boot("--machine raspi4b --memory 2G --payload self", "linmap.cpus=2", "cpus; kexec");
    let states: Vec<_> = shown(&outcome).iter().map(|cpu| cpu["state"].clone()).collect();
    assert_eq!(states, ["online", "online", "uncalled", "uncalled"]);
    let what = outcome.with("script").expect("a verdict")["what"].as_str().expect("text").to_owned();
    assert!(what.contains("CPU 2") && what.contains("does not wait where that led it"), "{what}");
}

#[test]
fn cpus_go_and_come_back() {
    let script = "cpu-off 2; cpus; cpu-on 2; cpu-off 1; cpu-off 3; cpu-on 3; cpu-on 1; verify";
    let outcome = Boot::new("--memory 1G --cpus 4").with("--script", script).run();
    outcome.expect_success();
    let states: Vec<_> = shown(&outcome).iter().map(|cpu| cpu["state"].clone()).collect();
    assert_eq!(states, ["online", "online", "off", "online"]);
    for gic in [2, 3] {
        let script = "cpu-off 3; cpu-on 3; cpus";
        let options = format!("--memory 1G --cpus 4 --el 2 --cpu cortex-a72 --gic {gic}");
        expect_cpus(&Boot::new(&options).with("--script", script).run(), 4, 4);
    }
}

#[test]
fn what_can_not_be_done_with_a_cpu_is_refused_by_name() {
    for (command, says) in [
        ("cpu-off 0", "CPU 0: it is the boot CPU"),
        ("cpu-on 0", "CPU 0: it is the boot CPU"),
        ("cpu-on 1", "CPU 1: it is online already"),
        ("cpu-off 9", "CPU 9: there is no such CPU"),
        ("cpu-on 300", "CPU 300: there is no such CPU"),
        ("cpu-off 2; cpu-off 2", "CPU 2: it is not online"),
        ("cpu-on x", "usage: cpu-on N"),
    ] {
        let outcome = Boot::new("--memory 1G --cpus 4").with("--script", command).run();
        let verdict = outcome.with("script").unwrap_or_else(|| panic!("{command}: {}", outcome.console));
        assert_eq!(verdict["what"], says, "{command}");
    }
}

#[test]
fn the_bbm_level_is_the_least_of_all_cpus() {
    let boot = |append: &str| {
        let outcome = Boot::new("--memory 1G --cpus 4 --cpu max,midr=0x410fd842")
            .with("--append", append)
            .with("--script", "cpus")
            .run();
        expect_cpus(&outcome, 4, 4);
        let own: Vec<_> = shown(&outcome).iter().map(|cpu| cpu["bbm"].as_u64()).collect();
        assert!(shown(&outcome).iter().all(|cpu| cpu["bbm_reported"] == 3), "{}", outcome.console);
        (outcome.phase("cpus")["bbm"].as_u64(), own)
    };
    assert_eq!(boot(""), (Some(3), vec![Some(3); 4]));
    assert_eq!(boot("linmap.bbm=1"), (Some(1), vec![Some(1); 4]));
    assert_eq!(boot("linmap.bbm.cpu2=2"), (Some(2), vec![Some(3), Some(3), Some(2), Some(3)]));
    // The word for one CPU takes precedence over the word for all.
    assert_eq!(
        boot("linmap.bbm=2 linmap.bbm.cpu0=3 linmap.bbm.cpu3=0"),
        (Some(0), vec![Some(3), Some(2), Some(2), Some(0)])
    );
}

#[test]
fn a_bbm_level_above_what_a_cpu_reports_needs_force() {
    let boot = |append: &str| {
        Boot::new("--memory 1G --cpus 2 --timeout 60").with("--append", append).with("--script", "cpus").run()
    };
    boot("linmap.bbm=3").expect_error("cpus", &["CPU 0", "level 3", "level 2", "ID_AA64MMFR2_EL1.BBM"]);
    boot("linmap.bbm.cpu1=3").expect_error("cpus", &["CPU 1", "level 3", "level 2"]);
    boot("linmap.bbm=4").expect_error("cpus", &["linmap.bbm=", "0, 1, 2 or 3"]);
    boot("linmap.bbm.cpu200=two").expect_error("cpus", &["linmap.bbm.cpu200="]);
    let outcome = boot("linmap.bbm=3,force");
    expect_cpus(&outcome, 2, 2);
    assert_eq!(outcome.phase("cpus")["bbm"], 3);
    let outcome = boot("linmap.bbm.cpu1=1,force linmap.bbm.cpu1000=1");
    expect_cpus(&outcome, 2, 2);
    assert_eq!(outcome.phase("cpus")["bbm"], 1);
    assert_eq!(outcome.with("word").expect("a warning")["word"], "linmap.bbm.cpu1000=1");
}

#[test]
fn a_late_cpu_that_lacks_what_is_in_use_is_sent_away_and_the_others_go_on() {
    let boot = |append: &str, script: &str| {
        Boot::new("--memory 1G --cpus 4").with("--append", append).with("--script", script).run()
    };
    let outcome = boot("linmap.cpus=2 linmap.bbm.cpu3=1", "cpu-on 2; cpu-on 3");
    assert_eq!(outcome.code, Some(1));
    let what = outcome.with("script").expect("a verdict")["what"].as_str().expect("text").to_owned();
    for part in ["CPU 3", "ID_AA64MMFR2_EL1.BBM", "level 1", "level 2"] {
        assert!(what.contains(part), "{what}");
    }
    // Where the boot had taken it in, the same CPU may come back.
    let outcome = boot("linmap.bbm.cpu3=1", "cpu-off 3; cpu-on 3; cpus");
    expect_cpus(&outcome, 4, 4);
    assert_eq!(outcome.phase("cpus")["bbm"], 1);
}

#[test]
fn a_number_of_no_cpu_is_refused_by_every_command_and_the_kernel_goes_on() {
    let commands = ["panic", "fault", "cpu-on", "cpu-off", "mask"];
    let numbers = ["2", "255", "256", "257", "4294967296", "18446744073709551615"];
    let mut script = String::new();
    for command in commands {
        for number in numbers {
            // A time, where one is asked for or may be given.
            let time = if command.starts_with("cpu") { "" } else { " 1" };
            script.push_str(&format!("!{command} {number}{time}; "));
        }
    }
    // The CPU itself, malformed arguments, and a busy CPU.
    script.push_str(
        "!cpu-on 0; !cpu-off 0; !mask 0 1; !panic -1; !fault 1 x; !panic 1 2 3; mask 1 3000; \
                     !panic 1 0; verify",
    );
    let outcome = Boot::new("--memory 1G --cpus 2").with("--script", script).run();
    outcome.expect_success();
    let refused: Vec<_> = outcome.records.iter().filter(|record| record.contains_key("refused")).collect();
    assert_eq!(refused.len(), commands.len() * numbers.len() + 7);
    for record in &refused[..commands.len() * numbers.len()] {
        let number = record["refused"].as_str().unwrap().split(' ').nth(1).unwrap();
        let what = record["what"].as_str().unwrap();
        assert!(what.contains(&format!("CPU {number}")), "{record:?}");
    }
    assert!(refused.last().unwrap()["what"].as_str().unwrap().contains("has not finished its work"));
    assert!(!outcome.console.contains("end=asked"), "{}", outcome.console);
}

#[test]
fn a_refused_cpu_is_off_again_and_refused_again() {
    let lines = "cpu-on 3\ncpu-on 3\ncpus\n";
    let console = typed("--memory 1G --cpus 4", "linmap.cpus=3 linmap.bbm.cpu3=0", lines);
    assert_eq!(console.matches("CPU 3: ID_AA64MMFR2_EL1.BBM").count(), 2, "{console}");
    assert!(console.contains("linmap: cpu=3 mpidr=0x3 method=psci state=off"), "{console}");
}

/// The console of a boot with these options, words and lines typed into the shell.
fn typed(options: &str, append: &str, lines: &str) -> String {
    let mut command = match std::env::var_os("LINMAP_XTASK") {
        Some(xtask) => Command::new(xtask),
        None => Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into())),
    };
    if std::env::var_os("LINMAP_XTASK").is_none() {
        command.arg("xtask");
    }
    let input = file(lines.as_bytes());
    let output = command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .arg("boot")
        .args(options.split_whitespace())
        .args(["--shell", "--timeout", "240", "--append", append])
        .stdin(input.reopen().expect("the lines"))
        .output()
        .expect("xtask starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_cpu_that_does_not_exist_is_named_and_the_boot_goes_on() {
    let mut cpus: Vec<_> = (0..4).map(psci).collect();
    cpus.insert(1, psci(0x7_0000_0009));
    let outcome = CpuTree::virt(cpus).boot_virt("", "cpus; verify");
    expect_cpus(&outcome, 4, 5);
    expect_warning(&outcome, &["CPU 1", "PSCI CPU_ON"]);
    // A spin table that no CPU watches.
    let mut cpus: Vec<_> = (0..4).map(psci).collect();
    cpus[2].method = Some(Method::SpinTable(Some(0x0a00_0000)));
    let mut tree = CpuTree::virt(cpus);
    tree.memory = (RAM, 1 << 30);
    let outcome = tree.boot_virt("linmap.cpus=4", "cpus; verify");
    expect_cpus(&outcome, 3, 4);
    expect_warning(&outcome, &["CPU 2", "did not start within 5000 ms"]);
}

/// Debian's kernel of this line, as `cargo xtask setup` left it.
fn debian(line: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    target.join(format!("payload/linux-{line}/Image"))
}

#[test]
fn linux_gets_all_cpus_after_they_were_ours() {
    let machines = ["--gic 3 --el 2 --cpu cortex-a72", "--gic 2 --el 1", "--gic 3 --el 1", "--gic 2 --el 2"];
    for options in soak_or_first(1, &machines) {
        let outcome = Boot::new(&format!("--memory 2G --cpus 4 {options}"))
            .with("--kernel", debian("6.12"))
            .with("--script", "cpus; kexec")
            .run();
        let console = &outcome.console;
        assert!(console.contains("linmap-userspace: ok"), "{options}: {console}");
        assert!(console.contains("smp: Brought up 1 node, 4 CPUs"), "{options}: {console}");
        for complaint in ["[Firmware Bug]", "Kernel panic", "failed to come online"] {
            assert!(!console.contains(complaint), "{options}: {complaint}\n{console}");
        }
    }
}

#[test]
fn linmap_gets_all_cpus_back_from_itself() {
    for options in ["--gic 2 --el 1", "--gic 3 --el 2", "--gic 3 --el 2 --cpu cortex-a72"] {
        let outcome = Boot::new(&format!("--memory 1G --cpus 4 --payload self {options}"))
            .with("--append", "linmap.generations=2")
            .run();
        outcome.expect_success();
        let phases: Vec<_> = outcome
            .records
            .iter()
            .filter(|record| record.get("phase").is_some_and(|phase| phase == "cpus"))
            .collect();
        assert_eq!(phases.len(), 3, "{options}");
        assert!(phases.iter().all(|phase| phase["online"] == 4), "{options}: {phases:?}");
    }
}
