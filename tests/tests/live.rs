//! Changes of the linear map on a running machine: one CPU changes it while three others read,
//! write, checksum and execute.

use linmap_model::{Event, Legal};
use linmap_tests::{Boot, Outcome, is_soak, soak_or_first};

/// CPUs of BBM level 3 by the list of those that raise no conflict aborts, and of what level the
/// command line says.
const LEVEL_3: &str = "--cpu max,midr=0x410fd842";

fn script(options: &str, append: &str, commands: &str) -> Outcome {
    Boot::new(options).with("--append", append).with("--script", commands).run()
}

fn number(outcome: &Outcome, key: &str, of: &str) -> u64 {
    let record = outcome.with(key).unwrap_or_else(|| panic!("no {key}: {}", outcome.console));
    record[of].as_u64().unwrap_or_else(|| panic!("{of} is not a number in {record:?}"))
}

/// The records of changes, in order.
fn changes(outcome: &Outcome) -> Vec<&serde_json::Map<String, serde_json::Value>> {
    outcome.expect_success().records.iter().filter(|record| record.contains_key("change")).collect()
}

/// The calls of a stress run.
fn calls() -> u64 {
    if is_soak() { 10_000 } else { 300 }
}

/// A stress run, traced, and the model's verdict on all that it did to the tables.
fn stress(level: &str) -> Outcome {
    let calls = calls();
    let options = format!("--cpus 4 --memory 4G {LEVEL_3} --timeout 900");
    let outcome =
        script(&options, &format!("{level} linmap.trace=1"), &format!("stress {calls} 0x1a7; verify"));
    outcome.expect_success();
    assert_eq!(number(&outcome, "workers", "calls"), calls);
    assert_eq!(number(&outcome, "workers", "workers"), 3);
    assert!(number(&outcome, "workers", "faults") > calls / 10, "many accesses met the protections");
    // Every call succeeds, except those that would make memory writable and executable.
    assert_eq!(number(&outcome, "workers", "too_long"), 0);
    assert!(number(&outcome, "workers", "refused") < calls * 15 / 100);
    let trace = outcome.expect_legal_trace();
    assert!(trace.events.len() as u64 > calls * 5, "{} events", trace.events.len());
    outcome
}

#[test]
fn random_changes_at_level_3_disturb_nobody_and_are_legal() {
    let outcome = stress("linmap.bbm=3");
    // Only calls that rewrite nG park.
    assert!((calls() / 10_000..calls() / 100).contains(&number(&outcome, "workers", "parked")));
}

#[test]
fn random_changes_at_levels_0_1_and_2_disturb_nobody_and_are_legal() {
    for level in ["linmap.bbm=0", "linmap.bbm=1", "linmap.bbm=2"] {
        let outcome = stress(level);
        assert!(number(&outcome, "workers", "parked") > calls() / 10, "{level}: splits and folds are parked");
    }
}

#[test]
fn a_change_without_its_invalidation_is_refused_by_the_model() {
    let outcome = script(
        &format!("--cpus 2 {LEVEL_3}"),
        "linmap.trace=1",
        "reserve 0x80000000 2M; protect ro 0x80000000 4K",
    );
    let whole = outcome.expect_success().trace();
    assert!(matches!(whole.check(), Ok(Ok(Legal::Settled { .. }))));
    let tlbis = |event: &Event| matches!(event, Event::Tlbi { .. });
    let last = whole.events.iter().rposition(tlbis).expect("an invalidation");
    let mut less = whole.clone();
    less.events.remove(last);
    assert!(less.check().unwrap().is_err(), "the last {:?} is needed", whole.events[last]);
}

#[test]
fn a_page_is_made_read_only_in_one_rendezvous_on_a_cpu_of_level_0() {
    let outcome = script(
        "--cpus 4 --cpu neoverse-n1",
        "linmap.leaf=auto",
        "map; reserve 0x80000000 2M; protect ro 0x80000000 4K; protect rw 0x80000000 4K; fold 0x80000000 1G; \
         verify",
    );
    let all = changes(&outcome);
    assert_eq!(outcome.phase("linear-map")["leaf"], "block");
    let parked: Vec<_> = all.iter().map(|change| change["parked"].as_u64().unwrap()).collect();
    assert_eq!(parked, [1, 0, 1], "{all:?}");
}

