//! Plans for parked trees, step by step, and what the check refuses of them.

use crate::live::{Arena, HostCpu, live, tables};
use linmap_live::{
    BrokenRule, Change, Edit, EveryLeaf, Global, Half, Invalidation, LiveTree, Parked, Plan, PlanError, Step,
    Store, Target,
};
use linmap_table::cpu::Dsb;
use linmap_table::{Leaves, Mapping, Mappings, OffsetWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Descriptor, Geometry, Level, Pa, Va, VaRange};

const G: Geometry = Geometry::K4_48;
const BASE: u64 = 0xffff_8000_0000_0000;
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const NOT_GLOBAL: u64 = 1 << 11;
const LEVELS: [BbmLevel; 4] = [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3];
const CLOSING: [Step; 4] =
    [Step::Dsb(Dsb::Ishst), Step::Invalidate(Invalidation::All), Step::Dsb(Dsb::Ish), Step::Isb];

struct Machine {
    arena: Arena,
    window: OffsetWindow,
    tree: LiveTree,
}

impl Machine {
    fn new(bbm: BbmLevel, len: u64, leaves: Leaves) -> Self {
        let mut arena = Arena::new(G, 1200);
        let root = arena.empty_root(G);
        let window = arena.window();
        let mut machine = Self { arena, window, tree: live(G, root, Half::High, bbm) };
        let mapping =
            Mapping { va: Va(BASE), pa: Pa(4 * GIB), len, attributes: Attributes::KERNEL_DATA, leaves };
        let list = [mapping];
        let mappings = Mappings::new(G, &list).unwrap();
        machine.apply(|tree, steps, window, arena| tree.plan_map(&mappings, steps, window, arena));
        machine
    }

    /// Plans, checks and applies; gives the steps, and how many entries were stored.
    fn apply(
        &mut self,
        plan: impl for<'b> FnOnce(
            &'b mut LiveTree,
            &'b mut [Step],
            &mut OffsetWindow,
            &mut Arena,
        ) -> Result<Plan<'b>, PlanError>,
    ) -> (Vec<Step>, u64) {
        let mut steps = vec![Step::Isb; 1200];
        let Self { arena, window, tree } = self;
        let plan = plan(tree, &mut steps, window, arena).unwrap();
        let steps = plan.steps().to_vec();
        let checked = plan.check(window).unwrap_or_else(|(_, refused)| panic!("{refused}"));
        // SAFETY: no CPU walks the tree.
        let counts = unsafe { checked.apply(window, &mut HostCpu::default()) }.free(window, arena);
        (steps, counts.entries)
    }

    fn global(&mut self, range: VaRange, global: Global) -> (Vec<Step>, u64) {
        // SAFETY: no CPU walks the tree.
        let parked = unsafe { Parked::new(range) };
        self.apply(|tree, steps, window, arena| tree.plan_global(parked, global, steps, window, arena))
    }

    fn split(&mut self, at: u64, len: u64, to: Level) -> Vec<Step> {
        self.apply(|tree, steps, window, arena| {
            tree.plan_split(parked(range(at, len)), to, steps, window, arena)
        })
        .0
    }

    /// The steps of a plan that is not applied. Its new tables stay as they are.
    fn steps(&mut self, at: u64, len: u64, to: Level) -> Vec<Step> {
        let mut steps = vec![Step::Isb; 64];
        let Self { arena, window, tree } = self;
        tree.plan_split(parked(range(at, len)), to, &mut steps, window, arena).unwrap().steps().to_vec()
    }

    fn check(&mut self, target: Target, steps: &[Step]) -> Result<(), BrokenRule> {
        // SAFETY: the steps link tables of the arena, or the check refuses them before it looks.
        let checked = unsafe { self.tree.check(target, steps, &mut self.window) };
        checked.map_err(|refused| refused.rule)
    }

    /// Bits of all leaves, valid or not.
    fn leaves(&self) -> Vec<u64> {
        let found = tables(&self.arena, G, self.tree.root(), self.tree.base().0);
        found.leaves.iter().map(|leaf| leaf.bits).collect()
    }
}

fn range(at: u64, len: u64) -> VaRange {
    VaRange::new(Va(BASE + at), len)
}

fn parked(range: VaRange) -> Target {
    // SAFETY: no CPU walks the tree.
    Target::Parked(unsafe { Parked::new(range) })
}

#[test]
fn a_parked_split_is_one_store_at_every_level() {
    for bbm in LEVELS {
        let mut machine = Machine::new(bbm, GIB, Leaves::ContiguousBlocks);
        let steps = machine.split(0, GIB, Level::L3);
        assert!(matches!(steps[0], Step::Store(Store { level: Level::L1, count: 1, .. })));
        assert_eq!(steps[1..], CLOSING);
        assert_eq!(machine.leaves().len(), 1 << 18);
        // And one store back, with the 513 tables freed as one.
        let (steps, _) = machine
            .apply(|tree, steps, window, arena| tree.plan_fold(parked(range(0, GIB)), steps, window, arena));
        assert!(matches!(steps[0], Step::Store(Store { level: Level::L1, count: 1, .. })));
        assert_eq!(steps[1..5], CLOSING);
        assert!(matches!(steps[5..], [Step::Free { level: Level::L2, .. }]));
        // The root and the table of level 1 are left.
        assert_eq!((machine.leaves().len(), machine.arena.used()), (1, 2));
    }
}

