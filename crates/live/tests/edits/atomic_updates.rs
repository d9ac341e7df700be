//! Plans for trees that hardware updates at any moment: what they change by atomic updates, what
//! the check refuses, and what is reported.

use core::ptr::NonNull;

use linmap_live::{BrokenRule, Change, Half, Step, Store, Target, Update};
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{Leaves, OffsetWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Descriptor, HardwareUpdates, Level, Va, VaRange};

use crate::live::machine::{BASE, Edit, G, MIB, Machine, PAGE, in_use, quiescent, range};
use crate::live::{HostCpu, live};

const VALID: u64 = 1;
const ACCESSED: u64 = 1 << 10;
const READ_ONLY: u64 = 1 << 7;
const DIRTY_MODIFIER: u64 = 1 << 51;
const CONTIGUOUS: u64 = 1 << 52;

const BOTH: HardwareUpdates = HardwareUpdates::AccessedAndDirty;

const CLEAN: Change = Change { access: Some(Access::KernelReadWriteClean), execute: None, valid: None };
const RO: Change = Change { access: Some(Access::KernelReadOnly), execute: None, valid: None };

/// A tree that hardware updates, with 4 MiB by these leaves, tracked and clean.
fn machine(bbm: BbmLevel, leaves: Leaves) -> Machine {
    let mut machine = Machine::new(bbm);
    machine.edit(in_use(0, 4 * MIB), Edit::Map(leaves)).unwrap();
    let root = machine.tree.root();
    // SAFETY: nothing walks the tree.
    machine.tree = unsafe { live(G, root, Half::High, bbm).with_hardware_updates(BOTH) };
    machine.edit(quiescent(0, 4 * MIB), Edit::Protect(CLEAN)).unwrap();
    machine
}

/// Applies `edit` on `cpu`, and returns what was reported.
fn reported<C: Cpu>(machine: &mut Machine, cpu: &mut C, target: Target, edit: Edit) -> Vec<VaRange> {
    let mut steps = vec![Step::Isb; 64];
    let mut reported = Vec::new();
    let Machine { arena, window, tree, .. } = machine;
    let plan = match edit {
        Edit::Protect(change) => tree.plan_protect(target, change, &mut steps, window, arena),
        Edit::Unmap => tree.plan_unmap(target, &mut steps, window, arena),
        Edit::Fold => tree.plan_fold(target, &mut steps, window, arena),
        Edit::Split(to) => tree.plan_split(target, to, &mut steps, window, arena),
        Edit::Map(_) => unreachable!("maps over nothing"),
    };
    let checked = plan.unwrap().check(window).unwrap_or_else(|(_, refused)| panic!("{refused}"));
    // SAFETY: no CPU walks the tree.
    let applied = unsafe { checked.apply_reporting(window, cpu, |range| reported.push(range)) };
    applied.free(window, arena);
    reported
}

/// A CPU beside which hardware updates an entry between the read of it and the compare-exchange.
#[derive(Default)]
struct Raced {
    cpu: HostCpu,
    /// How many compare-exchanges hardware still disturbs.
    updates: usize,
}

