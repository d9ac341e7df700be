//! Random edits of live trees on the machine model: the machine finds nothing to object to, and the
//! tree translates exactly as a plain list of mappings says.
//!
//! `LINMAP_SEQUENCES` sets how many sequences each test runs, `LINMAP_SEED` (a number) where the
//! random numbers begin. Without the former each runs 6 500, or 34 000 with `LINMAP_SOAK=1`.

use std::io::Write;

use crate::world::{Done, Op, Setting, Who, World};
use linmap_live::{Change, Global, Half};
use linmap_model::Event;
use linmap_model::event::Use;
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{
    Access, Attributes, Execute, Geometry, Granule, HardwareUpdates, Level, MemoryType, Regime, Stage2,
    TablePermissions,
};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

const MIB: u64 = 1 << 20;

/// The shapes of trees with one granule: the common ones, a short root, LPA2 or 52 bits; one of
/// them with tables under which nothing is executed.
fn geometries(granule: Granule) -> Vec<Geometry> {
    let shapes: &[(u8, u8)] = match granule {
        Granule::K4 => &[(39, 48), (48, 48), (37, 40), (52, 52)],
        Granule::K16 => &[(47, 48), (36, 40), (48, 48), (52, 52)],
        Granule::K64 => &[(42, 48), (48, 52), (39, 40), (52, 52)],
    };
    let mut all: Vec<_> = shapes.iter().map(|&(va, pa)| Geometry::new(granule, va, pa).unwrap()).collect();
    all.push(all[1].with_table_permissions(TablePermissions::NEVER_EXECUTE).unwrap());
    all
}

/// A tree whose leaves hold in every ASID, or in one, or in none because the regime has none.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Kernel,
    User,
    El2,
    El3,
    Guest,
}

/// Guests whose roots are one table and several.
fn guests(granule: Granule) -> Vec<Geometry> {
    let shapes: &[(u8, u8)] = match granule {
        Granule::K4 => &[(39, 40), (40, 40), (34, 40), (48, 48)],
        Granule::K16 => &[(36, 40), (40, 40), (48, 48)],
        Granule::K64 => &[(40, 40), (46, 48), (48, 48)],
    };
    let guest = |&(ipa, pa): &(u8, u8)| Geometry::stage_2(granule, ipa, pa, Stage2::Base).unwrap();
    shapes.iter().map(guest).collect()
}

/// The geometry without permissions in tables.
fn plain(geometry: Geometry) -> Geometry {
    geometry.with_table_permissions(TablePermissions::UNRESTRICTED).unwrap()
}

/// A tree of a kind.
fn kinds(granule: Granule) -> impl Strategy<Value = (Geometry, Half, Option<u16>)> {
    let kind = prop_oneof![
        4 => Just(Kind::Kernel),
        2 => Just(Kind::User),
        1 => Just(Kind::El2),
        1 => Just(Kind::El3),
        3 => Just(Kind::Guest),
    ];
    let half = prop::sample::select(vec![Half::Low, Half::High]);
    let geometries = (prop::sample::select(geometries(granule)), prop::sample::select(guests(granule)));
    (kind, half, geometries, 0..=255u16).prop_map(|(kind, half, (stage_1, stage_2), asid)| match kind {
        Kind::Kernel => (stage_1, half, None),
        Kind::User => (stage_1, Half::Low, Some(asid)),
        Kind::El2 => (plain(stage_1).in_regime(Regime::El2), Half::Low, None),
        Kind::El3 => (plain(stage_1).in_regime(Regime::El3), Half::Low, None),
        Kind::Guest => (stage_2, Half::Low, None),
    })
}