#[test]
fn permissions_of_runs_change_in_place_at_every_level() {
    for bbm in LEVELS {
        let mut machine = Machine::new(bbm, 64 * MIB, Leaves::ContiguousBlocks);
        let change = Change { access: Some(Access::KernelReadOnly), ..Change::default() };
        let (steps, entries) = machine.apply(|tree, steps, window, arena| {
            tree.plan_protect(parked(range(0, 64 * MIB)), change, steps, window, arena)
        });
        assert!(matches!(steps[0], Step::Store(Store { count: 32, edit: Edit::Bits { .. }, .. })));
        assert_eq!(steps[1..], CLOSING);
        assert_eq!(entries, 32);
    }
}

#[test]
fn all_leaves_become_non_global_and_global_by_one_step() {
    for bbm in LEVELS {
        let mut machine = Machine::new(bbm, 2 * GIB, Leaves::Pages);
        let off = Change { valid: Some(false), ..Change::default() };
        machine.apply(|tree, steps, window, arena| {
            tree.plan_protect(parked(range(0x3000, 0x1000)), off, steps, window, arena)
        });
        let before = machine.leaves();
        // The whole half.
        let half = VaRange::new(machine.tree.base(), 1 << 48);
        for (global, set) in [(Global::NonGlobal, NOT_GLOBAL), (Global::Global, 0)] {
            let (steps, entries) = machine.global(half, global);
            assert!(matches!(steps[0], Step::EveryLeaf(_)), "{}", steps[0]);
            assert_eq!(steps[1..], CLOSING);
            assert_eq!(entries, 1 << 19);
            assert!(machine.leaves().iter().zip(&before).all(|(now, before)| *now == before | set));
            assert_eq!(machine.global(half, global), (vec![], 0), "once is enough");
        }
        assert_eq!(machine.leaves(), before);
    }
}

#[test]
fn a_block_that_reaches_over_an_end_is_split_unless_it_is_so_already() {
    let mut machine = Machine::new(BbmLevel::L0, 2 * GIB, Leaves::ContiguousBlocks);
    let (steps, _) = machine.global(range(GIB - 0x1000, 0x1000), Global::NonGlobal);
    assert!(matches!(steps[..2], [Step::Store(_), Step::EveryLeaf(_)]));
    let found = machine.leaves();
    assert_eq!(found.iter().filter(|bits| *bits & NOT_GLOBAL != 0).count(), 1);
    // The second block is global.
    machine.arena.allowed = 0;
    let (steps, entries) = machine.global(range(GIB - 0x2000, GIB), Global::Global);
    assert!(matches!(steps[0], Step::EveryLeaf(_)));
    assert_eq!(entries, 1);
}

#[test]
fn a_change_of_all_leaves_is_refused_where_it_is_not_one() {
    let mut machine = Machine::new(BbmLevel::L3, 2 * GIB, Leaves::ContiguousBlocks);
    let whole = range(0, 2 * GIB);
    let leaves = EveryLeaf { first: Va(BASE), last: Va(BASE + 2 * GIB - 1), clear: 0, set: NOT_GLOBAL };
    let mut plan = vec![Step::EveryLeaf(leaves)];
    plan.extend(CLOSING);
    assert_eq!(machine.check(parked(whole), &plan), Ok(()));
    let in_use = machine.check(Target::InUse(whole), &plan);
    assert_eq!(in_use, Err(BrokenRule::NotParked { first: leaves.first }));
    let mut with = |change: EveryLeaf| {
        plan[0] = Step::EveryLeaf(change);
        machine.check(parked(whole), &plan)
    };
    for (clear, set) in [(0, 0), (NOT_GLOBAL, NOT_GLOBAL), (0, 1 << 52), (1, 0), (0, 1 << 30), (0xc0, 0)] {
        let bad = EveryLeaf { clear, set, ..leaves };
        assert_eq!(with(bad), Err(BrokenRule::NoSuchLeaves(bad)));
    }
    for (first, last) in [(BASE + 1, BASE + GIB - 1), (BASE, BASE + GIB), (BASE + GIB, BASE - 1), (0, 0xfff)]
    {
        let bad = EveryLeaf { first: Va(first), last: Va(last), ..leaves };
        assert_eq!(with(bad), Err(BrokenRule::NoSuchLeaves(bad)));
    }
    let short = EveryLeaf { last: Va(BASE + 0x1fff), ..leaves };
    assert_eq!(with(short), Err(BrokenRule::PartOfLeaf { va: Va(BASE) }));
    let short = EveryLeaf { last: Va(BASE + GIB + 0x1fff), ..leaves };
    assert_eq!(with(short), Err(BrokenRule::PartOfLeaf { va: short.last }));
    let va = Va(BASE + GIB + 0x1000);
    assert_eq!(with(EveryLeaf { first: va, ..leaves }), Err(BrokenRule::PartOfLeaf { va }));
    // Nothing changes of the block then.
    assert_eq!(with(EveryLeaf { first: va, clear: NOT_GLOBAL, set: 0, ..leaves }), Ok(()));
    // After the split it is whole, and after the change nothing else is.
    let split = machine.steps(0, 0x1000, Level::L3)[0];
    let first = Step::EveryLeaf(EveryLeaf { last: Va(BASE + 0xfff), ..leaves });
    let [ishst, tlbi, ish, isb] = CLOSING;
    assert_eq!(machine.check(parked(whole), &[split, first, ishst, tlbi, ish, isb]), Ok(()));
    let late = machine.check(parked(whole), &[first, split, ishst, tlbi, ish, isb]);
    assert!(matches!(late, Err(BrokenRule::PartOfLeaf { .. })));
    let late = machine.check(parked(whole), &[Step::EveryLeaf(leaves), split, ishst, tlbi, ish, isb]);
    assert_eq!(late, Err(BrokenRule::BehindEveryLeaf { va: Va(BASE) }));
}