#[test]
fn the_map_goes_to_pages_when_a_secondary_cpu_lacks_level_3() {
    let outcome =
        script(&format!("--cpus 4 --memory 64G {LEVEL_3}"), "linmap.bbm.cpu2=0", "map; dump; verify");
    outcome.expect_success();
    let repaint = outcome.phase("repaint");
    assert_eq!(repaint["parked"], 1, "one rendezvous: {repaint:?}");
    assert_eq!(repaint["tlbi"], 1, "one invalidation: {repaint:?}");
    assert_eq!(number(&outcome, "map", "blocks"), 0, "{}", outcome.console);
}

#[test]
fn a_repaint_takes_few_instructions_for_an_entry_and_stands_still_for_none_of_them() {
    // On CPUs of type max a tick is an instruction under --icount, whichever CPU executes it. The
    // ticks of waiting for the others are reported separately.
    let outcome =
        script(&format!("--icount --cpus 2 --memory 64G {LEVEL_3}"), "linmap.bbm.cpu1=0", "map; verify");
    outcome.expect_success();
    let [ticks, paused, rendezvous] =
        ["ticks", "paused", "rendezvous"].map(|key| outcome.phase("repaint")[key].as_u64().unwrap());
    let pages = number(&outcome, "map", "pages");
    assert_eq!(pages << 12, outcome.linear_map("bytes"), "all of the map");
    assert!((ticks - rendezvous) * 10 <= pages * 25, "{ticks} instructions, {rendezvous} of them waited");
    assert!(
        paused - rendezvous < 12_000,
        "stood still for {paused} instructions, {rendezvous} of them waited"
    );
}

#[test]
fn blocks_are_kept_where_the_command_line_says_so() {
    let outcome = script(
        &format!("--cpus 4 {LEVEL_3}"),
        "linmap.bbm.cpu2=0 linmap.repaint=keep-blocks",
        "map; reserve 0x80000000 2M; protect ro 0x80000000 4K; verify",
    );
    assert_eq!(changes(&outcome)[0]["parked"], 1);
    assert!(number(&outcome, "map", "blocks") > 0);
}

/// The maps that the command `map` found, in order.
fn maps(outcome: &Outcome) -> Vec<&serde_json::Map<String, serde_json::Value>> {
    outcome.records.iter().filter(|record| record.contains_key("map")).collect()
}

/// What each `dump` printed: ranges and their permissions.
fn dumps(outcome: &Outcome) -> Vec<Vec<&str>> {
    let sections = outcome.console.split("linmap> dump").skip(1);
    let dumps: Vec<Vec<&str>> = sections
        .map(|section| section.lines().skip(1).take_while(|line| !line.starts_with("linmap")).collect())
        .collect();
    assert!(dumps.iter().all(|dump| dump.len() > 3), "{dumps:?}");
    dumps
}

#[test]
fn what_cannot_be_changed_is_refused_and_the_map_stays() {
    // Each refusal, and what it has to say.
    let refused = [
        ("protect ro 0x80000800 4K", "whole pages"),
        ("protect ro 0x80000000 0", "whole pages"),
        ("protect ro 0x80000000 0xfffffffffffff000", "beyond the last address"),
        ("protect ro 0x8000000000000 4K", "linear region"),
        ("protect ro 0x200000000 4K", "is not memory"),
        ("protect ro 0x90000000 4K", "not reserved by you"),
        ("protect x 0x80000000 4K", "text"),
        ("protect ro 0x40200000 4K", "kernel image"),
        ("protect ro 0x401ff000 8K", "kernel image"),
        ("text 0x40200000 4K", "kernel image"),
        ("text 0x200000000 4K", "is not memory"),
        ("protect rw 0x80100000 4K", "writable and executable"),
        ("memory add 0x80000000 2M", "which is present"),
        ("memory add 0x200000000 2M", "device tree"),
        ("memory add 0x80000800 2M", "whole pages"),
        ("memory remove 0x40200000 2M", "in use"),
        ("memory remove 0x200000000 2M", "is not memory"),
        ("memory remove 0x90000001 2M", "whole pages"),
        ("split 1 0x80000000 2M", "usage"),
        ("split 3 0x200000000 2M", "is not memory"),
        ("ng maybe", "usage"),
        ("reserve 0x40200000 4K", "in use"),
        ("free 0x80000000 4K", "not reserved by you"),
        ("mask 9 1", "CPU 9"),
        ("stress", "usage"),
        ("map", "refused"),
    ];
    let lines: Vec<_> =
        refused[..refused.len() - 1].iter().map(|(command, _)| format!("! {command}")).collect();
    let commands = format!(
        "reserve 0x80000000 2M; text 0x80100000 4K; map; dump; {}; map; dump; verify",
        lines.join("; ")
    );
    let outcome = script("--memory 4G", "", &commands);
    outcome.expect_success();
    for (command, says) in &refused[..refused.len() - 1] {
        let record =
            outcome.records.iter().find(|record| record.get("refused").is_some_and(|it| it == command));
        let what = record.unwrap_or_else(|| panic!("{command} was not refused"))["what"].as_str().unwrap();
        assert!(what.contains(says), "{command}: {what:?} does not say {says:?}");
    }
    let maps = maps(&outcome);
    assert_eq!(maps[0], maps[1], "no refusal changed anything");
    assert_eq!(dumps(&outcome)[0], dumps(&outcome)[1], "nor any permission");
    // What should have been refused and was not ends the script.
    let outcome = script("", "", "! map");
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.console.contains("should have been refused"));
}