fn setting(granule: Granule) -> impl Strategy<Value = Setting> {
    let bbm =
        prop::sample::select(vec![BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3, BbmLevel::L3]);
    // In the middle of the half, or at its very end.
    let place = prop::bool::weighted(0.2);
    let large = prop::bool::weighted(0.15);
    let updates = prop::sample::select(vec![
        HardwareUpdates::Off,
        HardwareUpdates::Off,
        HardwareUpdates::Accessed,
        HardwareUpdates::AccessedAndDirty,
        HardwareUpdates::AccessedAndDirty,
    ]);
    let updates = (updates, any::<u64>());
    let ways = (prop::bool::weighted(0.3), any::<bool>());
    (bbm, kinds(granule), 1..=4usize, place, large, ways, updates).prop_map(
        move |(bbm, (geometry, half, asid), cpus, end, large, (own_window, range_invalidation), updates)| {
            let (updates, seed) = updates;
            // The model knows no TCR of EL2 or EL3.
            let is_modelled = !matches!(geometry.regime(), Regime::El2 | Regime::El3);
            let updates = if is_modelled { updates } else { HardwareUpdates::Off };
            let own_window = own_window && geometry.regime() == Regime::El1And0;
            // Large enough for a few of the largest blocks that the tests' own tables can hold.
            let area_len = match (large, granule) {
                (false, _) => 64 * MIB,
                (true, Granule::K4) => 2048 * MIB,
                (true, Granule::K16) => 2048 * MIB,
                (true, Granule::K64) => 1024 * MIB,
            };
            let half_len = 1u64 << geometry.va_bits();
            let area_at = if end { half_len - area_len } else { half_len / 4 };
            Setting {
                geometry,
                bbm,
                cpus,
                half,
                area_at,
                area_len,
                frames: 160,
                own_window,
                window_leaves: Leaves::Pages,
                range_invalidation,
                asid,
                updates,
                seed,
            }
        },
    )
}

/// A range in the area, often at the boundary of something.
fn range(setting: Setting) -> impl Strategy<Value = (u64, u64)> {
    let granule = setting.geometry.granule().bytes();
    let mut units = vec![granule, granule];
    for level in [Level::L3, Level::L2, Level::L1] {
        let bytes = setting.geometry.entry_bytes(level);
        units.push(bytes);
        if let Some(run) = setting.geometry.contiguous_entries(level) {
            units.push(run as u64 * bytes);
        }
    }
    let area = setting.area_len;
    // A split to pages must not need more tables than there are frames.
    let most = area.min(64 * MIB);
    units.retain(|unit| *unit <= most);
    (prop::sample::select(units), any::<u32>(), any::<u32>(), -1i64..=1, -1i64..=1).prop_map(
        move |(unit, start, len, nudge_start, nudge_end)| {
            let start = u64::from(start) % (area / unit) * unit;
            let len = unit * (1 + u64::from(len) % 4);
            let nudge = |at: u64, by: i64| at.saturating_add_signed(by * granule as i64);
            let start = nudge(start, nudge_start).min(area - granule);
            let end = nudge(start + len, nudge_end).clamp(start + granule, area);
            (start, (end - start).min(most))
        },
    )
}

fn attributes() -> impl Strategy<Value = Attributes> {
    prop::sample::select(vec![
        Attributes::KERNEL_DATA,
        Attributes::KERNEL_DATA,
        Attributes::KERNEL_RODATA,
        Attributes::KERNEL_TEXT,
        Attributes { global: false, ..Attributes::KERNEL_DATA },
        Attributes { access: Access::KernelReadWriteClean, ..Attributes::KERNEL_DATA },
        Attributes { access: Access::KernelReadWriteClean, ..Attributes::KERNEL_DATA },
    ])
}

fn leaves() -> impl Strategy<Value = Leaves> {
    prop::sample::select(vec![
        Leaves::ContiguousBlocks,
        Leaves::ContiguousBlocks,
        Leaves::Blocks,
        Leaves::Pages,
    ])
}

fn change() -> impl Strategy<Value = Change> {
    let access = prop::option::of(prop::sample::select(vec![
        Access::KernelReadOnly,
        Access::KernelReadOnly,
        Access::KernelReadWrite,
        Access::KernelReadWriteClean,
        Access::KernelReadWriteClean,
    ]));
    let execute = prop::option::weighted(0.2, prop::sample::select(vec![Execute::Never, Execute::Kernel]));
    let valid = prop::option::weighted(0.3, any::<bool>());
    (access, execute, valid).prop_map(|(access, execute, valid)| Change { access, execute, valid })
}

fn map(setting: Setting) -> impl Strategy<Value = Op> {
    let granule = setting.geometry.granule().bytes();
    // Congruent to every block, or to none.
    let shift = prop_oneof![4 => Just(0), 1 => (1..64u64).prop_map(move |pages| pages * granule)];
    (range(setting), shift, attributes(), leaves()).prop_map(move |((at, len), shift, attributes, leaves)| {
        // Pages of gigabytes would take more frames than there are.
        let leaves = if len > 64 * MIB { Leaves::ContiguousBlocks } else { leaves };
        Op::Map { at, len, shift, attributes, leaves }
    })
}

