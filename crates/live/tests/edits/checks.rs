//! The check of plans on plans that must not be applied, and the plans of single edits step by
//! step.

use crate::live::{Arena, HostCpu, live, tables};
use linmap_live::{
    BrokenRule, Change, Edit, Half, Invalidation, LiveTree, PlanError, Quiescent, Reach, Step, Store, Target,
};
use linmap_table::cpu::Dsb;
use linmap_table::{FrameSource, Leaves, Mapping, Mappings, OffsetWindow, TableWindow};
use linmap_vmsa::bbm::{Reason, Requirement};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Descriptor, Geometry, Level, Pa, Va, VaRange};

const G: Geometry = Geometry::K4_48;
const BASE: u64 = 0xffff_8000_0000_0000;
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const READ_ONLY: Change = Change { access: Some(Access::KernelReadOnly), execute: None, valid: None };

struct Machine {
    arena: Arena,
    window: OffsetWindow,
    tree: LiveTree,
}

impl Machine {
    /// A tree that maps `len` bytes from `BASE` on.
    fn new(bbm: BbmLevel, len: u64, leaves: Leaves) -> Self {
        let mut arena = Arena::new(G, 64);
        let root = arena.empty_root(G);
        let window = arena.window();
        let mut machine = Self { arena, window, tree: live(G, root, Half::High, bbm) };
        let mapping =
            Mapping { va: Va(BASE), pa: Pa(4 * GIB), len, attributes: Attributes::KERNEL_DATA, leaves };
        let list = [mapping];
        let mappings = Mappings::new(G, &list).unwrap();
        let mut steps = [Step::Isb; 64];
        let plan =
            machine.tree.plan_map(&mappings, &mut steps, &mut machine.window, &mut machine.arena).unwrap();
        let checked = plan.check(&mut machine.window).unwrap();
        // SAFETY: no CPU walks the tree.
        let applied = unsafe { checked.apply(&mut machine.window, &mut HostCpu::default()) };
        applied.free(&mut machine.window, &mut machine.arena);
        machine
    }

    fn steps(&mut self, target: Target, what: impl Into<What>) -> Result<Vec<Step>, PlanError> {
        let mut steps = vec![Step::Isb; 256];
        let Self { arena, window, tree } = self;
        let plan = match what.into() {
            What::Protect(change) => tree.plan_protect(target, change, &mut steps, window, arena),
            What::Unmap => tree.plan_unmap(target, &mut steps, window, arena),
            What::Fold => tree.plan_fold(target, &mut steps, window, arena),
        }?;
        let list = plan.steps().to_vec();
        plan.abandon(window, arena);
        Ok(list)
    }

    fn apply(&mut self, target: Target, change: Change) {
        let mut steps = vec![Step::Isb; 256];
        let Self { arena, window, tree } = self;
        let plan = tree.plan_protect(target, change, &mut steps, window, arena).unwrap();
        let checked = plan.check(window).unwrap();
        // SAFETY: no CPU walks the tree.
        unsafe { checked.apply(window, &mut HostCpu::default()) }.free(window, arena);
    }

    fn check(&mut self, target: Target, steps: &[Step]) -> Result<(), BrokenRule> {
        // SAFETY: the steps link tables of the arena, or the check refuses them before it looks.
        let checked = unsafe { self.tree.check(target, steps, &mut self.window) };
        checked.map_err(|refused| refused.rule)
    }
}

enum What {
    Protect(Change),
    Unmap,
    Fold,
}

impl From<Change> for What {
    fn from(change: Change) -> Self {
        Self::Protect(change)
    }
}

fn in_use(offset: u64, len: u64) -> Target {
    Target::InUse(VaRange::new(Va(BASE + offset), len))
}

fn quiescent(offset: u64, len: u64) -> Target {
    // SAFETY: no CPU walks the tree.
    Target::Quiescent(unsafe { Quiescent::new(VaRange::new(Va(BASE + offset), len)) })
}

fn kinds(steps: &[Step]) -> String {
    let kind = |step: &Step| match step {
        Step::Store(store) => match store.edit {
            Edit::Write { .. } => "write ",
            Edit::Bits { .. } => "bits ",
            Edit::Update(_) => "update ",
        },
        Step::Dsb(Dsb::Ishst) => "ishst ",
        Step::Dsb(_) => "ish ",
        Step::Isb => "isb",
        Step::Invalidate(_) => "tlbi ",
        Step::EveryLeaf(_) => "leaves ",
        Step::CleanInvalidate { .. } => " clean",
        Step::Free { .. } => " free",
    };
    steps.iter().map(kind).collect()
}

