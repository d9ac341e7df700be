//! Device trees that are wrong about CPUs.

use linmap_tests::RAM;

use crate::expect::{expect_cpus, expect_warning};
use crate::tree::{Gic, Method, Node, Tree, psci};

#[test]
fn a_cpu_that_does_not_exist_is_named_and_the_boot_goes_on() {
    let mut cpus: Vec<_> = (0..4).map(psci).collect();
    cpus.insert(1, psci(0x7_0000_0009));
    let outcome = Tree::virt(cpus).boot_virt("", "cpus; verify");
    expect_cpus(&outcome, 4, 5);
    expect_warning(&outcome, &["CPU 1", "PSCI CPU_ON"]);
    // A spin table that no CPU watches.
    let mut cpus: Vec<_> = (0..4).map(psci).collect();
    cpus[2].method = Some(Method::SpinTable(Some(0x0a00_0000)));
    let mut tree = Tree::virt(cpus);
    tree.memory = (RAM, 1 << 30);
    let outcome = tree.boot_virt("linmap.cpus=4", "cpus; verify");
    expect_cpus(&outcome, 3, 4);
    expect_warning(&outcome, &["CPU 2", "did not start within 5000 ms"]);
}

#[test]
fn nodes_that_are_no_cpus_are_named_and_left_out() {
    let mut cpus: Vec<_> = (0..4).map(psci).collect();
    cpus[1].status = Some("fail");
    cpus[2].reg = None;
    cpus[3].reg = Some(1 << 31);
    cpus.push(psci(0));
    cpus.push(psci(3));
    cpus.push(Node { method: Some(Method::SpinTable(None)), ..psci(0x101) });
    cpus.push(Node { method: Some(Method::SpinTable(Some(RAM + 0x1000_0000))), ..psci(0x102) });
    cpus.push(Node { method: None, ..psci(0x103) });
    let outcome = Tree::virt(cpus).boot_virt("", "cpus; verify");
    // The boot CPU, 3, and two that have an affinity but can't be started.
    expect_cpus(&outcome, 2, 4);
    expect_warning(&outcome, &["cpu@1", "fail", "never started"]);
    expect_warning(&outcome, &["cpu@2", "no reg"]);
    expect_warning(&outcome, &["cpu@3", "0x80000000", "not an MPIDR_EL1 affinity"]);
    expect_warning(&outcome, &["cpu@4", "an earlier node has reg 0x0"]);
    expect_warning(&outcome, &["cpu@6", "cpu-release-addr"]);
    expect_warning(&outcome, &["CPU 0x102", "cpu-release-addr 0x50000000", "does not reserve"]);
    expect_warning(&outcome, &["CPU 3", "names no way to start it"]);
}

#[test]
fn more_cpus_than_there_is_room_for_are_left_out() {
    let outcome = Tree::virt((0..300).map(|n| psci(((n & 0xff) << 32) | (n % 251))).collect()).boot(
        "--memory 1G --cpus 1",
        "linmap.cpus=1",
        "cpus",
    );
    outcome.expect_success();
    assert_eq!(outcome.phase("cpus")["present"], 256, "{}", outcome.console);
    expect_warning(&outcome, &["44 CPUs", "cpu@100", "cpu@12b", "the kernel supports 256 CPUs"]);
    let warnings = outcome.records.iter().filter(|record| record.contains_key("warning"));
    assert_eq!(warnings.count(), 1, "{}", outcome.console);
}

#[test]
fn a_boot_cpu_that_the_tree_does_not_know_runs_all_the_same() {
    let outcome = Tree::virt(vec![psci(1), psci(2), psci(3)]).boot_virt("", "cpus");
    expect_cpus(&outcome, 4, 4);
    expect_warning(&outcome, &["0x0", "boot CPU"]);
    let outcome = Tree::virt(Vec::new()).boot_virt("", "cpus");
    expect_cpus(&outcome, 1, 1);
}

#[test]
fn without_an_interrupt_controller_that_is_known_the_other_cpus_stay_off() {
    let unaligned = Gic::v2(0x0800_0800, 0x0801_0000);
    let in_memory = Gic::v2(RAM + 0x200_0000, 0x0801_0000);
    for (gic, says) in [
        (Gic::None, "no GICv2"),
        (Gic::Unknown, "no GICv2"),
        (unaligned, "whole pages"),
        (in_memory, "0x42000000..0x42001000 lie in what the device tree calls memory"),
    ] {
        let tree = Tree { gic, ..Tree::virt((0..4).map(psci).collect()) };
        let outcome = tree.boot_virt("", "cpus");
        expect_cpus(&outcome, 1, 4);
        expect_warning(&outcome, &["3 CPUs stay off", says]);
    }
}

#[test]
fn psci_that_can_not_be_called_starts_nobody() {
    let mut tree = Tree::virt((0..2).map(psci).collect());
    tree.psci = None;
    let outcome = tree.boot("--memory 1G --cpus 2", "", "cpus");
    expect_cpus(&outcome, 1, 2);
    expect_warning(&outcome, &["CPU 1", "started by PSCI"]);
    // An HVC from EL2 would come back to ourselves.
    tree.psci = Some("hvc");
    let outcome = tree.boot("--memory 1G --cpus 2 --el 2", "", "cpus");
    expect_cpus(&outcome, 1, 2);
    expect_warning(&outcome, &["CPU 1", "started by PSCI"]);
}
