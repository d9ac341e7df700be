//! What everyday operations cost: docs/guide/costs.md has the counts.

use std::fs;
use std::path::Path;

use linmap_live::{Change, Half, LiveTree, Step};
use linmap_table::Leaves;
use linmap_table::cpu::{Counted, InstructionCounts};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Level};

use crate::live::HostCpu;
use crate::live::machine::{Edit, MIB, Machine, PAGE, in_use};

/// Edits in the order of the table, each of the map that the ones before it left: the name, where,
/// and what.
fn operations() -> [(&'static str, (u64, u64), Edit); 10] {
    let access = |access| Edit::Protect(Change { access: Some(access), ..Change::default() });
    let valid = |valid| Edit::Protect(Change { valid: Some(valid), ..Change::default() });
    let page = (PAGE, PAGE);
    let block = (2 * MIB, 2 * MIB);
    [
        ("map a page", page, Edit::Map(Leaves::Pages)),
        ("make it read-only", page, access(Access::KernelReadOnly)),
        ("make it writable again", page, access(Access::KernelReadWrite)),
        ("make it invalid", page, valid(false)),
        ("make it valid again", page, valid(true)),
        ("unmap it", page, Edit::Unmap),
        ("split a 2M block to pages", block, Edit::Split(Level::L3)),
        ("make its 512 pages read-only", block, access(Access::KernelReadOnly)),
        ("fold them to a block", block, Edit::Fold),
        ("unmap the block", block, Edit::Unmap),
    ]
}

/// The counts of all operations on CPUs of BBM level 3, with invalidation by range or without.
fn counts(has_ranges: bool) -> Vec<(&'static str, InstructionCounts)> {
    let mut machine = Machine::new(BbmLevel::L3);
    if has_ranges {
        let (geometry, root) = (machine.tree.geometry(), machine.tree.root());
        // SAFETY: no CPU walks the tree.
        machine.tree =
            unsafe { LiveTree::new(geometry, root, Half::High, BbmLevel::L3).with_range_invalidation() };
    }
    // A neighbour keeps the table of the page, so that it is a page that is mapped and unmapped.
    machine.edit(in_use(0, PAGE), Edit::Map(Leaves::Pages)).expect("room");
    machine.edit(in_use(2 * MIB, 2 * MIB), Edit::Map(Leaves::Blocks)).expect("room");
    let mut cpu = Counted::<HostCpu>::default();
    let mut counted = |(name, (at, len), edit)| {
        let mut steps = vec![Step::Isb; 4096];
        let before = cpu.counts;
        machine.edit_on(&mut cpu, &mut steps, in_use(at, len), edit);
        let InstructionCounts { tlbi, dsb, isb } = cpu.counts;
        let (tlbi, dsb, isb) = (tlbi - before.tlbi, dsb - before.dsb, isb - before.isb);
        (name, InstructionCounts { tlbi, dsb, isb })
    };
    operations().into_iter().map(&mut counted).collect()
}

#[test]
fn the_guide_has_the_counts_of_everyday_operations() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/costs.md");
    let guide = fs::read_to_string(guide).expect("the guide");
    for ((name, InstructionCounts { tlbi, dsb, isb }), (_, by_range)) in
        counts(false).into_iter().zip(counts(true))
    {
        let by_range = format!("{} / {} / {}", by_range.tlbi, by_range.dsb, by_range.isb);
        let row = format!("| {name} | {tlbi} / {dsb} / {isb} | {by_range} |");
        assert!(guide.contains(&row), "the guide should say: {row}");
    }
}
