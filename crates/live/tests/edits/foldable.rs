//! What `foldable` answers: never less than there is to fold, at once `None` where the neighbours
//! differ.

use crate::live::{Arena, HostCpu, live, tables};
use linmap_live::{Change, Half, LiveTree, Parked, Step, Target};
use linmap_table::{Leaves, Mapping, Mappings, OffsetWindow, TableWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Geometry, Granule, Level, Pa, Va, VaRange};
use proptest::prelude::*;
use std::ptr::NonNull;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const PAGE: u64 = 0x1000;

/// A tree that maps an area with the largest leaves.
struct Folded {
    geometry: Geometry,
    arena: Arena,
    window: OffsetWindow,
    tree: LiveTree,
    base: u64,
    len: u64,
}

impl Folded {
    fn new(geometry: Geometry, len: u64, leaves: Leaves) -> Self {
        let mut arena = Arena::new(geometry, 2200);
        let root = arena.empty_root(geometry);
        let mut window = arena.window();
        let mut tree = live(geometry, root, Half::High, BbmLevel::L3);
        // In the middle of the half, so that there is something beside.
        let base = tree.base().0 + (1 << (geometry.va_bits() - 1));
        let mapping = Mapping { va: Va(base), pa: Pa(len), len, attributes: Attributes::KERNEL_DATA, leaves };
        let list = [mapping];
        let mappings = Mappings::new(geometry, &list).unwrap();
        let mut steps = vec![Step::Isb; 64];
        let plan = tree.plan_map(&mappings, &mut steps, &mut window, &mut arena).unwrap();
        let checked = plan.check(&mut window).unwrap();
        // SAFETY: no CPU walks the tree.
        unsafe { checked.apply(&mut window, &mut HostCpu::default()) }.free(&mut window, &mut arena);
        let mut folded = Self { geometry, arena, window, tree, base, len };
        folded.fold(VaRange::new(Va(base), len));
        folded
    }

    fn range(&self, at: u64, len: u64) -> VaRange {
        VaRange::new(Va(self.base + at), len)
    }

    fn protect(&mut self, range: VaRange, access: Access) {
        let Self { arena, window, tree, .. } = self;
        let mut steps = vec![Step::Isb; 4096];
        let change = Change { access: Some(access), ..Change::default() };
        let plan = tree.plan_protect(parked(range), change, &mut steps, window, arena).unwrap();
        let checked = plan.check(window).unwrap();
        // SAFETY: no CPU walks the tree.
        unsafe { checked.apply(window, &mut HostCpu::default()) }.free(window, arena);
    }

    /// How many steps it took.
    fn fold(&mut self, range: VaRange) -> usize {
        let Self { arena, window, tree, .. } = self;
        let mut steps = vec![Step::Isb; 4096];
        let plan = tree.plan_fold(parked(range), &mut steps, window, arena).unwrap();
        let count = plan.steps().len();
        let checked = plan.check(window).unwrap();
        // SAFETY: no CPU walks the tree.
        unsafe { checked.apply(window, &mut HostCpu::default()) }.free(window, arena);
        count
    }

    fn foldable(&mut self, range: VaRange) -> Option<VaRange> {
        self.tree.foldable(range, &mut self.window)
    }

    fn leaves(&self) -> usize {
        tables(&self.arena, self.geometry, self.tree.root(), self.tree.base().0).leaves.len()
    }
}

fn parked(range: VaRange) -> Target {
    // SAFETY: no CPU walks the tree.
    Target::Parked(unsafe { Parked::new(range) })
}

#[test]
fn the_last_odd_page_of_a_gigabyte_brings_the_whole_of_it_back() {
    let mut machine = Folded::new(Geometry::K4_48, 4 * GIB, Leaves::ContiguousBlocks);
    assert_eq!(machine.leaves(), 4);
    let odd = [machine.range(GIB + 7 * MIB, PAGE), machine.range(GIB + 900 * MIB, 3 * PAGE)];
    for range in odd {
        machine.protect(range, Access::KernelReadOnly);
        assert_eq!(machine.foldable(range), None);
    }
    machine.protect(odd[0], Access::KernelReadWrite);
    // The table of pages and the run of blocks around it, and no further: there is another odd
    // page.
    assert_eq!(machine.foldable(odd[0]), Some(machine.range(GIB, 32 * MIB)));
    assert!(machine.fold(machine.range(GIB, 32 * MIB)) > 0);
    assert_eq!(machine.foldable(odd[0]), None);
    machine.protect(odd[1], Access::KernelReadWrite);
    assert_eq!(machine.foldable(odd[1]), Some(machine.range(GIB, GIB)));
    assert!(machine.fold(machine.range(GIB, GIB)) > 0);
    assert_eq!(machine.leaves(), 4);
}

