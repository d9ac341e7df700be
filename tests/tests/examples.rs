//! The programs in `examples/`, each booted as a reader would.

use linmap_tests::example;

#[test]
fn a_first_map_works_at_every_exception_level_and_its_text_can_not_be_written() {
    for (cpu, level, regime) in [
        ("max", 1, "EL1&0"),
        ("max", 2, "EL2"),
        ("max", 3, "EL3"),
        ("neoverse-n1", 2, "EL2"),
        ("cortex-a72", 1, "EL1&0"),
        ("cortex-a72", 3, "EL3"),
    ] {
        let (code, console) = example("first-map", &format!("--cpu {cpu} --el {level}"));
        assert_eq!(code, Some(0), "{cpu}, EL{level}: {console}");
        assert!(console.contains(&format!("the MMU is on in the regime {regime}\n")), "{console}");
        assert!(console.contains("a store to text faults\n"), "{console}");
    }
}
