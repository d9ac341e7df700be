//! What plans for user spaces and guests must hold, and aarch64-paging 0.12.3's live updates that
//! go wrong, refused or done right.

use linmap_live::{
    AddressSpace, BrokenRule, Change, Edit, Invalidation, LiveTree, Maintenance, Marks, PlanError, Retried,
    Step, Target,
};
use linmap_table::{FrameSource, Leaves, Mapping, Mappings, OffsetWindow, TableWindow};
use linmap_vmsa::bbm::Requirement;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{
    Access, AttributeError, Attributes, Descriptor, Execute, Geometry, Granule, Level, MemoryType, Pa,
    Regime, Stage2, Va, VaRange,
};

use crate::live::{Arena, HostCpu};

const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
const DATA: Va = Va(0x40_0000);
const MEMORY: Pa = Pa(0x8000_0000);

struct Machine {
    arena: Arena,
    window: OffsetWindow,
    space: AddressSpace,
    steps: Vec<Step>,
}

impl Machine {
    /// A space of a user or of a guest, with `len` bytes mapped at `DATA`.
    fn new(regime: Regime, bbm: BbmLevel, len: u64, attributes: Attributes, leaves: Leaves) -> Self {
        let geometry = match regime {
            Regime::Stage2(features) => Geometry::stage_2(Granule::K4, 39, 40, features).unwrap(),
            regime => Geometry::K4_48.in_regime(regime),
        };
        let mut arena = Arena::new(geometry, 64);
        let root = arena.empty_root(geometry);
        // SAFETY: nothing walks the tree.
        let space = unsafe {
            match regime {
                Regime::El1And0 => AddressSpace::user(geometry, root, 3, bbm),
                _ => AddressSpace::guest(geometry, root, bbm),
            }
        };
        let window = arena.window();
        let mut machine = Self { arena, window, space, steps: vec![Step::Isb; 64] };
        let list = [Mapping { va: DATA, pa: MEMORY, len, attributes, leaves }];
        let mappings = Mappings::new(geometry, &list).unwrap();
        let Self { arena, window, space, steps } = &mut machine;
        // SAFETY: it stays the tree of the space.
        let plan = unsafe { space.tree() }.plan_map(&mappings, steps, window, arena).unwrap();
        let tlbis = plan.steps().iter().filter(|step| matches!(step, Step::Invalidate(_))).count();
        assert_eq!(tlbis, 0, "no TLB holds invalid entries");
        let checked = plan.check(window).unwrap();
        // SAFETY: no CPU walks the tree.
        unsafe { checked.apply(window, &mut HostCpu::default()) }.free(window, arena);
        machine
    }

    fn user(len: u64, leaves: Leaves) -> Self {
        Self::new(Regime::El1And0, BbmLevel::L0, len, Attributes::USER_DATA, leaves)
    }

    fn guest(len: u64) -> Self {
        let regime = Regime::Stage2(Stage2::Base);
        Self::new(regime, BbmLevel::L0, len, Attributes::GUEST_RAM, Leaves::ContiguousBlocks)
    }

    fn tree(&mut self) -> (&mut LiveTree, &mut [Step], &mut OffsetWindow, &mut Arena) {
        // SAFETY: it stays the tree of the space.
        (unsafe { self.space.tree() }, &mut self.steps, &mut self.window, &mut self.arena)
    }

    fn check(&mut self, steps: &[Step]) -> Result<(), BrokenRule> {
        let target = retried(8 * BLOCK);
        // SAFETY: the steps link tables of the arena, or the check refuses them before it looks.
        let checked = unsafe { self.space.tree().check(target, steps, &mut self.window) };
        checked.map_err(|refused| refused.rule)
    }

    /// Every step is needed, but for a store that comes last.
    fn needs_every_step(&mut self, steps: &[Step]) {
        assert_eq!(self.check(steps), Ok(()));
        let last_store = steps.iter().rposition(|step| matches!(step, Step::Store(_)));
        for missing in (0..steps.len()).filter(|at| Some(*at) != last_store) {
            let mut fewer = steps.to_vec();
            fewer.remove(missing);
            assert!(self.check(&fewer).is_err(), "legal without step {missing}, {}", steps[missing]);
        }
    }
}

