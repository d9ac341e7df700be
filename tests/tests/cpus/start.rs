//! CPUs that come, go, and come back.

use linmap_tests::Boot;

use crate::expect::{expect_cpus, expect_warning, shown};
use crate::tree::{Method, Tree};

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
    let tree = Tree::raspi4b();
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
    let mut tree = Tree::raspi4b();
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
    let mut tree = Tree::raspi4b();
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
fn a_word_that_a_cpu_in_no_list_watches_as_well_is_not_written() {
    let mut tree = Tree::raspi4b();
    tree.cpus[2].status = Some("fail");
    tree.cpus[3].method = Some(Method::SpinTable(Some(0xe8)));
    let outcome = tree.boot("--machine raspi4b --memory 2G", "", "cpus; verify");
    expect_cpus(&outcome, 2, 3);
    expect_warning(&outcome, &["CPU 0x3: ", "unusable CPU polls the same cpu-release-addr 0xe8"]);
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