fn remap(setting: Setting) -> impl Strategy<Value = Op> {
    let granule = setting.geometry.granule().bytes();
    // As the area is mapped first, or by a page or a table of pages further on.
    let shift = prop::sample::select(vec![0, granule, setting.geometry.entry_bytes(Level::L2)]);
    (range(setting), shift, change()).prop_map(|((at, len), shift, change)| Op::Remap {
        at,
        len,
        shift,
        change,
    })
}

fn memory_type(setting: Setting) -> impl Strategy<Value = Op> {
    let types = prop::sample::select(MemoryType::EVERY.to_vec());
    (range(setting), types).prop_map(|((at, len), memory)| Op::MemoryType { at, len, memory })
}

fn op(setting: Setting) -> impl Strategy<Value = Op> {
    let levels = prop::sample::select(vec![Level::L3, Level::L3, Level::L2]);
    let global = prop::sample::select(vec![Global::Global, Global::NonGlobal]);
    prop_oneof![
        6 => (range(setting), change()).prop_map(|((at, len), change)| Op::Protect { at, len, change }),
        2 => map(setting),
        2 => remap(setting),
        2 => memory_type(setting),
        2 => range(setting).prop_map(|(at, len)| Op::Unmap { at, len }),
        2 => (range(setting), levels).prop_map(|((at, len), to)| Op::Split { at, len, to }),
        2 => range(setting).prop_map(|(at, len)| Op::Fold { at, len }),
        1 => Just(Op::Fold { at: 0, len: setting.area_len }),
        1 => (range(setting), global).prop_map(|((at, len), global)| Op::Global { at, len, global }),
    ]
}

/// What is mapped at first: the whole area by the largest leaves, or a few parts of it.
fn initial(setting: Setting) -> impl Strategy<Value = Vec<Op>> {
    let whole = (attributes(), leaves()).prop_map(move |(attributes, leaves)| {
        let leaves = if setting.area_len > 64 * MIB { Leaves::ContiguousBlocks } else { leaves };
        vec![Op::Map { at: 0, len: setting.area_len, shift: 0, attributes, leaves }]
    });
    let parts = prop::collection::vec(map(setting), 0..4).prop_map(|mut parts| {
        parts.sort_by_key(|part| part.range());
        let mut end = 0;
        parts.retain(|part| {
            let (at, len) = part.range();
            let fits = at >= end;
            end = if fits { at + len } else { end };
            fits
        });
        parts
    });
    prop_oneof![3 => whole, 1 => parts]
}

/// One edit, who makes it, and places to look at before and after.
#[derive(Clone, Debug)]
struct Edit {
    op: Op,
    who: Who,
    cpu: usize,
    probes: [u64; 2],
}

#[derive(Clone, Debug)]
struct Sequence {
    setting: Setting,
    initial: Vec<Op>,
    edits: Vec<Edit>,
}

fn sequence(granule: Granule) -> impl Strategy<Value = Sequence> {
    setting(granule).prop_flat_map(|setting| {
        let probe = 0..setting.area_len;
        let who = vec![Who::Anybody, Who::Anybody, Who::Retrying, Who::Nobody, Who::Parked];
        let who = prop::sample::select(who);
        // Only the kernel's tree is ever parked.
        let parks = setting.is_el1() && setting.asid.is_none();
        let edit = (op(setting), who, 0..setting.cpus, [probe.clone(), probe]);
        let edit = edit.prop_map(move |(op, who, cpu, probes)| match op {
            Op::Global { at, len, .. } if !parks => {
                Edit { op: Op::Split { at, len, to: Level::L3 }, who: Who::Retrying, cpu, probes }
            }
            Op::Global { .. } => Edit { op, who: Who::Parked, cpu, probes },
            // Caches are cleaned by the range, which no CPU translates while parked.
            Op::MemoryType { .. } if who == Who::Parked => Edit { op, who: Who::Retrying, cpu, probes },
            _ if who == Who::Parked && !parks => Edit { op, who: Who::Retrying, cpu, probes },
            _ => Edit { op, who, cpu, probes },
        });
        (Just(setting), initial(setting), prop::collection::vec(edit, 1..=20))
            .prop_map(|(setting, initial, edits)| Sequence { setting, initial, edits })
    })
}

