//! Random edits of live trees on host memory: the tree says what a plain list of segments says,
//! runs and tables are whole, every frame is accounted for, and a failure changes nothing.

use crate::live::segments::{Segment, Segments, said};
use crate::live::{Arena, HostCpu, Tables, live, tables};
use linmap_live::{
    BrokenRule, Change, Global, Half, Invalidation, LiveTree, Parked, Plan, PlanError, Quiescent, Step,
    Target,
};
use linmap_table::cpu::Dsb;
use linmap_table::{Leaves, Mapping, Mappings, OffsetWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{
    Access, Attributes, Descriptor, Execute, Geometry, Granule, Level, Pa, TablePermissions, Va, VaRange,
};
use proptest::prelude::*;

const CONTIGUOUS: u64 = 1 << 52;

#[derive(Clone, Copy, Debug)]
enum Op {
    Map {
        leaves: Leaves,
        shift: bool,
    },
    Unmap,
    Protect(Change),
    Split(Level),
    Fold,
    /// Of parked trees alone.
    Global(Global),
}

/// Who uses the range while it is edited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Anybody,
    Nobody,
    Parked,
}

impl Who {
    fn target(self, range: VaRange) -> Target {
        match self {
            Self::Anybody => Target::InUse(range),
            // SAFETY: no CPU runs.
            Self::Nobody => Target::Quiescent(unsafe { Quiescent::new(range) }),
            // SAFETY: no CPU walks the tree.
            Self::Parked => Target::Parked(unsafe { Parked::new(range) }),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Edit {
    op: Op,
    who: Who,
    /// Start and length in units: the unit's kind (page, run, block ...) and how many.
    start: (u8, u64),
    len: (u8, u64),
}

fn ops() -> impl Strategy<Value = Edit> {
    let access = prop_oneof![
        Just(None),
        Just(Some(Access::KernelReadOnly)),
        Just(Some(Access::KernelReadWrite)),
        Just(Some(Access::UserReadOnly)),
    ];
    let execute = prop_oneof![Just(None), Just(Some(Execute::Never)), Just(Some(Execute::Kernel))];
    let valid = prop_oneof![3 => Just(None), 1 => Just(Some(false)), 2 => Just(Some(true))];
    let change = (access, execute, valid)
        .prop_map(|(access, execute, valid)| Op::Protect(Change { access, execute, valid }));
    let op = prop_oneof![
        3 => (prop_oneof![Just(Leaves::Pages), Just(Leaves::Blocks), Just(Leaves::ContiguousBlocks)],
            prop::bool::weighted(0.2)).prop_map(|(leaves, shift)| Op::Map { leaves, shift }),
        2 => Just(Op::Unmap),
        5 => change,
        2 => (1..=3i8).prop_map(|level| Op::Split(Level::new(level).unwrap())),
        3 => Just(Op::Fold),
        1 => prop_oneof![Just(Op::Global(Global::Global)), Just(Op::Global(Global::NonGlobal))],
    ];
    let who = prop_oneof![Just(Who::Anybody), Just(Who::Nobody), Just(Who::Parked)];
    (op, who, (0..5u8, 0..40u64), (0..5u8, 1..40u64)).prop_map(|(op, who, start, len)| Edit {
        op,
        who: match op {
            Op::Global(_) => Who::Parked,
            // Any CPU may access addresses that are invalid.
            Op::Map { .. } => Who::Anybody,
            _ => who,
        },
        start,
        len,
    })
}

/// A live tree in host memory.
struct Machine {
    geometry: Geometry,
    arena: Arena,
    window: OffsetWindow,
    tree: LiveTree,
    quick: bool,
    bbm: BbmLevel,
}

/// Bytes that edits are made in: two of the largest blocks and what a run of the next level needs.
fn arena_bytes(geometry: Geometry) -> u64 {
    2 * geometry.entry_bytes(Level::L2) * if geometry.granule() == Granule::K4 { 512 } else { 2 }
}

fn units(geometry: Geometry) -> [u64; 5] {
    let run = |level| geometry.entry_bytes(level) * geometry.contiguous_entries(level).unwrap() as u64;
    [
        geometry.entry_bytes(Level::L3),
        run(Level::L3),
        geometry.entry_bytes(Level::L2),
        run(Level::L2).min(arena_bytes(geometry) / 2),
        arena_bytes(geometry) / 2,
    ]
}

impl Machine {
    fn new(geometry: Geometry, half: Half, bbm: BbmLevel, ranges: bool) -> Self {
        let mut arena = Arena::new(geometry, if geometry.granule() == Granule::K4 { 1200 } else { 24 });
        let root = arena.empty_root(geometry);
        let window = arena.window();
        let tree = live(geometry, root, half, bbm);
        // SAFETY: no hardware walks the tree.
        let tree = if ranges { unsafe { tree.with_range_invalidation() } } else { tree };
        Self { geometry, arena, window, tree, quick: false, bbm }
    }

    fn tables(&self) -> Tables {
        tables(&self.arena, self.geometry, self.tree.root(), self.tree.base().0)
    }

    /// The table at `level` on the way to `va`, and the index of its entry.
    fn way_to(&self, va: u64, level: Level) -> (Pa, usize) {
        let Self { geometry, ref arena, ref tree, .. } = *self;
        let (mut table, mut at) = (tree.root(), geometry.start_level());
        while at != level {
            let entry = Descriptor(arena.entry(table, geometry.index(Va(va), at)));
            (table, at) = (entry.next_table(geometry).unwrap(), at.next().unwrap());
        }
        (table, geometry.index(Va(va), level))
    }

    /// First byte that edits are made in: at the end of the half.
    fn first(&self) -> u64 {
        let end = (1u64 << self.geometry.va_bits()).wrapping_add(self.tree.base().0);
        end.wrapping_sub(arena_bytes(self.geometry))
    }

    fn plan<'b>(
        &'b mut self,
        op: Op,
        range: VaRange,
        who: Who,
        steps: &'b mut [Step],
    ) -> Result<(Plan<'b>, OffsetWindow, &'b mut Arena), PlanError> {
        let target = who.target(range);
        let Self { tree, window, arena, geometry, .. } = self;
        let geometry = *geometry;
        let plan = match op {
            Op::Map { leaves, shift } => {
                let list = [mapping(geometry, range, leaves, shift)];
                let mappings = Mappings::new(geometry, &list).unwrap();
                tree.plan_map(&mappings, steps, window, arena)
            }
            Op::Unmap => tree.plan_unmap(target, steps, window, arena),
            Op::Protect(change) => tree.plan_protect(target, change, steps, window, arena),
            Op::Split(to) => tree.plan_split(target, to, steps, window, arena),
            Op::Fold => tree.plan_fold(target, steps, window, arena),
            Op::Global(global) => {
                // SAFETY: no CPU walks the tree.
                tree.plan_global(unsafe { Parked::new(range) }, global, steps, window, arena)
            }
        }?;
        Ok((plan, *window, arena))
    }

    fn run(&mut self, edit: Edit, model: &mut Segments) {
        let Some(range) = self.range(edit) else { return };
        let (first, last) = (range.start.0, range.last().unwrap().0);
        let before = self.tables();
        let used = self.arena.used();
        // A frame short, for every number of frames there could be.
        for allowed in (0..if self.quick { 0 } else { 8 }).rev() {
            self.arena.allowed = allowed;
            let mut steps = vec![Step::Isb; 0x4000];
            let result = self.plan(edit.op, range, edit.who, &mut steps);
            match result {
                Ok((plan, mut window, arena)) => plan.abandon(&mut window, arena),
                Err(PlanError::OutOfFrames(_)) => {}
                Err(_) => break,
            }
            assert_eq!(self.arena.used(), used, "a frame leaked");
        }
        // Short lists of steps.
        for room in 0..if self.quick { 0 } else { 4 } {
            self.arena.allowed = usize::MAX;
            let mut steps = vec![Step::Isb; room];
            if let Ok((plan, mut window, arena)) = self.plan(edit.op, range, edit.who, &mut steps) {
                plan.abandon(&mut window, arena);
            }
            assert_eq!(self.arena.used(), used, "a frame leaked");
        }
        self.arena.allowed = usize::MAX;
        let mut steps = vec![Step::Isb; 0x4000];
        let bbm = self.bbm;
        let error = match self.plan(edit.op, range, edit.who, &mut steps) {
            Ok((plan, mut window, arena)) => {
                let steps = plan.steps().to_vec();
                let checked = plan.check(&mut window).unwrap_or_else(|(_, refused)| {
                    let listing: Vec<String> = steps.iter().map(ToString::to_string).collect();
                    panic!("{edit:?} {bbm:?}: {refused}\n{}", listing.join("\n"))
                });
                // SAFETY: the window is the same, and no CPU runs.
                let applied = unsafe { checked.apply(&mut window, &mut HostCpu::default()) };
                let counts = applied.free(&mut window, arena);
                let stored: u64 =
                    steps.iter().map(|s| if let Step::Store(s) = s { s.count.into() } else { 0 }).sum();
                // How many leaves there are is not in the plan.
                let every_leaf = steps.iter().any(|step| matches!(step, Step::EveryLeaf(_)));
                assert!(if every_leaf { counts.entries > stored } else { counts.entries == stored });
                let frees = steps.iter().filter(|step| matches!(step, Step::Free { .. })).count();
                assert_eq!(counts.freed, frees as u64);
                if edit.who == Who::Parked {
                    closes(&steps);
                }
                None
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            assert_eq!(self.arena.used(), used, "a frame leaked");
            assert!(before == self.tables(), "{error}");
            self.expect_error(edit, first, last, model, error);
            return;
        }
        *model = match edit.op {
            Op::Map { leaves, shift } => {
                let mapping = mapping(self.geometry, range, leaves, shift);
                assert!(!is_in_the_way(model, first, last, mapping), "mapped over other memory");
                let Attributes { access, execute, .. } = mapping.attributes;
                let rest = model.changed(first, last, |_| None);
                rest.with(Segment {
                    first,
                    last,
                    pa: mapping.pa.0,
                    access,
                    execute,
                    global: true,
                    valid: true,
                })
            }
            Op::Unmap => model.changed(first, last, |_| None),
            Op::Protect(change) => {
                assert!(model.covers(first, last), "a hole was protected");
                assert!(is_left(change, self.geometry.table_permissions()), "the tables take it away");
                model.changed(first, last, |segment| {
                    let access = change.access.unwrap_or(segment.access);
                    let execute = change.execute.unwrap_or(segment.execute);
                    assert!(!access.writable() || execute == Execute::Never, "W+X");
                    Some(Segment { access, execute, valid: change.valid.unwrap_or(segment.valid), ..segment })
                })
            }
            Op::Global(global) => model.changed(first, last, |segment| {
                Some(Segment { global: global == Global::Global, ..segment })
            }),
            Op::Split(_) | Op::Fold => model.clone(),
        };
        let after = self.tables();
        assert_eq!(said(self.geometry, &after), *model);
        assert_eq!(self.arena.used(), after.tables.len() as u64, "frames in use are those of the tables");
        if let Op::Split(to) = edit.op {
            for leaf in after.leaves.iter().filter(|leaf| leaf.va >= first && leaf.va <= last) {
                assert!(leaf.level > to || (leaf.level == to && leaf.bits & CONTIGUOUS == 0));
            }
        }
    }

    fn expect_error(&self, edit: Edit, first: u64, last: u64, model: &Segments, error: PlanError) {
        match error {
            PlanError::EntryInUse(_) | PlanError::MappedOver { .. } => {
                let Op::Map { leaves, shift } = edit.op else { panic!("{error}") };
                let range = VaRange::new(Va(first), last - first + 1);
                assert!(is_in_the_way(model, first, last, mapping(self.geometry, range, leaves, shift)));
            }
            PlanError::PartOfLeaf { .. } => {
                let Op::Map { leaves, shift } = edit.op else { panic!("{error}") };
                let range = VaRange::new(Va(first), last - first + 1);
                let Attributes { access, execute, .. } =
                    mapping(self.geometry, range, leaves, shift).attributes;
                let differs = |found: &Segment| (found.access, found.execute) != (access, execute);
                assert!(model.within(first, last).iter().any(differs));
            }
            PlanError::Hole { .. } => {
                assert!(matches!(edit.op, Op::Protect(_)) && !model.covers(first, last));
            }
            PlanError::NeedsLevel3 { .. } => {
                assert!(
                    edit.who == Who::Anybody
                        && self.bbm != BbmLevel::L3
                        && !matches!(edit.op, Op::Map { .. })
                );
            }
            PlanError::RunInUse { .. } => {
                assert!(
                    self.bbm == BbmLevel::L0
                        && match edit.op {
                            Op::Protect(_) => edit.who == Who::Anybody,
                            Op::Map { .. } => model.touches(first, last),
                            _ => false,
                        }
                );
            }
            PlanError::WritableAndExecutable { .. } => assert!(matches!(edit.op, Op::Protect(_))),
            PlanError::TakenByTables { tables, .. } => {
                let Op::Protect(change) = edit.op else { panic!("{error}") };
                assert_eq!(tables, self.geometry.table_permissions());
                assert!(!is_left(change, tables), "{error}");
            }
            PlanError::OutOfFrames(_) => assert!(self.arena.free.len() < 1024),
            other => panic!("{other}"),
        }
    }

    fn range(&self, edit: Edit) -> Option<VaRange> {
        let unit = units(self.geometry);
        let bytes = arena_bytes(self.geometry);
        let start = unit[edit.start.0 as usize].checked_mul(edit.start.1)? % bytes;
        let len = unit[edit.len.0 as usize].checked_mul(edit.len.1)?.min(bytes - start);
        Some(VaRange::new(Va(self.first().wrapping_add(start)), len))
    }
}

/// Whether tables that take away `tables` leave all that `change` allows.
fn is_left(change: Change, tables: TablePermissions) -> bool {
    let Change { access, execute, .. } = change;
    let attributes = Attributes::KERNEL_RODATA;
    tables.allows(Attributes {
        access: access.unwrap_or(attributes.access),
        execute: execute.unwrap_or(attributes.execute),
        ..attributes
    })
}

/// Whether something is mapped in `first..=last` that `mapping` must not be mapped over: other
/// memory, a non-global or an invalid leaf.
fn is_in_the_way(model: &Segments, first: u64, last: u64, mapping: Mapping) -> bool {
    model.within(first, last).iter().any(|found| {
        let pa = mapping.pa.0 + (found.first - first);
        found.pa != pa || !found.global || !found.valid
    })
}

/// Memory at a fixed offset from its addresses; `shift` moves it by a page, so that no block fits.
fn mapping(geometry: Geometry, range: VaRange, leaves: Leaves, shift: bool) -> Mapping {
    let granule = geometry.granule().bytes();
    let pa = (range.start.0 & (arena_bytes(geometry) - 1)) + if shift { granule } else { 0 };
    Mapping {
        va: range.start,
        pa: Pa(pa + arena_bytes(geometry)),
        len: range.len,
        attributes: Attributes::KERNEL_DATA,
        leaves,
    }
}

fn machines() -> impl Strategy<Value = (Geometry, Half, BbmLevel, bool)> {
    let geometry = prop_oneof![
        Just((Granule::K4, 48, 48)),
        Just((Granule::K4, 39, 48)),
        Just((Granule::K4, 33, 40)),
        Just((Granule::K4, 52, 52)),
        Just((Granule::K16, 47, 48)),
        Just((Granule::K16, 48, 52)),
        Just((Granule::K64, 48, 48)),
        Just((Granule::K64, 52, 52)),
    ]
    .prop_map(|(granule, va, pa)| Geometry::new(granule, va, pa).unwrap());
    let tables = prop_oneof![
        2 => Just(TablePermissions::UNRESTRICTED),
        1 => Just(TablePermissions::NEVER_EXECUTE.and(TablePermissions::NO_USER_ACCESS)),
    ];
    let geometry =
        (geometry, tables).prop_map(|(geometry, tables)| geometry.with_table_permissions(tables).unwrap());
    let half = prop_oneof![Just(Half::Low), Just(Half::High)];
    let bbm = prop_oneof![
        1 => Just(BbmLevel::L0),
        1 => Just(BbmLevel::L1),
        1 => Just(BbmLevel::L2),
        2 => Just(BbmLevel::L3),
    ];
    (geometry, half, bbm, any::<bool>())
}

/// A parked plan is stores, the closing sequence, and what is freed.
fn closes(steps: &[Step]) {
    let Some(end) = steps.iter().position(|step| matches!(step, Step::Dsb(_))) else {
        assert!(steps.is_empty());
        return;
    };
    assert!(steps[..end].iter().all(|step| matches!(step, Step::Store(_) | Step::EveryLeaf(_))));
    let closing =
        [Step::Dsb(Dsb::Ishst), Step::Invalidate(Invalidation::All), Step::Dsb(Dsb::Ish), Step::Isb];
    assert_eq!(steps[end..end + 4], closing);
    assert!(steps[end + 4..].iter().all(|step| matches!(step, Step::Free { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_tree_says_what_the_edits_made_of_it(
        (geometry, half, bbm, ranges) in machines(),
        edits in prop::collection::vec(ops(), 1..12),
        mapped in any::<bool>(),
    ) {
        let mut machine = Machine::new(geometry, half, bbm, ranges);
        let mut model = Segments::default();
        if mapped {
            let op = Op::Map { leaves: Leaves::ContiguousBlocks, shift: false };
            machine.run(Edit { op, who: Who::Anybody, start: (0, 0), len: (4, 2) }, &mut model);
        }
        for edit in edits {
            machine.run(edit, &mut model);
        }
        // Unmapping everything leaves the root alone.
        machine.run(Edit { op: Op::Unmap, who: Who::Anybody, start: (0, 0), len: (4, 2) }, &mut model);
        prop_assert_eq!(machine.arena.used(), 1);
    }

    #[test]
    fn folding_after_an_undo_gives_the_tables_of_the_start(
        (geometry, half, bbm, ranges) in machines(),
        edits in prop::collection::vec(ops(), 1..6),
    ) {
        let mut machine = Machine::new(geometry, half, bbm, ranges);
        machine.quick = true;
        let mut model = Segments::default();
        let whole = |op| Edit { op, who: Who::Nobody, start: (0, 0), len: (4, 2) };
        machine.run(whole(Op::Map { leaves: Leaves::ContiguousBlocks, shift: false }), &mut model);
        machine.run(whole(Op::Fold), &mut model);
        let start = machine.tables();
        for edit in edits {
            if matches!(edit.op, Op::Protect(_) | Op::Split(_) | Op::Fold | Op::Global(_)) {
                machine.run(edit, &mut model);
            }
        }
        let undo = Change {
            access: Some(Access::KernelReadWrite),
            execute: Some(Execute::Never),
            valid: Some(true),
        };
        machine.run(whole(Op::Protect(undo)), &mut model);
        machine.run(Edit { who: Who::Parked, ..whole(Op::Global(Global::Global)) }, &mut model);
        machine.run(whole(Op::Fold), &mut model);
        let end = machine.tables();
        // Table frames may be others; what they hold is the same.
        prop_assert_eq!(&start.leaves, &end.leaves);
        prop_assert_eq!(start.tables.len(), end.tables.len());
    }

    #[test]
    fn no_step_but_a_store_can_be_left_out_of_a_plan(
        (geometry, half, bbm, ranges) in machines(),
        edits in prop::collection::vec(ops(), 1..6),
    ) {
        let mut machine = Machine::new(geometry, half, bbm, ranges);
        machine.quick = true;
        let mut model = Segments::default();
        let op = Op::Map { leaves: Leaves::ContiguousBlocks, shift: false };
        machine.run(Edit { op, who: Who::Anybody, start: (0, 0), len: (4, 2) }, &mut model);
        for edit in edits {
            mutate(&mut machine, edit);
            machine.run(edit, &mut model);
        }
    }
}

/// Every step of the plan for `edit` but stores and frees is needed; so is the order around them.
fn mutate(machine: &mut Machine, edit: Edit) {
    let Some(range) = machine.range(edit) else { return };
    let mut steps = vec![Step::Isb; 0x4000];
    let Ok((plan, mut window, arena)) = machine.plan(edit.op, range, edit.who, &mut steps) else {
        return;
    };
    let steps = plan.steps().to_vec();
    // The new tables stay as they are until the next plan takes their frames.
    plan.abandon(&mut window, arena);
    let target = edit.who.target(range);
    let listing = || steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    // SAFETY: the plan's tables are in the arena, as below.
    let checked = unsafe { machine.tree.check(target, &steps, &mut window) };
    assert_eq!(checked, Ok(()), "\n{}", listing());
    let refused = |steps: &[Step], what: &str, window: &mut OffsetWindow| {
        // SAFETY: as above.
        let result = unsafe { machine.tree.check(target, steps, window) };
        assert!(result.is_err(), "{what} was accepted:\n{}", listing());
        result.unwrap_err().rule
    };
    // Several invalidations may cover each other where an entry changed twice.
    let single = steps.iter().filter(|step| matches!(step, Step::Invalidate(_))).count() == 1;
    // What a map protects was ordered before its links of new tables. Those are ordered by the DSB
    // behind the invalidation, too.
    let is_spare = |at: usize| {
        matches!(edit.op, Op::Map { .. })
            && steps[..at].contains(&Step::Dsb(Dsb::Ishst))
            && matches!(steps[at..], [Step::Dsb(Dsb::Ishst), Step::Invalidate(_), ..])
    };
    for at in 0..steps.len().min(40) {
        let mut without = steps.clone();
        let removed = without.remove(at);
        match removed {
            Step::Store(_) | Step::EveryLeaf(_) | Step::Free { .. } => {}
            Step::Invalidate(_) if !single => {}
            // Between an unfolded run and the link of a block elsewhere.
            Step::Dsb(Dsb::Ishst)
                if edit.who != Who::Parked
                    && matches!(edit.op, Op::Split(_))
                    && at > 0
                    && matches!(without[at], Step::Store(_)) => {}
            Step::Dsb(Dsb::Ishst) if is_spare(at) => {}
            // Above level 0 rounds may become one: what the first invalidates, the second
            // completes.
            Step::Dsb(Dsb::Ish)
                if without.iter().skip(at).any(|s| *s == removed) && machine.bbm != BbmLevel::L0 => {}
            _ => {
                refused(&without, &format!("without {removed}"), &mut window);
            }
        }
        if let Step::Free { table, .. } = removed {
            let mut early = without.clone();
            let dsb = early.iter().rposition(|s| matches!(s, Step::Dsb(_))).unwrap();
            early.insert(dsb, removed);
            let violation = refused(&early, "an early free", &mut window);
            assert!(matches!(violation, BrokenRule::FreedEarly { .. } | BrokenRule::NotRemoved { .. }));
            let mut twice = steps.clone();
            twice.push(removed);
            let violation = refused(&twice, "a double free", &mut window);
            assert!(matches!(violation, BrokenRule::NotRemoved { table: other, .. } if other == table));
        }
        if at > 0 {
            let mut swapped = steps.clone();
            swapped.swap(at - 1, at);
            match (steps[at - 1], steps[at]) {
                (Step::Dsb(_), Step::Invalidate(_)) | (Step::Invalidate(_), Step::Dsb(_)) if !single => {}
                (Step::Dsb(_), Step::Invalidate(_)) if is_spare(at - 1) => {}
                (Step::Dsb(_), Step::Invalidate(_) | Step::Isb) | (Step::Invalidate(_), Step::Dsb(_)) => {
                    refused(&swapped, "a swap", &mut window);
                }
                _ => {}
            }
        }
    }
}

/// A foreign tree, whose tables take away more than the geometry says, is never folded to a leaf
/// that allows it.
#[test]
fn a_fold_never_gives_back_what_a_table_takes_away() {
    for (tables, folds) in [
        (TablePermissions::UNRESTRICTED, true),
        (TablePermissions::NEVER_EXECUTE, true),
        (TablePermissions::READ_ONLY, false),
        (TablePermissions::NO_USER_ACCESS, true),
    ] {
        for (bbm, who) in
            [(BbmLevel::L3, Who::Anybody), (BbmLevel::L0, Who::Nobody), (BbmLevel::L0, Who::Parked)]
        {
            let mut machine = Machine::new(Geometry::K4_48, Half::High, bbm, false);
            machine.quick = true;
            let mut model = Segments::default();
            let op = Op::Map { leaves: Leaves::Pages, shift: false };
            machine.run(Edit { op, who: Who::Anybody, start: (0, 0), len: (2, 2) }, &mut model);
            // The first entry of the table of level 2.
            let (l2, index) = machine.way_to(machine.first(), Level::L2);
            machine.arena.poke(l2, index, |bits| bits | tables.bits(Geometry::K4_48.regime()));
            let range = VaRange::new(Va(machine.first()), 2 << 20);
            let mut steps = vec![Step::Isb; 64];
            let (plan, mut window, arena) = machine.plan(Op::Fold, range, who, &mut steps).unwrap();
            let is_block = |step: &Step| matches!(step, Step::Store(store) if store.level == Level::L2);
            assert_eq!(plan.steps().iter().any(is_block), folds, "{tables} {bbm:?} {who:?}");
            plan.abandon(&mut window, arena);
        }
    }
}