#[test]
fn a_page_of_a_block_is_split_without_invalidation_at_level_3() {
    let mut machine = Machine::new(BbmLevel::L3, GIB, Leaves::ContiguousBlocks);
    let steps = machine.steps(in_use(0x5000, 0x1000), READ_ONLY).unwrap();
    assert_eq!(kinds(&steps), "ishst write bits ishst tlbi ish isb");
    assert_eq!(machine.check(in_use(0x5000, 0x1000), &steps), Ok(()));
    assert!(matches!(
        steps[4],
        Step::Invalidate(Invalidation::ByVa { va, count: 1, shift: 12, reach: Reach::LastLevel })
            if va == Va(BASE + 0x5000)
    ));
}

#[test]
fn the_same_page_again_needs_neither_frames_nor_a_second_split() {
    let mut machine = Machine::new(BbmLevel::L3, GIB, Leaves::ContiguousBlocks);
    machine.apply(in_use(0x5000, 0x1000), READ_ONLY);
    assert_eq!(machine.steps(in_use(0x5000, 0x1000), READ_ONLY), Ok(vec![]));
    machine.arena.allowed = 0;
    let back = Change { access: Some(Access::KernelReadWrite), ..READ_ONLY };
    let steps = machine.steps(in_use(0x5000, 0x1000), back).unwrap();
    assert_eq!(kinds(&steps), "bits ishst tlbi ish isb");
}

#[test]
fn a_change_of_nothing_splits_nothing() {
    let mut machine = Machine::new(BbmLevel::L0, GIB, Leaves::ContiguousBlocks);
    assert_eq!(machine.steps(in_use(0x5000, 0x1000), Change::default()), Ok(vec![]));
}

#[test]
fn a_block_in_front_of_a_run_is_folded_by_a_store_of_its_own() {
    let mut machine = Machine::new(BbmLevel::L1, 64 * MIB, Leaves::ContiguousBlocks);
    // The first and the last block of the first run become read-only, and the pages around its end
    // stay alone.
    for (at, len) in [(30 * MIB + 0x1000, 0x1000), (32 * MIB, 0x1000), (0, 0x1000)] {
        machine.apply(quiescent(at, len), READ_ONLY);
    }
    let back = Change { access: Some(Access::KernelReadWrite), ..READ_ONLY };
    machine.apply(quiescent(30 * MIB, 4 * MIB), back);
    let whole = quiescent(0, 64 * MIB);
    let steps = machine.steps(whole, What::Fold).unwrap();
    assert_eq!(machine.check(whole, &steps), Ok(()));
}

#[test]
fn a_run_is_unfolded_for_every_walker_before_one_of_its_entries_changes() {
    let mut machine = Machine::new(BbmLevel::L3, 2 * MIB, Leaves::ContiguousBlocks);
    let mut steps = {
        // One page of the table of pages that a first edit leaves behind; the next run is whole.
        machine.apply(in_use(0x5000, 0x1000), READ_ONLY);
        machine.steps(in_use(0x1_5000, 0x1000), READ_ONLY).unwrap()
    };
    assert_eq!(kinds(&steps), "bits ishst bits ishst tlbi ish isb");
    let target = in_use(0x1_5000, 0x1000);
    assert_eq!(machine.check(target, &steps), Ok(()));
    let ordered = steps.remove(1);
    assert!(matches!(machine.check(target, &steps), Err(BrokenRule::RunUnordered { .. })));
    steps.insert(1, ordered);
    steps.remove(0);
    assert!(matches!(machine.check(target, &steps), Err(BrokenRule::PartOfRun { .. })));
}

#[test]
fn leaves_in_use_keep_their_size_below_level_3() {
    for bbm in [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2] {
        let mut machine = Machine::new(bbm, GIB, Leaves::ContiguousBlocks);
        let target = in_use(0x5000, 0x1000);
        assert_eq!(
            machine.steps(target, READ_ONLY),
            Err(PlanError::NeedsLevel3 { va: Va(BASE), bbm }),
            "{bbm:?}"
        );
        // The plan for a quiescent range is refused for a range in use.
        let steps = machine.steps(quiescent(0x5000, 0x1000), READ_ONLY).unwrap();
        assert_eq!(machine.check(quiescent(0x5000, 0x1000), &steps), Ok(()));
        assert!(matches!(machine.check(target, &steps), Err(BrokenRule::InUse { .. })), "{bbm:?}");
        // Whole leaves change at every level.
        assert!(machine.steps(in_use(0, GIB), READ_ONLY).is_ok());
    }
}