fn retried(len: u64) -> Target {
    // SAFETY: no CPU accesses the range.
    Target::Retried(unsafe { Retried::new(VaRange::new(DATA, len)) })
}

fn access(access: Access) -> Change {
    Change { access: Some(access), ..Change::default() }
}

#[test]
fn a_new_frame_for_a_page_takes_every_step_of_break_before_make() {
    let mut machine = Machine::user(4 * PAGE, Leaves::Pages);
    let (tree, steps, window, arena) = machine.tree();
    let change = access(Access::UserReadOnly);
    let plan = tree.plan_remap(retried(PAGE), Pa(0x9000_0000), change, steps, window, arena).unwrap();
    let steps = plan.steps().to_vec();
    assert_eq!(steps.len(), 7);
    machine.needs_every_step(&steps);
}

#[test]
fn a_new_frame_for_a_leaf_in_use_is_refused() {
    let mut machine = Machine::user(4 * PAGE, Leaves::Pages);
    let (tree, steps, window, arena) = machine.tree();
    let target = Target::InUse(VaRange::new(DATA, PAGE));
    let error = tree.plan_remap(target, Pa(0x9000_0000), Change::default(), steps, window, arena);
    assert!(matches!(error, Err(PlanError::NeedsBreak { va: DATA, .. })), "{error:?}");
}

#[test]
fn a_new_memory_type_takes_cache_maintenance_after_an_isb() {
    let mut machine = Machine::user(4 * PAGE, Leaves::Pages);
    let (tree, steps, window, arena) = machine.tree();
    let (target, memory) = (retried(2 * PAGE), MemoryType::DeviceNgnre);
    // SAFETY: nobody accesses the memory.
    let plan = unsafe {
        tree.plan_memory_type(target, memory, Maintenance::ByMapping, steps, window, arena).unwrap()
    };
    let steps = plan.steps().to_vec();
    assert_eq!(steps.last(), Some(&Step::CleanInvalidate { va: DATA, len: 2 * PAGE }));
    machine.needs_every_step(&steps);
    let (most, clean) = steps.split_at(steps.len() - 1);
    assert_eq!(machine.check(most), Err(BrokenRule::NotCleaned { va: DATA }));
    let less = [most, &[Step::CleanInvalidate { va: DATA, len: PAGE }]].concat();
    assert_eq!(machine.check(&less), Err(BrokenRule::NotCleaned { va: DATA }));
    let (rest, isb) = most.split_at(most.len() - 1);
    let early = [rest, clean, isb].concat();
    assert_eq!(machine.check(&early), Err(BrokenRule::CleanedEarly { va: DATA }));
}

/// aarch64-paging 0.12.3 invalidates stage 2 by IPAS2E1IS alone.
#[test]
fn a_guest_is_not_left_with_entries_that_combine_both_stages() {
    let mut machine = Machine::guest(4 * PAGE);
    let (tree, steps, window, arena) = machine.tree();
    let change = access(Access::GuestReadOnly);
    let plan = tree.plan_protect(retried(PAGE), change, steps, window, arena).unwrap();
    let steps = plan.steps().to_vec();
    machine.needs_every_step(&steps);
    let stage_1 = Step::Invalidate(Invalidation::Stage1);
    let at = steps.iter().position(|step| *step == stage_1).expect("VMALLE1IS");
    let ipa_alone = [&steps[..at], &steps[at + 2..]].concat();
    assert_eq!(machine.check(&ipa_alone), Err(BrokenRule::CombinedHeld { va: DATA }));
    // Before the DSB that completes the invalidation by IPA, a new one could be combined.
    let mut early = steps.clone();
    early.swap(at - 1, at);
    assert_eq!(machine.check(&early), Err(BrokenRule::CombinedHeld { va: DATA }));
    let (tree, steps, window, arena) = machine.tree();
    let plan = tree.plan_unmap(retried(4 * PAGE), steps, window, arena).unwrap();
    let steps = plan.steps().to_vec();
    machine.needs_every_step(&steps[..steps.len() - 1]);
}

