//! How `cargo xtask boot` ends: by what the payload, the script or the user did.

use linmap_tests::{Boot, Outcome, PsciEnd, RawBoot, archive, file, tiny_payload};

fn payload(end: PsciEnd) -> Outcome {
    let (kernel, initrd) = (file(&tiny_payload(end)), file(b"its own user space"));
    Boot::new("--memory 512M").with("--kernel", kernel.path()).with("--initrd", initrd.path()).run()
}

#[test]
fn a_payload_with_its_own_user_space_succeeds_by_powering_off_and_fails_by_a_reset() {
    payload(PsciEnd::Off).expect_success();
    let reset = payload(PsciEnd::Reset);
    assert_eq!(reset.code, Some(1), "{}", reset.console);
    assert!(reset.errors.contains("the machine was reset"), "{}", reset.errors);
}

#[test]
fn commands_typed_through_a_pipe_fail_when_the_payload_resets_the_machine() {
    let kernel = file(&tiny_payload(PsciEnd::Reset));
    let outcome = Boot::typed("--memory 512M", "kexec\n").with("--kernel", kernel.path()).run();
    assert_eq!(outcome.code, Some(1), "{}", outcome.console);
    assert!(outcome.errors.contains("the machine was reset"), "{}", outcome.errors);
}

#[test]
fn linux_without_an_init_panics_and_the_panic_is_quoted() {
    let initrd = file(b"not an archive");
    let outcome = Boot::new("--memory 1G").with("--initrd", initrd.path()).run();
    assert_eq!(outcome.code, Some(1), "{}", outcome.console);
    assert!(outcome.errors.contains("the payload panicked: Kernel panic"), "{}", outcome.errors);
}

#[test]
fn a_script_may_end_with_poweroff() {
    let outcome = Boot::new("--memory 512M").with("--script", "mem; poweroff").run();
    assert_eq!(outcome.expect_success().with("script").expect("a verdict")["commands"], 2);
}

#[test]
fn a_script_that_another_boot_loader_passes_names_what_poweroff_left_out() {
    let script = b"mem; poweroff; verify\n; map";
    let console = RawBoot { initrd: &archive(&[("script", script)]), command_line: "" }.run();
    let failed = "linmap: script=failed command=\"poweroff\" what=\"not run: verify; map\"";
    assert!(console.contains(failed), "{console}");
}

#[test]
fn every_command_ends_in_a_line_for_machines_and_says_why_it_is_refused() {
    // Up, left, backspace and Tab on the way.
    let lines = "reserve 0x58000000 4K\n\x1b[A\nver\t\nhelp protect\nxem\x1b[D\x1b[D\x7fm\nnonsense\n";
    let outcome = Boot::typed("--memory 512M --payload none", lines).run();
    let ended: Vec<_> = outcome
        .expect_success()
        .records
        .iter()
        .filter_map(|record| {
            Some((record.contains_key("done"), record.get("done").or(record.get("refused"))?.as_str()?))
        })
        .collect();
    let expected = [
        (true, "reserve 0x58000000 4K"),
        (false, "reserve 0x58000000 4K"),
        (true, "verify"),
        (true, "help protect"),
        (true, "mem"),
        (false, "nonsense"),
        (true, "poweroff"),
    ];
    assert_eq!(ended, expected, "{}", outcome.console);
    for refusal in outcome.records.iter().filter(|record| record.contains_key("refused")) {
        let what = refusal["what"].as_str().expect("a reason");
        assert!(outcome.console.contains(&format!("Refused: {what}.")), "{}", outcome.console);
    }
}