#[test]
fn memory_that_the_map_protects_is_refused_where_it_would_be_read_or_written() {
    let outcome = script(
        "--memory 4G",
        "",
        "map; reserve 0x80000000 2M; protect ro 0x80001000 4K; text 0x80002000 4K; \
         !fill 0x80000000 2M 1; !fill 0x80001000 4K 1; !fill 0x80002000 4K 1; digest 0x80000000 2M; verify; \
         preserve 0x80000000 2M protected; verify; !protect rw 0x80001000 4K; release protected; verify; \
         protect invalid 0x80003000 4K; fill 0x80000000 4K 1; \
         !fill 0x80003000 4K 1; !fill 0x80000000 0 1; !fill 0x80000000 12 1; !digest 0x80000000 2M; \
         !digest 0x80003000 0; \
         !preserve 0x80000000 2M invalid; !release invalid; verify; poke 0x80003000 1; \
         free 0x80000000 2M; fold 0x80000000 1G; map; verify; reserve 0x80000000 2M; fill 0x80000000 2M 1",
    );
    outcome.expect_success();
    let says = [
        ("fill 0x80000000 2M 1", "0x80001000 can't be written to"),
        ("fill 0x80001000 4K 1", "0x80001000 can't be written to"),
        ("fill 0x80002000 4K 1", "0x80002000 can't be written to"),
        ("protect rw 0x80001000 4K", "not reserved by you"),
        ("fill 0x80003000 4K 1", "0x80003000 can't be written to"),
        ("fill 0x80000000 0 1", "whole pages"),
        ("fill 0x80000000 12 1", "whole pages"),
        ("digest 0x80000000 2M", "0x80003000 can't be read"),
        ("digest 0x80003000 0", "whole pages"),
        ("preserve 0x80000000 2M invalid", "0x80003000 can't be read"),
        ("release invalid", "nothing is preserved"),
    ];
    let refused: Vec<_> = outcome.records.iter().filter(|record| record.contains_key("refused")).collect();
    assert_eq!(refused.len(), says.len(), "{refused:?}");
    for (record, (command, says)) in refused.iter().zip(says) {
        assert_eq!(record["refused"], command);
        let what = record["what"].as_str().unwrap();
        assert!(what.contains(says), "{command}: {what:?} does not say {says:?}");
    }
    let maps = maps(&outcome);
    assert_eq!(maps[0], maps[1]);
}

#[test]
fn memory_is_given_back_as_a_whole_or_not_at_all() {
    // The run of read-only pages changes only while all CPUs are parked; the invalid page changes
    // in use too.
    let outcome = script(
        "--cpus 3 --cpu neoverse-n1 --timeout 120",
        "",
        "reserve 0x80000000 2M; protect ro 0x80000000 64K; fold 0x80000000 64K; \
         protect invalid 0x80010000 4K; \
         map; mask 2 9000; !free 0x80000000 2M; map; verify; mask 1 0; free 0x80000000 2M; verify",
    );
    outcome.expect_success();
    let refused = outcome.with("refused").expect("a refusal")["what"].as_str().unwrap();
    assert!(refused.contains("CPU 2 did not park"), "{refused}");
    let maps = maps(&outcome);
    assert_eq!(maps[0], maps[1]);
}

#[test]
fn a_cpu_that_does_not_park_is_named_and_nothing_changes() {
    let outcome = script(
        "--cpus 3 --cpu neoverse-n1 --timeout 120",
        "",
        "reserve 0x80000000 2M; map; dump; mask 2 9000; ! protect ro 0x80000000 4K; map; dump; verify; \
         mask 1 0; \
         protect ro 0x80000000 4K; verify; cpus",
    );
    outcome.expect_success();
    let refused = outcome.with("refused").expect("a refusal")["what"].as_str().unwrap();
    assert!(refused.contains("CPU 2 did not park"), "{refused}");
    let maps = maps(&outcome);
    assert_eq!(maps[0], maps[1]);
    assert_eq!(dumps(&outcome)[0], dumps(&outcome)[1]);
    let change = outcome.with("change").expect("the second try");
    assert_eq!(change["parked"], 1, "the CPU parks when it can again");
}