/// In aarch64-paging 0.12.3 an updater that acts on level 3 alone passes the dry run, which sees
/// the block, and then one store splits it.
#[test]
fn a_live_block_is_not_split_by_one_store_for_an_updater_that_acts_on_pages_alone() {
    let mut machine = Machine::user(2 * BLOCK, Leaves::ContiguousBlocks);
    let page = VaRange::new(Va(DATA.0 + 5 * PAGE), PAGE);
    let (tree, steps, window, arena) = machine.tree();
    let change = access(Access::UserReadOnly);
    let error = tree.plan_protect(Target::InUse(page), change, steps, window, arena).map(drop);
    assert_eq!(error, Err(PlanError::NeedsLevel3 { va: DATA, bbm: BbmLevel::L0 }));
    // That store itself, with all barriers and an invalidation.
    let geometry = machine.space.geometry();
    let table = machine.arena.alloc().unwrap();
    // SAFETY: the window reaches the frame, a whole table.
    let entries = unsafe { machine.window.open(Level::L3, table) };
    for index in 0..512 {
        let pa = Pa(MEMORY.0 + index as u64 * PAGE);
        // SAFETY: the table is open and has 512 entries.
        unsafe { entries.add(index).write(Descriptor::page(geometry, pa, Attributes::USER_DATA).0) };
    }
    machine.window.close(Level::L3);
    let (tree, steps, window, arena) = machine.tree();
    let plan = tree.plan_unmap(retried(BLOCK), steps, window, arena).unwrap();
    let mut steps = plan.steps().to_vec();
    let Some(Step::Store(store)) = steps.first_mut() else { panic!("{steps:?}") };
    store.edit = Edit::Write { first: Descriptor::table(geometry, table), step: 0 };
    steps.insert(0, Step::Dsb(linmap_table::cpu::Dsb::Ishst));
    let refused = machine.check(&steps);
    let size = Requirement::BreakBeforeMake(linmap_vmsa::bbm::Reason::Size);
    assert!(
        matches!(refused, Err(BrokenRule::Forbidden { requirement, .. }) if requirement == size),
        "{refused:?}"
    );
}

/// In aarch64-paging 0.12.3 a block mapped over a table of pages leaves the pages.
#[test]
fn pages_that_could_be_a_block_become_one_again() {
    let mut machine = Machine::user(BLOCK, Leaves::Pages);
    assert_eq!(machine.space.leaves(&mut machine.window).count(), 512);
    let used = machine.arena.used();
    let (tree, steps, window, arena) = machine.tree();
    let plan = tree.plan_fold(retried(BLOCK), steps, window, arena).unwrap();
    let checked = plan.check(window).unwrap();
    // SAFETY: no CPU walks the tree.
    unsafe { checked.apply(window, &mut HostCpu::default()) }.free(window, arena);
    let leaves: Vec<_> = machine.space.leaves(&mut machine.window).collect();
    assert_eq!((leaves.len(), leaves[0].level), (1, Level::L2));
    assert_eq!(machine.arena.used(), used - 1);
}

#[test]
fn a_global_leaf_in_the_tree_of_one_asid_is_refused_by_the_check_too() {
    let mut machine = Machine::user(4 * PAGE, Leaves::Pages);
    let (tree, steps, window, arena) = machine.tree();
    let (to, change) = (Pa(0x9000_0000), Change::default());
    let plan = tree.plan_remap(retried(PAGE), to, change, steps, window, arena).unwrap();
    let mut steps = plan.steps().to_vec();
    let global = Descriptor::page(machine.space.geometry(), to, Attributes::KERNEL_DATA);
    let Some(Step::Store(store)) = steps.get_mut(4) else { panic!("the new page") };
    store.edit = Edit::Write { first: global, step: 0 };
    assert_eq!(machine.check(&steps), Err(BrokenRule::GlobalLeaf { va: DATA, level: Level::L3 }));
}

