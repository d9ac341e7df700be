//! Two editors of one space at the same time, each with a part of it, whose steps come in any
//! order: the machine finds nothing to object to, and each part translates as if it had been edited
//! alone. Two editors of the whole space break rules.

mod turns;

use std::thread;

use linmap_live::{
    AddressSpace, Change, EditCounts, Half, PartError, PlanError, SpaceError, SpacePart, Step, Tools,
};
use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, Leaves, Mapping, Mappings, TableWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Geometry, Granule, HardwareUpdates, Level, Pa, Stage2, Va, VaRange};
use proptest::prelude::*;

use crate::world::{AREA_PA, Op, Part, Plain, Setting, World};
use turns::{ByTurns, Carried, EDITORS, Turns};

const MIB: u64 = 1 << 20;
/// Other memory is this far away.
const COPIES: u64 = 1 << 34;

/// The setting whose area has its middle in a table at `level`, which the parts share.
fn setting(geometry: Geometry, bbm: BbmLevel, level: Level, updates: HardwareUpdates) -> Setting {
    let level = level.max(geometry.start_level());
    let entries = geometry.entries(level) as u64;
    let table = entries * geometry.entry_bytes(level);
    let (middle, area_len) = if level == geometry.start_level() {
        (geometry.entry_bytes(level) * entries / 2, 64 * MIB)
    } else {
        (2 * table + table / 2, table.min(64 * MIB))
    };
    Setting {
        geometry,
        bbm,
        cpus: 3,
        half: Half::Low,
        area_at: middle - area_len / 2,
        area_len,
        frames: 160,
        own_window: false,
        window_leaves: Leaves::Pages,
        range_invalidation: false,
        asid: (!geometry.regime().is_stage_2()).then_some(7),
        updates,
        seed: 1,
    }
}

/// The access of memory that is written: clean at first where hardware marks the first write.
fn writable(setting: Setting) -> Access {
    let tracks = setting.updates == HardwareUpdates::AccessedAndDirty;
    match (setting.geometry.regime().is_stage_2(), tracks) {
        (false, true) => Access::UserReadWriteClean,
        (false, false) => Access::UserReadWrite,
        (true, true) => Access::GuestReadWriteClean,
        (true, false) => Access::GuestReadWrite,
    }
}

/// Something mapped on both sides of the middle, so that the table at the level exists.
fn initial(setting: Setting, pages: [u64; EDITORS], leaves: Leaves) -> [Op; EDITORS] {
    let half = setting.area_len / 2;
    let granule = setting.geometry.granule().bytes();
    let attributes = Attributes { access: writable(setting), ..setting.fitting(Attributes::USER_DATA) };
    let map = |at, len| Op::Map { at, len, shift: 0, attributes, leaves };
    let [below, above] = pages.map(|pages| (pages * granule).min(half));
    [map(half - below, below), map(half, above)]
}

/// The edits of one editor, of addresses from the middle on, downwards or upwards.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Map(Leaves, bool),
    Unmap,
    Protect(bool),
    Remap(bool),
    Split(Level),
    Fold,
}

#[derive(Clone, Copy, Debug)]
struct Edited {
    edit: Edit,
    /// How far from the middle, and how long.
    at: u64,
    len: u64,
}

fn edited() -> impl Strategy<Value = Edited> {
    let leaves = || prop::sample::select(vec![Leaves::Pages, Leaves::Blocks, Leaves::ContiguousBlocks]);
    let edit = prop_oneof![
        3 => (leaves(), any::<bool>()).prop_map(|(leaves, writable)| Edit::Map(leaves, writable)),
        3 => Just(Edit::Unmap),
        3 => any::<bool>().prop_map(Edit::Protect),
        1 => any::<bool>().prop_map(Edit::Remap),
        1 => prop::sample::select(vec![Level::L2, Level::L3]).prop_map(Edit::Split),
        2 => Just(Edit::Fold),
    ];
    let len = prop_oneof![Just(1u64), 1..40u64, Just(512), 500..3000u64];
    let at = prop_oneof![3 => Just(0u64), 2 => 0..40u64, 1 => 0..4000u64];
    (edit, at, len).prop_map(|(edit, at, len)| Edited { edit, at, len })
}

/// The half of an editor, with what has to be mapped there.
struct Side {
    setting: Setting,
    is_low: bool,
    plain: Plain,
    /// How many edits were made.
    made: usize,
    /// Why the check refused a plan.
    broken: Option<String>,
}

type Result<T = EditCounts> = std::result::Result<T, SpaceError>;

/// An editor's calls: those of a part, and of a whole space for the tests of what goes wrong.
trait Editor {
    fn edit<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        edit: &Called<'_>,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result;
}