// SAFETY: passes on what the CPU does.
unsafe impl Cpu for Raced {
    type Frames = OffsetWindow;

    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        // SAFETY: the caller's.
        unsafe { self.cpu.store(entry, descriptor) };
    }
    unsafe fn compare_exchange(
        &mut self,
        entry: NonNull<u64>,
        expected: Descriptor,
        new: Descriptor,
    ) -> Result<(), Descriptor> {
        if self.updates > 0 && expected.is_valid() && expected.0 & DIRTY_MODIFIER != 0 {
            self.updates -= 1;
            // SAFETY: the caller's.
            unsafe { entry.write_volatile(BOTH.of_leaf(G.regime(), Descriptor(entry.read_volatile())).0) };
        }
        // SAFETY: the caller's.
        unsafe { self.cpu.compare_exchange(entry, expected, new) }
    }
    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        // SAFETY: the caller's.
        unsafe { self.cpu.reach(va) }
    }
    unsafe fn frames_at(&mut self, offset: u64) -> OffsetWindow {
        // SAFETY: the caller's.
        unsafe { self.cpu.frames_at(offset) }
    }
    fn dsb(&mut self, dsb: Dsb) {
        self.cpu.dsb(dsb);
    }
    fn isb(&mut self) {
        self.cpu.isb();
    }
    fn tlbi(&mut self, tlbi: Tlbi) {
        self.cpu.tlbi(tlbi);
    }
    unsafe fn clean_and_invalidate(&mut self, _: Va, _: u64) {}
    unsafe fn write_ttbr0(&mut self, _: u64) {}
    unsafe fn write_ttbr1(&mut self, _: u64) {}
    unsafe fn write_tcr(&mut self, _: u64) {}
}

/// The plan with each update of bits made a plain store.
fn with_plain_stores(steps: &[Step]) -> Vec<Step> {
    let plain = |step: &Step| match *step {
        Step::Store(Store {
            edit: linmap_live::Edit::Update(Update::Bits { clear, set }),
            va,
            table,
            level,
            index,
            count,
        }) => {
            let edit = linmap_live::Edit::Bits { clear, set };
            Step::Store(Store { va, table, level, index, count, edit })
        }
        Step::Store(Store {
            edit: linmap_live::Edit::Update(Update::Link { table: first, .. }),
            va,
            table,
            level,
            index,
            count,
        }) => {
            let edit = linmap_live::Edit::Write { first, step: 0 };
            Step::Store(Store { va, table, level, index, count, edit })
        }
        step => step,
    };
    steps.iter().map(plain).collect()
}

fn is_update(step: &Step, is: fn(&Update) -> bool) -> bool {
    matches!(step, Step::Store(Store { edit: linmap_live::Edit::Update(update), .. }) if is(update))
}

/// The broken rule of a plan with a step of this kind left out, or moved before the invalidation.
fn without(
    machine: &mut Machine,
    target: Target,
    steps: &[Step],
    is: fn(&Update) -> bool,
) -> [BrokenRule; 2] {
    let nth = steps.iter().position(|step| is_update(step, is)).expect("a step");
    let mut missing = steps.to_vec();
    let step = missing.remove(nth);
    let mut early = missing.clone();
    let first = early.iter().position(|step| matches!(step, Step::Dsb(_))).expect("a DSB");
    early.insert(first + 1, step);
    [missing, early].map(|steps| machine.check(target, &steps).unwrap_err().rule)
}

#[test]
fn a_plain_store_to_a_leaf_that_hardware_updates_is_refused() {
    for (leaves, target, edit) in [
        (Leaves::Pages, in_use(0x3000, PAGE), Edit::Protect(RO)),
        (Leaves::Pages, in_use(0x3000, PAGE), Edit::Unmap),
        (Leaves::Blocks, in_use(0x3000, PAGE), Edit::Split(Level::L3)),
        (Leaves::Blocks, in_use(0, 2 * MIB), Edit::Unmap),
    ] {
        let mut machine = machine(BbmLevel::L3, leaves);
        let steps = machine.plan(target, edit).unwrap();
        assert_eq!(machine.check(target, &steps), Ok(()), "{edit:?}");
        let plain = with_plain_stores(&steps);
        assert_ne!(plain, steps);
        let rule = machine.check(target, &plain).unwrap_err().rule;
        assert!(matches!(rule, BrokenRule::UpdateLost { .. }), "{edit:?}: {rule}");
        // What hardware has updated already it does not update again.
        for nth in 0..1024 {
            if leaves == Leaves::Pages {
                machine.poke(nth * PAGE, Level::L3, |bits| bits & !READ_ONLY);
            }
        }
        if leaves == Leaves::Pages {
            assert_eq!(machine.check(target, &plain), Ok(()), "{edit:?}");
        }
    }
}

