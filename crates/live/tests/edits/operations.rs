//! What everyday operations cost: docs/guide/costs.md has the counts.

use std::fs;
use std::path::Path;

use linmap_live::{AddressSpace, Change, EditCounts, Half, LiveTree, Maintenance, SpaceError, Step, Tools};
use linmap_table::cpu::{Counted, InstructionCounts};
use linmap_table::{Leaves, Mapping, Mappings, OffsetWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Level, MemoryType, Pa, Va, VaRange};

use crate::live::machine::{Edit, G, GIB, MIB, Machine, PAGE, in_use};
use crate::live::{Arena, HostCpu};

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

/// The counts of what happens to a process, by its ASID, at BBM level 0.
fn counts_of_a_process() -> Vec<(&'static str, InstructionCounts)> {
    let mut arena = Arena::new(G, 40);
    let root = arena.empty_root(G);
    let mut window = arena.window();
    // SAFETY: no CPU walks the tree, whose tables are the arena's.
    let mut space = unsafe { AddressSpace::user(G, root, 7, BbmLevel::L0) };
    let (mut cpu, mut steps) = (Counted::<HostCpu>::default(), vec![Step::Isb; 64]);
    let mut counts = Vec::new();
    let mut count = |name, edit: &mut Edited<'_>| {
        let mut tools = Tools { window: &mut window, frames: &mut arena, cpu: &mut cpu, steps: &mut steps };
        edit(&mut space, &mut tools).unwrap_or_else(|error| panic!("{name}: {error}"));
        counts.push((name, std::mem::take(&mut cpu.counts)));
    };
    let page = |at, pages| {
        let (leaves, attributes) = (Leaves::Pages, Attributes::USER_DATA);
        [Mapping { va: Va(at), pa: Pa(4 * GIB), len: pages * PAGE, attributes, leaves }]
    };
    let range = VaRange::new(Va(PAGE), PAGE);
    let access = |access| Change { access: Some(access), ..Change::default() };
    let (read_only, writable) = (access(Access::UserReadOnly), access(Access::UserReadWrite));
    // SAFETY: no CPU walks the tree.
    unsafe {
        // What keeps the table of the page.
        count("", &mut |space, tools| space.map(&Mappings::new(G, &page(0, 1)).unwrap(), tools));
        count("map a page of a process", &mut |space, tools| {
            space.map(&Mappings::new(G, &page(PAGE, 1)).unwrap(), tools)
        });
        count("write-protect it, as for a fork", &mut |space, tools| space.protect(range, read_only, tools));
        count("copy it: another frame, writable", &mut |space, tools| {
            space.remap(range, Pa(5 * GIB), writable, tools)
        });
        count("make it non-cacheable", &mut |space, tools| {
            let (memory, by) = (MemoryType::NormalNonCacheable, Maintenance::ByAlias(Va(0)));
            space.set_memory_type(range, memory, by, tools)
        });
        count("unmap a page of a process", &mut |space, tools| space.unmap(range, tools));
        count("", &mut |space, tools| space.map(&Mappings::new(G, &page(4 * MIB, 4096)).unwrap(), tools));
    }
    count("tear down a space of 16 MiB in pages", &mut |space, tools| space.clear(tools, |_| {}));
    counts.retain(|(name, _)| !name.is_empty());
    counts
}

/// A change of an address space.
type Edited<'e> = dyn FnMut(
        &mut AddressSpace,
        &mut Tools<'_, OffsetWindow, Arena, Counted<HostCpu>>,
    ) -> Result<EditCounts, SpaceError>
    + 'e;

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
    for (name, InstructionCounts { tlbi, dsb, isb }) in counts_of_a_process() {
        let row = format!("| {name} | {tlbi} / {dsb} / {isb} |");
        assert!(guide.contains(&row), "the guide should say: {row}");
    }
}