/// A call with its arguments.
enum Called<'m> {
    Map(Mappings<'m>),
    Unmap(VaRange),
    Protect(VaRange, Change),
    Remap(VaRange, Pa, Change),
    Split(VaRange, Level),
    Fold(VaRange),
}

macro_rules! editor {
    ($editor:ty) => {
        impl Editor for $editor {
            fn edit<W: TableWindow, F: FrameSource, C: Cpu>(
                &mut self,
                edit: &Called<'_>,
                tools: &mut Tools<'_, W, F, C>,
            ) -> Result {
                // SAFETY: on the model; what is mapped is never accessed during an edit.
                unsafe {
                    match edit {
                        Called::Map(mappings) => self.map(mappings, tools),
                        Called::Unmap(range) => self.unmap(*range, tools),
                        Called::Protect(range, change) => self.protect(*range, *change, tools),
                        Called::Remap(range, to, change) => self.remap(*range, *to, *change, tools),
                        Called::Split(range, to) => self.split(*range, *to, tools),
                        Called::Fold(range) => self.fold(*range, tools),
                    }
                }
            }
        }
    };
}

editor!(SpacePart<'_>);
editor!(AddressSpace);

impl Side {
    fn access(&self, is_writable: bool) -> Access {
        match (self.setting.geometry.regime().is_stage_2(), is_writable) {
            (_, true) => writable(self.setting),
            (false, false) => Access::UserReadOnly,
            (true, false) => Access::GuestReadOnly,
        }
    }

    fn attributes(&self, writable: bool) -> Attributes {
        Attributes { access: self.access(writable), ..self.setting.fitting(Attributes::USER_DATA) }
    }

    /// The range of an edit in the area.
    fn range(&self, edited: Edited) -> (u64, u64) {
        let half = self.setting.area_len / 2;
        let granule = self.setting.geometry.granule().bytes();
        let at = (edited.at * granule).min(half - granule);
        let len = (edited.len * granule).min(half - at);
        (if self.is_low { half - at - len } else { half + at }, len)
    }

    fn run<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        editor: &mut impl Editor,
        edited: Edited,
        tools: &mut Tools<'_, W, F, C>,
    ) {
        let (at, len) = self.range(edited);
        let range = VaRange::new(self.setting.va(at), len);
        let change = |writable| Change { access: Some(self.access(writable)), ..Change::default() };
        let mut list = [Mapping {
            va: range.start,
            pa: Pa(AREA_PA + at),
            len,
            attributes: self.attributes(true),
            leaves: Leaves::Pages,
        }];
        let call = match edited.edit {
            Edit::Map(leaves, writable) => {
                list[0].leaves = leaves;
                list[0].attributes = self.attributes(writable);
                Called::Map(Mappings::new(self.setting.geometry, &list).unwrap())
            }
            Edit::Unmap => Called::Unmap(range),
            Edit::Protect(writable) => Called::Protect(range, change(writable)),
            Edit::Remap(writable) => Called::Remap(range, Pa(AREA_PA + COPIES + at), change(writable)),
            Edit::Split(to) => Called::Split(range, to),
            Edit::Fold => Called::Fold(range),
        };
        match editor.edit(&call, tools) {
            Ok(_) => self.made += 1,
            // What is mapped stays as it is, but leaves may be smaller.
            Err(SpaceError::Plan(_)) => return,
            Err(error) => {
                self.broken = Some(error.to_string());
                return;
            }
        }
        let access = match edited.edit {
            Edit::Protect(writable) | Edit::Remap(writable) => Some(self.access(writable)),
            _ => None,
        };
        for (start, mut part) in self.plain.parts(at, len) {
            part.attributes.access = access.unwrap_or(part.attributes.access);
            part.attributes = self.setting.as_updated(part.attributes);
            if let Edit::Remap(_) = edited.edit {
                part.pa = AREA_PA + COPIES + start;
            }
            self.plain.0.insert(start, part);
            if let Edit::Unmap | Edit::Map(..) = edited.edit {
                self.plain.0.remove(&start);
            }
        }
        if let Edit::Map(_, writable) = edited.edit {
            let attributes = self.setting.as_updated(self.attributes(writable));
            self.plain.0.insert(at, Part { len, pa: AREA_PA + at, attributes, valid: true });
        }
    }
}

