//! Linux's list of pages says what the plan says.

use linmap_tests::ind_list::CarriedOut;
use linmap_tests::{Boot, Outcome, Record, number};

fn run(script: &str) -> Outcome {
    let boot = Boot::new("--memory 512M --cpus 2 --payload linux").with("--script", script);
    let outcome = boot.until_linux_starts().run();
    outcome.expect_linux();
    outcome
}

#[test]
fn a_scattered_payload_s_list_fills_each_page_of_its_segments_and_takes_no_memory_for_good() {
    let outcome =
        run("kexec load --scattered --verify; kexec plan; mem; kexec list; mem; kexec exec --verify");
    let list = CarriedOut::read(&outcome.console);
    let segments: Vec<&Record> = outcome.records.iter().filter(|r| r.contains_key("segment")).collect();
    assert_eq!(segments.len(), 3);
    let (mut all, mut all_zeros) = (0, 0);
    for segment in segments {
        let start = number(segment, "destination");
        let (moved, zero) = (number(segment, "moved"), number(segment, "zero"));
        let (written, zeros) = list.count(start, start + moved + zero);
        assert_eq!((written << 12, zeros << 12), (moved + zero, zero), "{segment:?}");
        (all, all_zeros) = (all + written, all_zeros + zeros);
    }
    assert_eq!(all, list.content.len() as u64, "and nothing else is written");
    assert!(all_zeros != 0 && list.pages.len() > 1);
    let plan =
        outcome.records.iter().find(|r| r.get("kexec").is_some_and(|what| what == "plan")).expect("a plan");
    let (control, frame) = (number(plan, "control"), number(plan, "list"));
    for own in list.pages.iter().chain([&list.zeros]) {
        assert!(*own != frame && !(control..control + 0x2000).contains(own), "{own:#x} is the hand-over's");
        assert!(!list.content.values().any(|source| source == own) || *own == list.zeros, "{own:#x}");
    }
    let lists: Vec<Vec<&str>> = outcome
        .console
        .split("linmap> mem")
        .skip(1)
        .map(|section| section.lines().skip(1).take_while(|line| line.starts_with("  ")).collect())
        .collect();
    assert!(lists.len() == 2 && lists[0].len() > 1 && lists[0] == lists[1], "{lists:?}");
}
