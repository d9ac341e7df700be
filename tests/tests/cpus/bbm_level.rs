//! The BBM level that the kernel relies on.

use linmap_tests::Boot;

use crate::expect::{expect_cpus, shown};

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