#[test]
fn a_link_over_another_block_than_the_table_was_written_for_is_refused() {
    let mut machine = machine(BbmLevel::L3, Leaves::Blocks);
    let target = in_use(0x3000, PAGE);
    let mut steps = machine.plan(target, Edit::Split(Level::L3)).unwrap();
    // Hardware may have updated the block since.
    machine.poke(0, Level::L2, |bits| bits & !READ_ONLY);
    assert_eq!(machine.check(target, &steps), Ok(()));
    for step in &mut steps {
        if let Step::Store(Store { edit: linmap_live::Edit::Update(Update::Link { over, .. }), .. }) = step {
            over.0 += 2 * MIB;
        }
    }
    let rule = machine.check(target, &steps).unwrap_err().rule;
    assert!(matches!(rule, BrokenRule::UpdateLost { .. }), "{rule}");
}

#[test]
fn what_hardware_updates_in_a_former_run_is_gathered_after_its_invalidation() {
    for (bbm, target) in [
        (BbmLevel::L3, in_use(0x2_3000, PAGE)),
        (BbmLevel::L2, quiescent(0x2_3000, PAGE)),
        (BbmLevel::L0, quiescent(0x2_3000, PAGE)),
    ] {
        let mut machine = machine(bbm, Leaves::ContiguousBlocks);
        machine.edit(quiescent(0, 2 * MIB), Edit::Split(Level::L3)).unwrap();
        machine.edit(quiescent(0, MIB), Edit::Fold).unwrap();
        let steps = machine.plan(target, Edit::Split(Level::L3)).unwrap();
        assert_eq!(machine.check(target, &steps), Ok(()));
        let [missing, early] = without(&mut machine, target, &steps, |update| *update == Update::Gather);
        assert!(matches!(missing, BrokenRule::NotGathered { .. }), "{bbm:?}: {missing}");
        assert!(matches!(early, BrokenRule::GatheredEarly { .. }), "{bbm:?}: {early}");
        // One entry is updated after the plan: it counts for all.
        let mut raced = Raced { updates: 1, ..Raced::default() };
        assert_eq!(reported(&mut machine, &mut raced, target, Edit::Split(Level::L3)), []);
        for leaf in machine.leaves().iter().filter(|leaf| leaf.va - BASE < 0x5_0000) {
            let in_run = (0x2_0000..0x3_0000).contains(&(leaf.va - BASE));
            assert_eq!(leaf.bits & READ_ONLY == 0, in_run, "{bbm:?}: {:#x}", leaf.va);
            assert_eq!(leaf.bits & CONTIGUOUS == 0, in_run, "{bbm:?}: {:#x}", leaf.va);
        }
    }
}

#[test]
fn what_hardware_updates_in_a_removed_table_is_collected_after_its_invalidation() {
    for (bbm, target) in [
        (BbmLevel::L3, in_use(0, 2 * MIB)),
        (BbmLevel::L2, quiescent(0, 2 * MIB)),
        (BbmLevel::L1, quiescent(0, 2 * MIB)),
    ] {
        let mut machine = machine(bbm, Leaves::Pages);
        let steps = machine.plan(target, Edit::Fold).unwrap();
        assert_eq!(machine.check(target, &steps), Ok(()));
        let is = |update: &Update| matches!(update, Update::Collect { .. });
        let [missing, early] = without(&mut machine, target, &steps, is);
        assert!(matches!(missing, BrokenRule::NotCollected { .. }), "{bbm:?}: {missing}");
        assert!(matches!(early, BrokenRule::GatheredEarly { .. }), "{bbm:?}: {early}");
        // A page is written after the plan.
        let mut room = vec![Step::Isb; 64];
        let Machine { arena, window, tree, cpu } = &mut machine;
        let checked = tree.plan_fold(target, &mut room, window, arena).unwrap().check(window).unwrap();
        let table = steps.iter().find_map(|step| match step {
            Step::Free { table, .. } => Some(*table),
            _ => None,
        });
        arena.poke(table.unwrap(), 77, |bits| bits & !READ_ONLY);
        // SAFETY: no CPU walks the tree.
        unsafe { checked.apply(window, cpu) }.free(window, arena);
        let block = machine.leaves()[0];
        assert_eq!((block.level, block.bits & READ_ONLY), (Level::L2, 0), "{bbm:?}");
    }
}

