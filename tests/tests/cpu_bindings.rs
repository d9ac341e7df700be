//! What device trees say of CPUs, PSCI and interrupt controllers, true and false.

use linmap_tests::cpus::{CpuTree, Gic, Method, Node, PsciNode, expect_cpus, expect_warning, psci};
use linmap_tests::{Boot, RAM, is_soak};

#[test]
fn a_word_that_a_cpu_in_no_list_watches_as_well_is_not_written() {
    let mut tree = CpuTree::raspi4b();
    tree.cpus[2].status = Some("fail");
    tree.cpus[3].method = Some(Method::SpinTable(Some(0xe8)));
    let outcome = tree.boot("--machine raspi4b --memory 2G", "", "cpus; verify");
    expect_cpus(&outcome, 2, 3);
    expect_warning(&outcome, &["cpu@2", "fail", "never started"]);
    expect_warning(&outcome, &["CPU 0x3: ", "unusable CPU polls the same cpu-release-addr 0xe8"]);
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
    let outcome = CpuTree::virt(cpus).boot_virt("", "cpus; verify");
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
    let outcome = CpuTree::virt((0..300).map(|n| psci(((n & 0xff) << 32) | (n % 251))).collect()).boot(
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
fn of_300_cpus_the_first_256_come_and_answer_and_the_others_are_never_called() {
    // The boot takes a minute or two: CPUs of the host are shared by 300.
    let rounds = if is_soak() { 3 } else { 1 };
    for _ in 0..rounds {
        let boot = Boot::new("--memory 2G --cpus 300 --timeout 900");
        let outcome = boot.with("--script", "cpus; verify").run();
        expect_cpus(&outcome, 256, 256);
        expect_warning(&outcome, &["44 CPUs", "cpu@256", "cpu@299"]);
    }
    for _ in 0..if is_soak() { 3 } else { 0 } {
        let outcome = Boot::new("--memory 2G --cpus 300 --timeout 1800 --payload self").run();
        outcome.expect_success();
        let phases = outcome.records.iter().filter(|record| record.get("phase").is_some_and(|p| p == "cpus"));
        let online: Vec<_> = phases.map(|phase| phase["online"].clone()).collect();
        assert_eq!(online, [256, 256], "{}", outcome.console);
    }
}

#[test]
fn psci_below_firmware_starts_cpus_and_switches_the_machine_off() {
    let tree = CpuTree { psci_node: PsciNode::InFirmware, ..CpuTree::virt((0..2).map(psci).collect()) };
    let outcome = tree.boot("--memory 1G --cpus 2", "", "cpus; cpu-off 1; cpu-on 1; verify");
    expect_cpus(&outcome, 2, 2);
    // Without PSCI the machine would be stopped by its time limit.
    assert_eq!(outcome.phase("cpus")["method"], "psci");
}

#[test]
fn psci_0_1_starts_cpus_switches_them_off_and_hands_them_over() {
    let tree = || CpuTree { psci_node: PsciNode::Numbered, ..CpuTree::virt((0..4).map(psci).collect()) };
    let outcome = tree().boot_virt("", "cpus; cpu-off 2; cpu-on 2; cpu-off 3; verify");
    expect_cpus(&outcome, 4, 4);
    let outcome = tree().boot("--memory 1G --cpus 4 --payload self", "", "cpus; kexec");
    outcome.expect_success();
    let phases = outcome.records.iter().filter(|record| record.get("phase").is_some_and(|p| p == "cpus"));
    let online: Vec<_> = phases.map(|phase| phase["online"].clone()).collect();
    assert_eq!(online, [4, 4], "{}", outcome.console);
}

#[test]
fn a_gic_of_another_vendor_with_few_bytes_of_registers_interrupts_all_cpus() {
    let gic = Gic::V2 {
        compatible: "qcom,msm-qgic2",
        distributor: 0x0800_0000,
        cpu_interface: 0x0801_0000,
        interface_len: 0x100,
    };
    let tree = CpuTree { gic, ..CpuTree::virt((0..4).map(psci).collect()) };
    expect_cpus(&tree.boot_virt("", "cpus; verify"), 4, 4);
}

#[test]
fn a_disabled_cpu_is_started_by_its_method_and_one_that_failed_is_not() {
    let mut cpus: Vec<_> = (0..4).map(psci).collect();
    cpus[1].status = Some("disabled");
    cpus[2].status = Some("fail-ecc");
    cpus[3] = Node { status: Some("disabled"), method: None, ..psci(3) };
    let outcome = CpuTree::virt(cpus).boot_virt("", "cpus; verify");
    expect_cpus(&outcome, 2, 2);
    expect_warning(&outcome, &["cpu@2", "fail-ecc", "never started"]);
    expect_warning(&outcome, &["cpu@3", "disabled", "stays off"]);
}

#[test]
fn a_boot_cpu_that_the_tree_does_not_know_runs_all_the_same() {
    let outcome = CpuTree::virt(vec![psci(1), psci(2), psci(3)]).boot_virt("", "cpus");
    expect_cpus(&outcome, 4, 4);
    expect_warning(&outcome, &["0x0", "boot CPU"]);
    let outcome = CpuTree::virt(Vec::new()).boot_virt("", "cpus");
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
        let tree = CpuTree { gic, ..CpuTree::virt((0..4).map(psci).collect()) };
        let outcome = tree.boot_virt("", "cpus");
        expect_cpus(&outcome, 1, 4);
        expect_warning(&outcome, &["3 CPUs stay off", says]);
    }
}

#[test]
fn psci_that_can_not_be_called_starts_nobody() {
    let mut tree = CpuTree::virt((0..2).map(psci).collect());
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