#[test]
fn memory_disappears_and_comes_back() {
    for level in ["linmap.bbm=0", "linmap.bbm=3"] {
        let outcome = script(
            &format!("--cpus 2 --memory 4G {LEVEL_3}"),
            level,
            "map; memory remove 0x80201000 4K; verify; memory remove 0xc0000000 512M; verify; \
             memory add 0x80201000 4K; memory add 0xc0000000 512M; fold 0x80000000 2G; verify; map",
        );
        outcome.expect_success();
        let maps = maps(&outcome);
        assert_eq!(maps[0], maps[1], "{level}: {}", outcome.console);
    }
}

#[test]
fn small_changes_cost_no_more_instructions_than_they_may() {
    // On CPUs of type max a tick is an instruction under --icount. docs/figures.md has the cost of
    // each change.
    let costs = [
        ("protect ro 0x80000000 4K", "ro 0x80000000..0x80001000", 5_430),
        ("split 3 0x80200000 4K", "0x80200000..0x80201000 to level 3", 2_263),
        ("protect ro 0x80205000 4K", "ro 0x80205000..0x80206000", 897),
        ("protect rw 0x80205000 4K", "rw 0x80205000..0x80206000", 908),
        ("protect ro 0x80405000 4K", "ro 0x80405000..0x80406000", 2_857),
        ("split 3 0x80601000 4K", "0x80601000..0x80602000 to level 3", 2_263),
        ("fold 0x80600000 2M", "0x80600000..0x80800000", 3_019),
        // To and fro: no split, no scan and no fold after the first time.
        ("protect rw 0x80405000 4K", "rw 0x80405000..0x80406000", 1_500),
        ("protect ro 0x80405000 4K", "ro 0x80405000..0x80406000", 1_500),
        // Runs of pages: less than 60 an entry, and 47 and 49 where nearly all of a table is split
        // and folded.
        ("protect ro 0x80403000 1M", "ro 0x80403000..0x80503000", 60 * 272),
        ("split 3 0x80a00000 4K", "0x80a00000..0x80a01000 to level 3", 2_600),
        ("split 3 0x80a00000 2M", "0x80a00000..0x80c00000 to level 3", 23_423),
        ("fold 0x80a01000 2040K", "0x80a01000..0x80bff000", 23_505),
    ];
    let commands: Vec<_> = costs.iter().map(|(command, ..)| *command).collect();
    let commands = format!("reserve 0x80000000 64M; {}", commands.join("; "));
    let outcome = script(&format!("--icount --memory 4G {LEVEL_3}"), "linmap.kaslr=off", &commands);
    for ((_, what, most), change) in costs.iter().zip(changes(&outcome)) {
        assert_eq!(change["what"], *what);
        assert_eq!(change["parked"], 0);
        let cost = change["ticks"].as_u64().unwrap();
        assert!(cost <= *most, "{what}: {cost} instructions, at most {most} are allowed");
    }
}

#[test]
fn a_parked_change_costs_no_more_instructions_than_it_may() {
    let commands = "reserve 0x80000000 64M; protect ro 0x80000000 4K; protect ro 0x80405000 4K";
    let options = format!("--icount --memory 4G {LEVEL_3}");
    let outcome = script(&options, "linmap.bbm=0 linmap.kaslr=off", commands);
    let changes = changes(&outcome);
    // The first one allocates the surgery root too.
    let change = changes.last().expect("two changes");
    assert_eq!((&change["parked"], &change["entries"]), (&1.into(), &2.into()));
    assert!(change["ticks"].as_u64() <= Some(4_620), "{change:?}");
    assert!(change["paused"].as_u64() <= Some(555), "{change:?}");
}

#[test]
fn changes_disturb_nobody_at_any_exception_level_and_with_any_interrupt_controller() {
    let machines = [
        "--cpus 4 --gic 3 --cpu neoverse-n1",
        "--cpus 4 --gic 2 --el 2 --cpu cortex-a72",
        "--cpus 4 --gic 3 --el 2 --cpu max,midr=0x410fd842",
        "--machine xlnx-versal-virt",
    ];
    let calls = if is_soak() { 300 } else { 60 };
    for machine in soak_or_first(2, &machines) {
        let options = format!("{machine} --timeout 300");
        let outcome = script(&options, "linmap.bbm=0", &format!("stress {calls} 7; verify"));
        outcome.expect_success();
        assert!(number(&outcome, "workers", "parked") > calls / 6, "{machine}");
    }
}