#[test]
fn the_plan_of_a_higher_level_is_refused_at_a_lower_one() {
    let range = quiescent(0x5000, 0x1000);
    let plan = |bbm| {
        let mut machine = Machine::new(bbm, GIB, Leaves::ContiguousBlocks);
        machine.steps(range, READ_ONLY).unwrap()
    };
    let check = |bbm, steps: &[Step]| {
        // The same memory again: the same frames are allocated and written.
        let mut machine = Machine::new(bbm, GIB, Leaves::ContiguousBlocks);
        machine.steps(range, READ_ONLY).unwrap();
        machine.check(range, steps)
    };
    for planned in [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3] {
        let steps = plan(planned);
        for bbm in [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3] {
            let legal = match planned {
                BbmLevel::L0 | BbmLevel::L1 => true,
                // The page's invalidation removes the block too, which is all that level 2 needs.
                BbmLevel::L2 | BbmLevel::L3 => bbm >= BbmLevel::L2,
            };
            let result = check(bbm, &steps);
            assert_eq!(result.is_ok(), legal, "planned for {planned:?}, checked for {bbm:?}: {result:?}");
        }
    }
    let forbidden = check(BbmLevel::L0, &plan(BbmLevel::L3));
    let needs = Requirement::BreakBeforeMake(Reason::Size);
    assert!(matches!(forbidden, Err(BrokenRule::Forbidden { requirement, .. }) if requirement == needs));
}

#[test]
fn break_before_make_has_all_its_steps_at_level_0() {
    let mut machine = Machine::new(BbmLevel::L0, GIB, Leaves::ContiguousBlocks);
    let steps = machine.steps(quiescent(0x5000, 0x1000), READ_ONLY).unwrap();
    assert_eq!(kinds(&steps), "bits ishst tlbi ish write bits ishst tlbi ish isb");
}

#[test]
fn a_table_leaves_the_walk_caches_before_it_is_freed() {
    let mut machine = Machine::new(BbmLevel::L3, 4 * MIB, Leaves::Pages);
    for (what, target) in [(What::Unmap, in_use(0, 2 * MIB)), (What::Fold, in_use(0, 2 * MIB))] {
        let steps = machine.steps(target, what).unwrap();
        assert_eq!(machine.check(target, &steps), Ok(()));
        let tlbi = steps.iter().position(|step| matches!(step, Step::Invalidate(_))).unwrap();
        let Step::Invalidate(Invalidation::ByVa { va, count, shift, reach: Reach::AllLevels }) = steps[tlbi]
        else {
            panic!("{}", steps[tlbi]);
        };
        let mutants = [
            Invalidation::ByVa { va, count, shift, reach: Reach::LastLevel },
            Invalidation::ByVa { va, count: count - 1, shift, reach: Reach::AllLevels },
            Invalidation::ByVa { va: Va(va.0 + 0x1000), count, shift, reach: Reach::AllLevels },
            Invalidation::ByVa { va, count, shift: 13, reach: Reach::AllLevels },
            Invalidation::ByVa { va, count: 1, shift: 21, reach: Reach::AllLevels },
        ];
        for mutant in mutants {
            let mut mutated = steps.clone();
            mutated[tlbi] = Step::Invalidate(mutant);
            assert!(
                matches!(
                    machine.check(target, &mutated),
                    Err(BrokenRule::FreedEarly { .. }
                        | BrokenRule::Forbidden { .. }
                        | BrokenRule::NotInvalidated { .. })
                ),
                "{mutant:?}"
            );
        }
        let mut everything = steps.clone();
        everything[tlbi] = Step::Invalidate(Invalidation::All);
        assert_eq!(machine.check(target, &everything), Ok(()));
        let range = Invalidation::ByRange { va, pages: 512, reach: Reach::AllLevels };
        everything[tlbi] = Step::Invalidate(range);
        assert_eq!(machine.check(target, &everything), Err(BrokenRule::NoSuchInvalidation(range)));
    }
}