#[test]
fn what_a_parked_tree_may_not_lose_is_refused_all_the_same() {
    let mut machine = Machine::new(BbmLevel::L0, 64 * MIB, Leaves::ContiguousBlocks);
    let target = parked(range(0, 64 * MIB));
    let steps = machine.steps(0, 2 * MIB, Level::L3);
    assert_eq!(machine.check(target, &steps), Ok(()));
    let [Step::Store(unfold), Step::Store(link), ..] = steps[..] else { panic!("{}", steps[0]) };
    let with = |at: usize, store: Store| {
        let mut changed = steps.clone();
        changed[at] = Step::Store(store);
        changed
    };
    // A part of the run, then none of it.
    let part = with(0, Store { count: 8, ..unfold });
    assert!(matches!(machine.check(target, &part), Err(BrokenRule::PartOfRun { .. })));
    assert!(matches!(machine.check(target, &steps[1..]), Err(BrokenRule::PartOfRun { .. })));
    // A link to a table that translates otherwise, then a store to a table that is not on the walk.
    let other = Edit::Write { first: Descriptor::table(G, machine.tree.root()), step: 0 };
    let differs = with(1, Store { edit: other, ..link });
    assert!(matches!(machine.check(target, &differs), Err(BrokenRule::Differs { .. })));
    let elsewhere = with(1, Store { table: machine.tree.root(), ..link });
    assert!(matches!(machine.check(target, &elsewhere), Err(BrokenRule::OtherTable { .. })));
    // The frames of a table are freed once, after everything else.
    machine.split(0, 2 * MIB, Level::L3);
    let mut steps = vec![Step::Isb; 16];
    let Machine { arena, window, tree } = &mut machine;
    let steps = tree.plan_fold(target, &mut steps, window, arena).unwrap().steps().to_vec();
    let (free, rest) = steps.split_last().unwrap();
    assert!(matches!(free, Step::Free { .. }));
    for at in 0..rest.len() - 1 {
        let mut early = rest.to_vec();
        early.insert(at, *free);
        let refused = machine.check(target, &early);
        assert!(
            matches!(refused, Err(BrokenRule::FreedEarly { .. } | BrokenRule::NotRemoved { .. })),
            "{at}"
        );
    }
    let mut twice = steps.clone();
    twice.push(*free);
    assert!(matches!(machine.check(target, &twice), Err(BrokenRule::NotRemoved { .. })));
}

#[test]
fn what_only_break_before_make_could_do_needs_none_in_a_parked_tree() {
    let mut machine = Machine::new(BbmLevel::L0, GIB, Leaves::ContiguousBlocks);
    let Step::Store(store) = machine.steps(0, 0x1000, Level::L3)[0] else { panic!("no store") };
    // Device memory somewhere else.
    let moved = Descriptor::leaf(G, Level::L1, Pa(8 * GIB), Attributes::KERNEL_RODATA).unwrap().0 | 3 << 2;
    let edit = Edit::Write { first: Descriptor(moved), step: 0 };
    let mut steps = vec![Step::Store(Store { edit, ..store })];
    steps.extend(CLOSING);
    assert_eq!(machine.check(parked(range(0, GIB)), &steps), Ok(()));
    assert!(matches!(machine.check(Target::InUse(range(0, GIB)), &steps), Err(BrokenRule::Forbidden { .. })));
}

#[test]
fn a_change_of_all_leaves_prints_as_one_line() {
    let leaves = EveryLeaf { first: Va(BASE), last: Va(BASE + GIB - 1), clear: NOT_GLOBAL, set: 0 };
    assert_eq!(
        Step::EveryLeaf(leaves).to_string(),
        "leaves 0xffff800000000000 to 0xffff80003fffffff clear 0x0000000000000800 set 0x0000000000000000"
    );
}