/// Lets two editors change one space at the same time, each in its half of the area. Returns how
/// many edits were made.
fn edit<E: Editor + Send>(
    world: &mut World,
    mut editors: [E; EDITORS],
    edits: &[Vec<Edited>; EDITORS],
    seed: u64,
) -> std::result::Result<usize, String> {
    let setting = world.setting;
    let half = setting.area_len / 2;
    let turns = Turns::new(seed);
    let mut sides = [true, false].map(|is_low| {
        let own = world.plain.0.iter().filter(|(at, _)| (**at < half) == is_low);
        let plain = Plain(own.map(|(at, part)| (*at, *part)).collect());
        Side { setting, is_low, plain, made: 0, broken: None }
    });
    let ended = thread::scope(|threads| {
        let each = editors.iter_mut().zip(&mut sides).zip(edits).enumerate();
        let threads: Vec<_> = each
            .map(|(number, ((editor, side), edits))| {
                let cpu = world.board.cpu_of(number, setting.board_regime());
                let tools = (world.board.window(number, None), world.frames(), cpu);
                let (tools, turns) = (Carried::new(tools), &turns);
                threads.spawn(move || {
                    let turn = turns.begin(number);
                    let (window, frames, cpu) = tools.take();
                    let (mut window, mut frames) = (ByTurns::new(window, &turn), ByTurns::new(frames, &turn));
                    let mut cpu = ByTurns::new(cpu, &turn);
                    let (window, frames, cpu) = (&mut window, &mut frames, &mut cpu);
                    let mut tools = Tools { window, frames, cpu, steps: &mut [Step::Isb; 2048] };
                    edits.iter().for_each(|edited| side.run(editor, *edited, &mut tools));
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).count()
    });
    if ended < EDITORS {
        return Err("an editor panicked".to_owned());
    }
    if let Some(broken) = sides.iter_mut().find_map(|side| side.broken.take()) {
        return Err(format!("the check of a plan: {broken}"));
    }
    let made = sides.iter().map(|side| side.made).sum();
    world.plain = Plain(sides.into_iter().flat_map(|side| side.plain.0).collect());
    world.board.verdict().map_err(|violation| violation.to_string())?;
    world.agree()?;
    [0, half - 1, half, setting.area_len - 1].into_iter().try_for_each(|offset| world.probe(2, offset))?;
    Ok(made)
}

/// The space of a world, whose own value changes the tree no more.
fn space(world: &World) -> AddressSpace {
    let Setting { geometry, bbm, asid, updates, .. } = world.setting;
    // SAFETY: on the model. No leaf is global. TCR and VTCR say what is updated.
    unsafe {
        match asid {
            Some(asid) => AddressSpace::user(geometry, world.tree.root(), asid, bbm),
            None => AddressSpace::guest(geometry, world.tree.root(), bbm),
        }
        .with_hardware_updates(updates)
    }
}

/// Lets two editors have parts that share the table at `level` and none below.
fn edit_parts(
    world: &mut World,
    level: Level,
    edits: &[Vec<Edited>; EDITORS],
    seed: u64,
) -> std::result::Result<usize, String> {
    let Setting { geometry, area_len, .. } = world.setting;
    let middle = world.setting.va(area_len / 2);
    let mut space = space(world);
    if level <= geometry.start_level() {
        let (low, high) = space.divide(middle).unwrap();
        return edit(world, [low, high], edits, seed);
    }
    let table = geometry.entries(level) as u64 * geometry.entry_bytes(level);
    let range = VaRange::new(Va(middle.0 & !(table - 1)), table);
    let mut part = space.part(range, &mut world.window(0)).unwrap();
    let (low, high) = part.divide(middle).unwrap();
    assert_eq!((low.range().start, low.range().len + high.range().len), (range.start, range.len));
    edit(world, [low, high], edits, seed)
}

/// Lets two editors have the whole space each, as none may.
fn edit_wholes(
    world: &mut World,
    edits: &[Vec<Edited>; EDITORS],
    seed: u64,
) -> std::result::Result<usize, String> {
    let wholes = [space(world), space(world)];
    edit(world, wholes, edits, seed)
}

fn geometries() -> Vec<Geometry> {
    let user = |(granule, bits)| Geometry::new(granule, bits, 48).unwrap();
    let guest = |(granule, bits)| Geometry::stage_2(granule, bits, 40, Stage2::Base).unwrap();
    let mut all =
        [(Granule::K4, 39), (Granule::K4, 48), (Granule::K16, 47), (Granule::K64, 42)].map(user).to_vec();
    all.extend([(Granule::K4, 39), (Granule::K4, 40), (Granule::K64, 40)].map(guest));
    all
}

/// `LINMAP_SEQUENCES` or, with `LINMAP_SOAK=1`, many.
fn sequences() -> u32 {
    let given = std::env::var("LINMAP_SEQUENCES").ok().and_then(|given| given.parse().ok());
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    given.unwrap_or(if is_soak { 10_000 } else { 300 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(sequences()))]

    #[test]
    fn parts_of_a_space_are_edited_at_the_same_time(
        geometry in prop::sample::select(geometries()),
        bbm in prop::sample::select(vec![BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3]),
        level in prop::sample::select(vec![Level::L0, Level::L2, Level::L3]),
        pages in [1..700u64, 1..700u64],
        leaves in prop::sample::select(vec![Leaves::Pages, Leaves::ContiguousBlocks]),
        edits in [prop::collection::vec(edited(), 1..12), prop::collection::vec(edited(), 1..12)],
        updates in prop::sample::select(vec![
            HardwareUpdates::Off, HardwareUpdates::Accessed, HardwareUpdates::AccessedAndDirty,
        ]),
        seed in any::<u64>(),
    ) {
        let setting = Setting { seed, ..setting(geometry, bbm, level, updates) };
        let mut world = World::new(setting, &initial(setting, pages, leaves), false);
        edit_parts(&mut world, level, &edits, seed).map_err(TestCaseError::fail)?;
    }
}

/// One editor unmaps all of its half of a table of pages; the other maps a page in its half, which
/// is empty. Returns what went wrong in 40 orders of their steps.
fn last_and_first(
    run: impl Fn(&mut World, &[Vec<Edited>; EDITORS], u64) -> std::result::Result<usize, String>,
) -> Vec<String> {
    let setting = setting(Geometry::K4_48, BbmLevel::L0, Level::L3, HardwareUpdates::Off);
    let [below, _] = initial(setting, [4, 0], Leaves::Pages);
    let unmap = Edited { edit: Edit::Unmap, at: 0, len: 4 };
    let map = Edited { edit: Edit::Map(Leaves::Pages, true), at: 3, len: 1 };
    let edits = [vec![unmap], vec![map]];
    let orders = (1..=40u64).filter_map(|nth| {
        let mut world = World::new(setting, &[below], false);
        run(&mut world, &edits, nth.wrapping_mul(0x9e37_79b9_7f4a_7c15)).err()
    });
    orders.collect()
}

#[test]
fn two_editors_of_the_whole_space_break_rules_where_those_of_parts_do_not() {
    let parts = last_and_first(|world, edits, seed| edit_parts(world, Level::L3, edits, seed));
    assert_eq!(parts, Vec::<String>::new());
    // The table that one finds empty and frees is the one that the other maps a page in.
    let wholes = last_and_first(edit_wholes);
    let by_the_check = wholes.iter().filter(|broken| broken.starts_with("the check")).count();
    assert!(by_the_check > 0 && wholes.len() > by_the_check, "{wholes:?}");
}

#[test]
fn a_part_refuses_other_addresses_and_boundaries_inside_of_an_entry_or_run() {
    let geometry = Geometry::K4_48;
    let setting = setting(geometry, BbmLevel::L0, Level::L3, HardwareUpdates::Off);
    let world = World::new(setting, &initial(setting, [512, 512], Leaves::Pages), false);
    let mut space = space(&world);
    let middle = setting.va(setting.area_len / 2);
    let mut window = world.window(0);
    let unit = |refused| match refused {
        Err(PartError::SharedTable { unit, level, .. }) => (unit, level),
        other => panic!("{other:?}"),
    };
    assert_eq!(unit(space.divide(middle).map(drop)), (512 << 30, Level::L0));
    assert!(matches!(space.divide(Va(0)), Err(PartError::Outside { .. })));
    assert!(matches!(space.divide(Va(1 << 48)), Err(PartError::Outside { .. })));
    let empty = VaRange::new(middle, 0);
    assert!(matches!(space.part(empty, &mut window), Err(PartError::Outside { .. })));
    let table = VaRange::new(setting.va(0), setting.area_len);
    // A page beside a run's end would be in a run of both.
    let odd = VaRange::new(table.start, 0x1_1000);
    assert_eq!(unit(space.part(odd, &mut window).map(drop)), (0x1_0000, Level::L3));
    let mut part = space.part(table, &mut window).unwrap();
    assert_eq!(unit(part.divide(Va(middle.0 + 0x1000)).map(drop)), (0x1_0000, Level::L3));
    let (mut low, high) = part.divide(middle).unwrap();
    assert_eq!(high.translate(Va(middle.0 - 1), &mut window), None);
    assert!(high.translate(middle, &mut window).is_some());
    let (mut frames, mut cpu) = (world.frames(), world.board.cpu(0));
    let (window, frames, cpu) = (&mut window, &mut frames, &mut cpu);
    let mut tools = Tools { window, frames, cpu, steps: &mut [Step::Isb; 64] };
    let (own, across) =
        (VaRange::new(Va(middle.0 - 0x1000), 0x1000), VaRange::new(Va(middle.0 - 0x1000), 0x2000));
    let outside = PlanError::OutsidePart { range: across, part: low.range() };
    assert_eq!(low.unmap(across, &mut tools), Err(SpaceError::Plan(outside)));
    assert_eq!(low.unmap(own, &mut tools).map(|counts| counts.entries), Ok(1));
    let tables = world.tables();
    // All of the part is unmapped, and the table stays, since it is not the part's.
    let counts = low.unmap(low.range(), &mut tools).unwrap();
    assert_eq!(counts.freed, 0);
    assert_eq!(world.tables(), tables);
}