#[test]
fn linux_boots_on_all_cpus_after_the_map_was_changed() {
    let commands = "ng on; reserve 0x80000000 2M; protect invalid 0x80000000 4K; \
                    memory remove 0x90000000 4K; stress 30 3; kexec";
    for level in soak_or_first(1, &["linmap.bbm=0", "linmap.bbm=3"]) {
        let options = format!("--cpus 4 {LEVEL_3} --payload linux --timeout 300");
        let outcome = script(&options, level, commands);
        outcome.expect_success();
        assert!(outcome.console.contains("Brought up 1 node, 4 CPUs"), "{level}: {}", outcome.console);
    }
}

#[test]
fn memory_that_is_kept_in_pages_is_never_folded_and_changes_in_use_at_every_level() {
    for level in ["linmap.bbm=0", "linmap.bbm=3"] {
        let outcome = script(
            "--cpus 2 --cpu max,midr=0x410fd842",
            &format!("{level} linmap.pages=1M@0x80080000"),
            "verify; pages keep 0xa0000000 4M; fold 0x80000000 1G; verify; reserve 0x80000000 2M; \
             protect invalid 0x80090000 4K; protect valid 0x80090000 4K; verify; \
             memory remove 0xa0100000 1M; memory add 0xa0100000 1M; verify; map; \
             pages release 0x80000000 1G; fold 0x80000000 1G; verify; map",
        );
        outcome.expect_success();
        let changes = changes(&outcome);
        let protects = changes.iter().filter(|change| change["change"] == "protect");
        assert!(protects.clone().all(|change| change["parked"] == 0 && change["entries"] == 1), "{level}");
        assert_eq!(protects.count(), 2);
        let maps = maps(&outcome);
        assert!(maps[0] != maps[1], "{level}: all is folded at last");
    }
}

#[test]
fn memory_has_tags_where_the_cpus_have_them_and_is_asked_to() {
    let commands = "verify; dump; reserve 0x80000000 2M; protect ro 0x80001000 4K; free 0x80000000 2M; \
                    memory remove 0xa0000000 2M; memory add 0xa0000000 2M; fold 0x80000000 1G; verify; dump";
    for (options, tagged) in [("--cpus 2 --mte", true), ("--cpus 2", false)] {
        let outcome = script(options, "linmap.mte=on linmap.kaslr=off", commands);
        outcome.expect_success();
        for dump in dumps(&outcome) {
            let memory = dump.iter().filter(|line| line.starts_with("0xffff0"));
            assert!(memory.clone().count() > 0, "{dump:?}");
            assert!(memory.clone().all(|line| line.contains("MEM/NORMAL-TAGGED") == tagged), "{dump:?}");
        }
        let warned = outcome.records.iter().any(|record| record.get("warning") == Some(&"mte".into()));
        assert_eq!(warned, !tagged, "{options}");
    }
    Boot::new("--cpus 2 --mte --append linmap.mte=on").until_linux_starts().run().expect_linux();
}

#[test]
fn memory_below_tables_that_take_execution_away_never_becomes_text() {
    let commands = "verify; reserve 0x50000000 16M; protect ro 0x50000000 4K; !text 0x50000000 4K; verify; \
                    fold 0x50000000 16M; split 3 0x50200000 4K; memory remove 0x7c000000 16M; \
                    memory add 0x7c000000 16M; verify; stress 60 0x1a7; verify; dump";
    for (cpu, builder) in [(LEVEL_3, "identity"), ("--cpu neoverse-n1", "lazy-unmap")] {
        let append = format!("linmap.tables=nx linmap.build={builder} linmap.trace=1");
        let outcome = script(&format!("--payload none --memory 1G {cpu}"), &append, commands);
        let console = &outcome.expect_success().console;
        let refused = outcome.with("refused").expect("the refusal");
        let what = refused["what"].as_str().expect("a reason");
        assert!(what.contains("take away: PXN,UXN (D8.4.1.2.5)"), "{what}");
        let runs: Vec<_> = console.lines().filter(|line| line.contains(" ISH G ")).collect();
        let (linear, image): (Vec<&str>, Vec<&str>) =
            runs.iter().partition(|line| line.contains("(tables: PXN,UXN)"));
        assert!(!linear.is_empty() && linear.iter().all(|line| line.contains(" NX ")), "{console}");
        assert!(image.iter().any(|line| line.contains(" x ")), "the image is executed: {console}");
        outcome.expect_legal_trace();
    }
}