#[test]
fn software_bits_and_the_access_flag_survive_split_protect_and_fold() {
    for regime in [Regime::El1And0, Regime::Stage2(Stage2::Base)] {
        let (attributes, read_only) = match regime {
            Regime::El1And0 => (Attributes::USER_DATA, Access::UserReadOnly),
            _ => (Attributes::GUEST_RAM, Access::GuestReadOnly),
        };
        let leaves = Leaves::ContiguousBlocks;
        let mut machine = Machine::new(regime, BbmLevel::L3, 2 * BLOCK, attributes, leaves);
        let block = VaRange::new(DATA, BLOCK);
        // SAFETY: no CPU accesses the range.
        let target = |range| Target::Retried(unsafe { Retried::new(range) });
        let marks = Marks { accessed: Some(false), software: Some(0b1010) };
        let page = VaRange::new(Va(DATA.0 + 3 * PAGE), PAGE);
        for round in 0..4 {
            let (tree, steps, window, arena) = machine.tree();
            let plan = match round {
                0 => tree.plan_mark(target(block), marks, steps, window, arena),
                1 => tree.plan_protect(target(page), access(read_only), steps, window, arena),
                2 => tree.plan_protect(target(page), access(attributes.access), steps, window, arena),
                _ => tree.plan_fold(target(block), steps, window, arena),
            };
            let checked = plan.unwrap().check(window).unwrap();
            // SAFETY: no CPU walks the tree.
            unsafe { checked.apply(window, &mut HostCpu::default()) }.free(window, arena);
            let geometry = machine.space.geometry();
            for leaf in machine.space.leaves(&mut machine.window) {
                let marked = leaf.va.0 < DATA.0 + BLOCK;
                let software = if marked { 0b1010 } else { 0 };
                assert_eq!(leaf.descriptor.0 >> 55 & 15, software, "{regime} {round} {}", leaf.va);
                assert_eq!(leaf.attributes(geometry).unwrap().accessed, !marked);
            }
        }
        assert_eq!(machine.space.leaves(&mut machine.window).count(), 2, "unlike neighbours stay apart");
        let (tree, steps, window, arena) = machine.tree();
        let too_many = Marks { software: Some(16), ..Marks::default() };
        let error = tree.plan_mark(target(block), too_many, steps, window, arena).map(drop);
        assert_eq!(error, Err(PlanError::NoSuchSoftwareBits { software: 16 }));
    }
}

#[test]
fn a_change_that_the_regime_can_not_say_is_refused_by_name() {
    let mut guest = Machine::guest(4 * PAGE);
    let (tree, steps, window, arena) = guest.tree();
    let kernel = Access::KernelReadOnly;
    let error = tree.plan_protect(retried(PAGE), access(kernel), steps, window, arena).map(drop);
    assert_eq!(error, Err(PlanError::Attributes(AttributeError::NotGuestAccess { access: kernel })));
    let execute = Change { execute: Some(Execute::User), ..Change::default() };
    let error = tree.plan_protect(retried(PAGE), execute, steps, window, arena).map(drop);
    assert!(matches!(error, Err(PlanError::Attributes(AttributeError::ExecuteOfOneLevel { .. }))));
    // SAFETY: nothing is planned.
    let tagged = unsafe {
        tree.plan_memory_type(
            retried(PAGE),
            MemoryType::NormalTagged,
            Maintenance::ByAlias(Va(0)),
            steps,
            window,
            arena,
        )
    };
    assert!(matches!(tagged, Err(PlanError::Attributes(AttributeError::TaggedAtStage2))));

    let mut user = Machine::user(4 * PAGE, Leaves::Pages);
    let (tree, steps, window, arena) = user.tree();
    let guests = access(Access::GuestReadOnly);
    let error = tree.plan_protect(retried(PAGE), guests, steps, window, arena).map(drop);
    assert!(matches!(error, Err(PlanError::Attributes(AttributeError::GuestAccess { .. }))), "{error:?}");
    let error = tree.plan_remap(retried(PAGE), MEMORY, guests, steps, window, arena).map(drop);
    assert!(matches!(error, Err(PlanError::Attributes(AttributeError::GuestAccess { .. }))), "{error:?}");
}
