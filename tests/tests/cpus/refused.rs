//! What can't be done with a CPU.

use linmap_tests::Boot;

use crate::expect::shown;

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
    let outcome = Boot::typed("--memory 1G --cpus 4", "cpu-on 3\ncpu-on 3\ncpus\n")
        .with("--append", "linmap.cpus=3 linmap.bbm.cpu3=0")
        .run();
    let refused: Vec<_> = outcome.records.iter().filter(|record| record.contains_key("refused")).collect();
    assert_eq!(refused.len(), 2, "{}", outcome.console);
    for record in refused {
        assert!(record["what"].as_str().unwrap().contains("CPU 3: ID_AA64MMFR2_EL1.BBM"), "{record:?}");
    }
    assert_eq!(shown(&outcome)[3]["state"], "off", "{}", outcome.console);
}
