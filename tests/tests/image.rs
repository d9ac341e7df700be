//! The kernel's own image: its length, and where it lies.

use linmap_tests::{Boot, soak_or_first};

#[test]
fn an_image_of_several_tables_of_pages_runs_and_hands_over() {
    // Each granule is two builds of the kernel, so this is for long runs. With 4K the image takes
    // four tables, and its data lies in another one than its vectors.
    for granule in soak_or_first(0, &["4k", "16k", "64k"]) {
        let options = format!("--granule {granule} --payload self --memory 2G --cpus 4 --cpu max");
        let outcome = Boot::new(&options)
            .with("--append", "linmap.bbm=0")
            .with("--script", "verify; stress 25; verify; kexec load --scattered; kexec exec")
            .with_padding(5 << 20)
            .run();
        outcome.expect_success();
        let verdicts = outcome.records.iter().filter_map(|record| record.get("verify"));
        assert!(verdicts.eq(["ok", "ok"]), "{granule}");
    }
}
