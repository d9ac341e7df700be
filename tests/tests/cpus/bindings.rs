//! What device trees of boards say of CPUs, PSCI and interrupt controllers.

use linmap_tests::{Boot, is_soak};

use crate::expect::{expect_cpus, expect_warning};
use crate::tree::{Gic, Node, PsciNode, Tree, psci};

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
    let tree = Tree { psci_node: PsciNode::InFirmware, ..Tree::virt((0..2).map(psci).collect()) };
    let outcome = tree.boot("--memory 1G --cpus 2", "", "cpus; cpu-off 1; cpu-on 1; verify");
    expect_cpus(&outcome, 2, 2);
    // Without PSCI the machine would be stopped by its time limit.
    assert_eq!(outcome.phase("cpus")["method"], "psci");
}

#[test]
fn psci_0_1_starts_cpus_switches_them_off_and_hands_them_over() {
    let tree = || Tree { psci_node: PsciNode::Numbered, ..Tree::virt((0..4).map(psci).collect()) };
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
    let tree = Tree { gic, ..Tree::virt((0..4).map(psci).collect()) };
    expect_cpus(&tree.boot_virt("", "cpus; verify"), 4, 4);
}

#[test]
fn a_disabled_cpu_is_started_by_its_method_and_one_that_failed_is_not() {
    let mut cpus: Vec<_> = (0..4).map(psci).collect();
    cpus[1].status = Some("disabled");
    cpus[2].status = Some("fail-ecc");
    cpus[3] = Node { status: Some("disabled"), method: None, ..psci(3) };
    let outcome = Tree::virt(cpus).boot_virt("", "cpus; verify");
    expect_cpus(&outcome, 2, 2);
    expect_warning(&outcome, &["cpu@2", "fail-ecc", "never started"]);
    expect_warning(&outcome, &["cpu@3", "disabled", "stays off"]);
}
