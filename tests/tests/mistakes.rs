//! Mistakes that other kernels made, as `examples/mistakes` has them: the recorder sees each, names
//! its function, and has nothing against the same edit done right.

use linmap_tests::example;

/// The edit `name` under the recorder, on CPUs of this type.
fn recorded(cpu: &str, name: &str) -> (Option<i32>, String) {
    example("mistakes", &format!("--record --cpu {cpu} --append {name}"))
}

#[track_caller]
fn is_legal(cpu: &str, name: &str) {
    let (code, said) = recorded(cpu, name);
    assert_eq!(code, Some(0), "{cpu}, {name}: {said}");
    assert!(said.contains("the guest: legal"), "{said}");
    assert!(said.contains(": done, 4 CPUs\n"), "{said}");
    assert!(said.contains(" 0 stores missed"), "{said}");
}

#[track_caller]
fn breaks(cpu: &str, name: &str, rule: &str) {
    let (code, said) = recorded(cpu, name);
    assert_eq!(code, Some(1), "{cpu}, {name}: {said}");
    assert!(said.contains("the guest: illegal: 1 mistake"), "{said}");
    let function = name.split(',').next().unwrap_or(name);
    let is_named = |line: &str| line.contains(&format!("::{function}+")) && line.contains(rule);
    assert!(said.lines().any(is_named), "{said}");
    // The guest itself noticed nothing.
    assert!(said.contains(": done, 4 CPUs\n"), "{said}");
    assert!(said.contains(" 0 stores missed"), "{said}");
}

#[test]
fn a_local_tlbi_leaves_the_page_in_the_tlbs_of_three_cpus() {
    is_legal("cortex-a72", "remap");
    breaks("cortex-a72", "remap_by_local_tlbi", "output-address");
}

#[test]
fn an_operand_shifted_by_the_granule_names_another_page() {
    is_legal("cortex-a72", "remap,64k");
    is_legal("cortex-a72", "remap_by_shifted_operand");
    breaks("cortex-a72", "remap_by_shifted_operand,64k", "output-address");
}

#[test]
fn a_ttl_of_another_level_invalidates_nothing() {
    is_legal("max", "remap_by_level");
    breaks("max", "remap_by_wrong_level", "output-address");
}

#[test]
fn a_split_of_the_block_under_the_stack_unmaps_it_for_exceptions() {
    is_legal("cortex-a72", "split_another_block");
    breaks("cortex-a72", "split_own_stack", "may-fault");
}

#[test]
fn the_frame_of_a_table_is_used_again_before_a_dsb_has_completed_its_invalidation() {
    is_legal("cortex-a72", "reuse_table");
    breaks("cortex-a72", "reuse_table_before_dsb", "address-size");
}

#[test]
fn a_table_is_linked_before_what_cleared_or_copied_it_is_ordered() {
    for (cpu, name) in [
        ("cortex-a72", "publish_zeroed"),
        ("max", "publish_set"),
        ("max", "publish_copied"),
        ("cortex-a72", "publish_zeroed_bytes"),
    ] {
        is_legal(cpu, name);
        breaks(cpu, &format!("{name}_before_dsb"), "output-address");
    }
}

#[test]
fn a_plain_store_loses_that_another_cpu_wrote_to_the_page() {
    is_legal("max", "clean_by_exclusives,updates");
    is_legal("max", "clean_by_cas,updates");
    breaks("max", "clean_by_store,updates", "lost-update");
}
