//! The linear map, proven in place by the kernel's own `verify` on machines of many kinds.

use linmap_tests::{Boot, RAM, Tree};

#[track_caller]
fn verify(options: &str) {
    let outcome = Boot::new(options).with("--script", "verify").run();
    let verified = outcome.expect_success().with("verify").unwrap_or_else(|| panic!("{}", outcome.console));
    assert_eq!(verified["verify"], "ok");
    assert!(verified["mapped"].as_u64() > Some(1000), "{verified:?}");
    assert!(verified["faults"].as_u64() > Some(20), "{verified:?}");
}

#[test]
fn the_map_is_right_for_every_size_of_memory_cpu_and_exception_level() {
    for cpu in ["max", "neoverse-n1", "cortex-a72"] {
        for el in [1, 2] {
            for memory in ["128M", "1G", "4G", "16G", "64G"] {
                verify(&format!("--memory {memory} --cpu {cpu} --el {el} --append linmap.leaf=page"));
            }
            verify(&format!("--memory 4T --cpu {cpu} --el {el} --append linmap.leaf=block"));
        }
    }
}

#[test]
fn the_map_of_512_gib_in_pages_is_right() {
    verify("--memory 512G --el 1 --append linmap.leaf=page");
    verify("--memory 512G --el 2 --append linmap.leaf=page");
}

#[test]
fn the_map_is_right_where_ram_begins_at_0_and_has_a_hole() {
    let outcome = Boot::new("--machine xlnx-versal-virt --memory 8G").with("--script", "mem; verify").run();
    let verified = outcome.expect_success().with("verify").expect("a verdict");
    assert_eq!(verified["verify"], "ok");
    assert_eq!(verified["ranges"], 2);
    assert!(outcome.console.contains("0x0..0x80000000"), "{}", outcome.console);
}

#[test]
fn every_builder_makes_a_right_map_of_blocks_and_of_pages() {
    for builder in ["base", "no-cont-remap", "batch-barriers", "no-alloc-remap", "lazy-unmap", "identity"] {
        for leaf in ["block", "page"] {
            let append = format!("linmap.build={builder} linmap.leaf={leaf}");
            let outcome =
                Boot::new("--memory 1G").with("--append", append).with("--script", "verify; dump").run();
            outcome.expect_success();
            assert_eq!(outcome.phase("linear-map")["build"], builder);
            assert_eq!(outcome.phase("linear-map")["leaf"], leaf);
            assert_eq!(outcome.with("dump").expect("a dump")["wx"], 0);
        }
    }
}

#[test]
fn blocks_are_chosen_unasked_on_every_cpu() {
    for cpu in ["max", "neoverse-n1", "max,midr=0x410fd842"] {
        let outcome = Boot::new("--memory 1G --payload none").with("--cpu", cpu).run();
        assert_eq!(outcome.expect_success().phase("linear-map")["leaf"], "block", "{cpu}");
    }
}

#[test]
fn discrete_unaligned_memory_with_no_map_ranges_is_mapped_exactly() {
    // On 4 GiB of RAM: a single page, an odd region, and the rest with two holes that the firmware
    // reserves.
    let tree = Tree {
        memory: vec![(RAM, 0x1000), (RAM + 0x5000, 0x12_3000), (RAM + 0x20_0000, 0xbfe0_0000)],
        reserved: vec![(RAM + 0x1000_0000, 0x10_0000)],
        no_map: vec![(RAM + 0x3000_1000, 0x3000), (RAM + 0x8000_0000, 0x4000_0000)],
        ..Tree::default()
    };
    for leaf in ["block", "page"] {
        for builder in ["identity", "base", "lazy-unmap"] {
            let file = tree.file();
            let outcome = Boot::new("--memory 4G")
                .with("--dtb", file.path())
                .with("--append", format!("linmap.leaf={leaf} linmap.build={builder}"))
                .with("--script", "mem; verify; dump")
                .run();
            let verified = outcome.expect_success().with("verify").expect("a verdict");
            assert_eq!(verified["verify"], "ok");
            // The second no-map range is the end of memory, so it makes no hole of its own.
            assert_eq!(verified["ranges"], 4, "{}", outcome.console);
            let memory: u64 = 0x1000 + 0x12_3000 + 0xbfe0_0000 - 0x3000 - 0x4000_0000;
            // All but the image's data, which `verify` has compared page by page.
            let data = memory - outcome.linear_map("bytes");
            assert!(data.is_multiple_of(0x1000) && (0x1000..0x40_0000).contains(&data), "{data:#x}");
        }
    }
}

#[test]
fn all_builders_make_the_same_map_of_memory_that_begins_and_ends_within_blocks() {
    let tree = Tree {
        memory: vec![(RAM, 0x400_0000), (RAM + 0x7d0_0000, 0x220_0000), (RAM + 0x2345_6000, 0x5000_3000)],
        no_map: vec![(RAM + 0x4bcd_e000, 0x1000)],
        ..Tree::default()
    };
    let file = tree.file();
    let map = |builder: &str| {
        let outcome = Boot::new("--memory 4G")
            .with("--dtb", file.path())
            .with("--append", format!("linmap.leaf=block linmap.build={builder}"))
            .with("--script", "verify; dump")
            .run();
        let verified = outcome.expect_success().with("verify").expect("a verdict").clone();
        assert_eq!(verified["verify"], "ok");
        outcome
            .console
            .lines()
            .filter(|line| line.starts_with("0xffff0"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let identity = map("identity");
    assert!(identity.iter().any(|line| line.contains("CON")), "{identity:#?}");
    for builder in ["base", "no-cont-remap", "batch-barriers", "no-alloc-remap", "lazy-unmap"] {
        assert_eq!(map(builder), identity, "{builder}");
    }
}

#[test]
fn a_script_ends_at_its_first_failure_with_exit_code_1() {
    let outcome = Boot::new("--memory 1G").with("--script", "mem; translate; verify").run();
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.with("script").expect("a verdict")["command"], "translate");
    assert!(outcome.with("verify").is_none(), "nothing runs after the failure");
}