/// How many edits were applied, how many of them changed memory types, and how many plans were
/// refused.
#[derive(Default)]
struct Tally {
    applied: u64,
    retyped: u64,
    refused: u64,
}

fn run(sequence: &Sequence, tally: &mut Tally) -> Result<(), String> {
    let Sequence { setting, initial, edits } = sequence;
    let mut world = World::new(*setting, initial, false);
    world.board.verdict().map_err(|violation| violation.to_string())?;
    for edit in edits {
        // While the range is in use, what stays mapped may be read at any moment, by every CPU.
        let mut read = Vec::new();
        for (probe, cpu) in edit.probes.into_iter().zip((0..setting.cpus).cycle().skip(edit.cpu)) {
            if setting.is_el1() && edit.who == Who::Anybody && stays(&mut world, edit.op, probe) {
                let va = world.setting.va(probe & !0xfff).0;
                read.push((cpu, va));
                world.board.event(Event::Isb { cpu });
                world.board.event(Event::Uses { cpu, va, len: 0x1000, kind: Use::Read });
            }
        }
        match world.apply(edit.op, edit.who, edit.cpu)? {
            Done::Applied => {
                tally.applied += 1;
                tally.retyped += u64::from(matches!(edit.op, Op::MemoryType { .. }));
            }
            Done::Refused(_) => tally.refused += 1,
        }
        for (cpu, va) in read {
            world.board.event(Event::Unuses { cpu, va, len: 0x1000, kind: Use::Read });
        }
        for (probe, cpu) in edit.probes.into_iter().zip(0..) {
            world.read(cpu % setting.cpus, probe);
        }
        if let Some(violation) = world.board.violation() {
            return Err(format!("after {:?}: {violation}", edit.op));
        }
    }
    world.board.verdict().map_err(|violation| violation.to_string())?;
    world.agree()
}

/// Whether the byte at `offset` is valid and stays so through `op`.
fn stays(world: &mut World, op: Op, offset: u64) -> bool {
    let (at, len) = op.range();
    let touched = at <= offset && offset - at < len;
    let goes = match op {
        // Refused where anybody uses the range, unless all of it is invalid.
        Op::Unmap { .. } | Op::Remap { .. } | Op::MemoryType { .. } => true,
        Op::Protect { change, .. } => change.valid == Some(false),
        Op::Map { .. } | Op::Split { .. } | Op::Fold { .. } | Op::Clear { .. } | Op::Global { .. } => false,
    };
    let valid = world.plain.parts(offset & !0xfff, 0x1000).first().is_some_and(|(_, part)| part.valid);
    valid && !(touched && goes)
}

fn sequences() -> u32 {
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { 34_000 } else { 6_500 };
    std::env::var("LINMAP_SEQUENCES").ok().and_then(|text| text.parse().ok()).unwrap_or(unset)
}

/// Prints text even if the test passes.
fn say(text: std::fmt::Arguments<'_>) {
    // A failed write is ignored.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn check(granule: Granule) {
    let seed = std::env::var("LINMAP_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64)
    });
    say(format_args!("{granule:?}: LINMAP_SEED={seed} LINMAP_SEQUENCES={}", sequences()));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: sequences(),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let tally = std::cell::RefCell::new(Tally::default());
    let result = runner.run(&sequence(granule), |sequence| {
        run(&sequence, &mut tally.borrow_mut()).map_err(TestCaseError::fail)
    });
    let Tally { applied, retyped, refused } = tally.into_inner();
    say(format_args!("{granule:?}: {applied} edits applied, {refused} plans refused"));
    say(format_args!("{granule:?}: {retyped} of those applied changed memory types"));
    match result {
        Ok(()) => {
            assert!(applied > refused, "most edits have to be ones that can be made");
            assert!(sequences() < 100 || retyped > applied / 200, "too few new memory types: {retyped}");
        }
        Err(TestError::Fail(reason, sequence)) => {
            panic!("LINMAP_SEED={seed}: {reason}\n{sequence:#x?}")
        }
        Err(TestError::Abort(reason)) => panic!("LINMAP_SEED={seed}: {reason}"),
    }
}

#[test]
fn random_edits_of_4k_trees_are_legal_and_right() {
    check(Granule::K4);
}

#[test]
fn random_edits_of_16k_trees_are_legal_and_right() {
    check(Granule::K16);
}

#[test]
fn random_edits_of_64k_trees_are_legal_and_right() {
    check(Granule::K64);
}