#[test]
fn changes_that_break_at_every_level_are_refused() {
    let mut machine = Machine::new(BbmLevel::L3, GIB, Leaves::ContiguousBlocks);
    let (clear, set) = (0b111 << 2, 3 << 2);
    let l1 = machine.steps(in_use(0, GIB), READ_ONLY).unwrap();
    let Step::Store(store) = l1[0] else { panic!("{}", l1[0]) };
    let mut device = l1.clone();
    device[0] = Step::Store(Store { edit: Edit::Bits { clear, set }, ..store });
    let reason = |result| match result {
        Err(BrokenRule::Forbidden { requirement: Requirement::BreakBeforeMake(reason), .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(machine.check(in_use(0, GIB), &device)), Reason::MemoryType);
    let moved = Descriptor::leaf(G, Level::L1, Pa(8 * GIB), Attributes::KERNEL_DATA).unwrap();
    device[0] = Step::Store(Store { edit: Edit::Write { first: moved, step: 0 }, ..store });
    assert_eq!(reason(machine.check(in_use(0, GIB), &device)), Reason::OutputAddress);
    // With a break first it is legal on a quiescent range.
    let mut broken =
        vec![Step::Store(Store { edit: Edit::Write { first: Descriptor::INVALID, step: 0 }, ..store })];
    broken.extend(l1[1..4].iter().copied());
    broken.extend([device[0], Step::Dsb(Dsb::Ishst), Step::Isb]);
    assert_eq!(machine.check(quiescent(0, GIB), &broken), Ok(()));
    assert!(matches!(machine.check(in_use(0, GIB), &broken), Err(BrokenRule::InUse { .. })));
    for without in 1..4 {
        let mut hasty = broken.clone();
        hasty.remove(without);
        assert!(machine.check(quiescent(0, GIB), &hasty).is_err(), "without step {without}");
    }
}

#[test]
fn a_table_that_does_not_say_what_the_block_said_is_refused() {
    let mut machine = Machine::new(BbmLevel::L3, GIB, Leaves::ContiguousBlocks);
    let target = in_use(0x5000, 0x1000);
    let steps = machine.steps(target, READ_ONLY).unwrap();
    let Step::Store(link) = steps[1] else { panic!("{}", steps[1]) };
    // The root stands for any table.
    let root = machine.tree.root();
    let mut other = steps.clone();
    let first = Descriptor::table(G, root);
    other[1] = Step::Store(Store { edit: Edit::Write { first, step: 0 }, ..link });
    assert!(matches!(machine.check(target, &other), Err(BrokenRule::Differs { .. })));
    let mut elsewhere = steps.clone();
    elsewhere[1] = Step::Store(Store { table: root, ..link });
    assert!(matches!(machine.check(target, &elsewhere), Err(BrokenRule::OtherTable { .. })));
    let mut beyond = steps;
    beyond[1] = Step::Store(Store { count: 513, ..link });
    assert!(matches!(machine.check(target, &beyond), Err(BrokenRule::NoSuchEntries { .. })));
}

#[test]
fn a_table_of_which_any_one_entry_differs_from_the_block_is_refused() {
    let mut machine = Machine::new(BbmLevel::L3, 2 * MIB, Leaves::ContiguousBlocks);
    let entries = [0, 1, 5, 15, 16, 100, 255, 256, 510, 511];
    for (index, bit) in entries.into_iter().flat_map(|index| [0, 7, 12, 47, 52, 54].map(|bit| (index, bit))) {
        let mut steps = [Step::Isb; 16];
        let Machine { arena, window, tree } = &mut machine;
        let target = in_use(0x5000, 0x1000);
        // The check trusts the planner's steps, so this test passes them as another author's.
        let plan = tree.plan_protect(target, READ_ONLY, &mut steps, window, arena).unwrap().steps().to_vec();
        let Step::Store(Store { edit: Edit::Write { first, .. }, .. }) = plan[1] else {
            panic!("{}", plan[1])
        };
        let table = first.next_table(G).unwrap();
        // SAFETY: the plan's tables are in the arena.
        assert_eq!(unsafe { tree.check(target, &plan, window) }, Ok(()));
        // SAFETY: the table is one of the arena's frames, and nothing else refers to it.
        unsafe { *window.open(Level::L3, table).add(index).as_ptr() ^= 1 << bit };
        // SAFETY: as above.
        let refused = unsafe { tree.check(target, &plan, window) }.map_err(|refused| refused.rule);
        assert!(
            matches!(refused, Err(BrokenRule::Differs { .. })),
            "bit {bit} of entry {index}: {refused:?}"
        );
        // SAFETY: no plan has linked the table.
        unsafe { arena.free(table) };
    }
}

#[test]
fn an_invalidation_does_not_cover_a_store_behind_it() {
    let mut machine = Machine::new(BbmLevel::L3, 2 * MIB, Leaves::Pages);
    let target = in_use(0x5000, 0x2000);
    let both = machine.steps(target, READ_ONLY).unwrap();
    let [Step::Store(store), ishst, tlbi, ish, isb] = both[..] else { panic!("{}", both.len()) };
    let first = Step::Store(Store { count: 1, ..store });
    let va = Va(store.va.0 + 0x1000);
    let second = Step::Store(Store { va, index: store.index + 1, count: 1, ..store });
    assert_eq!(machine.check(target, &[first, second, ishst, tlbi, ish, isb]), Ok(()));
    assert_eq!(machine.check(target, &[first, ishst, second, ishst, tlbi, ish, isb]), Ok(()));
    assert_eq!(machine.check(target, &[first, ishst, tlbi, second, ishst, tlbi, ish, isb]), Ok(()));
    let late = Err(BrokenRule::NotInvalidated { va });
    assert_eq!(machine.check(target, &[first, ishst, tlbi, second, ishst, ish, isb]), late);
    assert_eq!(machine.check(target, &[first, ishst, tlbi, ish, second, ishst, isb]), late);
}

#[test]
fn ranges_that_no_plan_can_be_for_are_refused() {
    let mut machine = Machine::new(BbmLevel::L3, GIB, Leaves::ContiguousBlocks);
    for (start, len) in [(BASE, 0), (BASE + 1, 0x1000), (BASE, 0x1001)] {
        let target = Target::InUse(VaRange::new(Va(start), len));
        assert!(matches!(machine.steps(target, READ_ONLY), Err(PlanError::Unaligned { .. })));
    }
    for (start, len) in [(0, 0x1000), (0xfffe_ffff_ffff_f000, 0x2000), (0xffff_ffff_ffff_f000, 0x2000)] {
        let target = Target::InUse(VaRange::new(Va(start), len));
        assert!(matches!(machine.steps(target, READ_ONLY), Err(PlanError::OutsideHalf { .. })));
    }
    assert_eq!(
        machine.steps(in_use(GIB - 0x1000, 0x2000), READ_ONLY),
        Err(PlanError::Hole { va: Va(BASE + GIB) })
    );
    let executable = Change { execute: Some(linmap_vmsa::Execute::Kernel), ..Change::default() };
    assert_eq!(
        machine.steps(in_use(0, GIB), executable),
        Err(PlanError::WritableAndExecutable { va: Va(BASE) })
    );
    assert_eq!(tables(&machine.arena, G, machine.tree.root(), machine.tree.base().0).leaves.len(), 1);
}

#[test]
fn a_short_list_of_steps_is_said_and_changes_nothing() {
    let mut machine = Machine::new(BbmLevel::L3, GIB, Leaves::ContiguousBlocks);
    let used = machine.arena.used();
    for room in 0..7 {
        let mut steps = vec![Step::Isb; room];
        let Machine { arena, window, tree } = &mut machine;
        let result =
            tree.plan_protect(in_use(0x5000, 0x1000), READ_ONLY, &mut steps, window, arena).map(|_| ());
        assert_eq!(result, Err(PlanError::TooLong { capacity: room }));
        assert_eq!(machine.arena.used(), used);
    }
}

#[test]
fn a_plan_prints_one_step_a_line() {
    let mut machine = Machine::new(BbmLevel::L3, GIB, Leaves::ContiguousBlocks);
    let steps = machine.steps(in_use(0x5000, 0x1000), READ_ONLY).unwrap();
    let lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(lines[0], "dsb    ishst");
    assert!(lines[1].starts_with("store  0xffff800000000000 L1 0x"), "{}", lines[1]);
    assert!(lines[2].ends_with("clear 0x0008000000000040 set 0x0000000000000080"), "{}", lines[2]);
    assert_eq!(lines[4], "tlbi   0xffff800000005000 last level x 1, every 0x1000");
}