#[test]
fn a_block_that_is_written_before_its_table_is_linked_makes_all_pages_dirty() {
    for (bbm, target) in [(BbmLevel::L3, in_use(0x3000, PAGE)), (BbmLevel::L1, quiescent(0x3000, PAGE))] {
        for updates in [0, 1] {
            let mut machine = machine(bbm, Leaves::Blocks);
            machine.poke(0, Level::L2, |bits| bits & !ACCESSED);
            let mut raced = Raced { updates, ..Raced::default() };
            assert_eq!(reported(&mut machine, &mut raced, target, Edit::Split(Level::L3)), []);
            let leaves = machine.leaves();
            for leaf in leaves.iter().filter(|leaf| leaf.va - BASE < 2 * MIB) {
                let expected = if updates == 1 { ACCESSED } else { READ_ONLY };
                assert_eq!(leaf.bits & (READ_ONLY | ACCESSED | VALID), expected | VALID, "{bbm:?} {updates}");
            }
        }
    }
}

#[test]
fn a_leaf_that_is_written_between_plan_and_apply_stays_dirty_or_is_reported() {
    let page = in_use(0x3000, PAGE);
    let never = Change { execute: Some(linmap_vmsa::Execute::Never), valid: Some(true), ..Change::default() };
    for (edit, is_reported) in [
        (Edit::Protect(RO), true),
        (Edit::Protect(CLEAN), false),
        (Edit::Unmap, true),
        (Edit::Protect(never), false),
    ] {
        let mut machine = machine(BbmLevel::L0, Leaves::Pages);
        let mut raced = Raced { updates: 1, ..Raced::default() };
        let found = reported(&mut machine, &mut raced, page, edit);
        let expected = if is_reported { vec![range(0x3000, PAGE)] } else { vec![] };
        assert_eq!(found, expected, "{edit:?}");
    }
    // Clean again, and clean still: reported once.
    let mut machine = machine(BbmLevel::L0, Leaves::Pages);
    machine.poke(0x3000, Level::L3, |bits| bits & !READ_ONLY);
    let mut cpu = HostCpu::default();
    let collect = Edit::Protect(CLEAN);
    assert_eq!(reported(&mut machine, &mut cpu, in_use(0, MIB), collect), [range(0x3000, PAGE)]);
    assert_eq!(cpu.tlbi.len(), 1, "the page is invalidated, so the next write marks it again");
    assert_eq!(reported(&mut machine, &mut cpu, in_use(0, MIB), collect), []);
}

#[test]
fn a_page_of_a_run_is_reported_with_all_of_it_and_a_removed_table_page_by_page() {
    let mut machine = machine(BbmLevel::L3, Leaves::ContiguousBlocks);
    machine.edit(in_use(0, 2 * MIB), Edit::Split(Level::L3)).unwrap();
    machine.edit(in_use(0, MIB), Edit::Fold).unwrap();
    machine.poke(0x2_3000, Level::L3, |bits| bits & !READ_ONLY);
    machine.poke(MIB + 0x5000, Level::L3, |bits| bits & !READ_ONLY);
    let mut cpu = HostCpu::default();
    let found = reported(&mut machine, &mut cpu, in_use(0x2_0000, 0x1_0000), Edit::Protect(RO));
    assert_eq!(found, [range(0x2_0000, 0x1_0000)]);
    let found = reported(&mut machine, &mut cpu, in_use(0, 2 * MIB), Edit::Unmap);
    assert_eq!(found, [range(MIB + 0x5000, PAGE)]);
}