#[test]
fn a_run_that_goes_back_beside_another_odd_one_folds_alone() {
    let mut machine = Folded::new(Geometry::K4_48, 2 * MIB, Leaves::ContiguousBlocks);
    for at in [0x3000, 0x2_5000] {
        let page = machine.range(at, PAGE);
        machine.protect(page, Access::KernelReadOnly);
    }
    let page = machine.range(0x3000, PAGE);
    machine.protect(page, Access::KernelReadWrite);
    assert_eq!(machine.foldable(page), Some(machine.range(0, 0x1_0000)));
}

#[test]
fn what_is_no_range_of_whole_pages_folds_to_nothing() {
    let mut machine = Folded::new(Geometry::K4_48, 2 * MIB, Leaves::ContiguousBlocks);
    for range in [machine.range(0x800, PAGE), machine.range(0, 0), VaRange::new(Va(0), PAGE)] {
        assert_eq!(machine.foldable(range), None);
    }
    // Nothing is mapped there.
    assert_eq!(machine.foldable(machine.range(4 * GIB, PAGE)), None);
}

/// Counts how often a table is opened.
struct Opened<'w>(&'w mut OffsetWindow, usize);

// SAFETY: the inner window's.
unsafe impl TableWindow for Opened<'_> {
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        self.1 += 1;
        // SAFETY: the caller's.
        unsafe { self.0.open(level, table) }
    }

    fn close(&mut self, level: Level) {
        self.0.close(level);
    }
}

#[test]
fn one_odd_page_costs_a_walk_and_a_look_at_its_neighbour() {
    let mut machine = Folded::new(Geometry::K4_48, GIB, Leaves::ContiguousBlocks);
    for at in [0, 5 * PAGE, 15 * PAGE, 511 * PAGE] {
        let page = machine.range(at, PAGE);
        machine.protect(page, Access::KernelReadOnly);
        let mut opened = Opened(&mut machine.window, 0);
        assert_eq!(machine.tree.foldable(page, &mut opened), None);
        assert!(opened.1 <= 6, "{} tables opened", opened.1);
        machine.protect(page, Access::KernelReadWrite);
    }
}

fn shapes() -> impl Strategy<Value = (Geometry, u64)> {
    prop_oneof![
        3 => Just((Granule::K4, 48, 48, 2 * GIB)),
        1 => Just((Granule::K4, 52, 52, 2 * GIB)),
        1 => Just((Granule::K4, 33, 40, 2 * GIB)),
        1 => Just((Granule::K16, 47, 48, GIB)),
        1 => Just((Granule::K64, 48, 48, GIB)),
    ]
    .prop_map(|(granule, va, pa, len)| (Geometry::new(granule, va, pa).unwrap(), len))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 192,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn folding_what_is_foldable_after_each_change_leaves_nothing_to_fold(
        (geometry, len) in shapes(),
        // Pages, runs and blocks; few places, so that neighbours meet.
        edits in prop::collection::vec((0..4usize, 0..6u64, 0..4usize, 1..4u64, any::<bool>()), 1..24),
    ) {
        let mut machine = Folded::new(geometry, len, Leaves::ContiguousBlocks);
        let whole = machine.range(0, machine.len);
        let page = geometry.entry_bytes(Level::L3);
        let run = geometry.contiguous_entries(Level::L3).unwrap() as u64 * page;
        let block = geometry.entry_bytes(Level::L2);
        let units = [page, run, block, len / 2];
        for (start, at, unit, count, writable) in edits {
            let at = units[start] * at % len;
            let range = machine.range(at, (units[unit] * count).min(len - at));
            let access = if writable { Access::KernelReadWrite } else { Access::KernelReadOnly };
            machine.protect(range, access);
            if let Some(larger) = machine.foldable(range) {
                prop_assert!(larger.start <= range.start && larger.last() >= range.last());
                let steps = machine.fold(larger);
                // For a single page `foldable` is exact.
                prop_assert!(steps > 0 || range.len > page, "{range}: nothing folds in {larger}");
            }
            prop_assert_eq!(machine.fold(whole), 0, "behind {}", range);
        }
    }
}
