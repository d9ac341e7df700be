//! Random edits of a linear map against an oracle of pages: every granule, every BBM level, every
//! kind of leaf, with and without invalidations by range, with short lists of steps, frames that
//! run out and CPUs that do not park. No edit is refused by the check of its plan, every edit that
//! is made changes what it says and nothing else, and every edit that fails changes nothing.
//!
//! The machine model does not take part, so that millions of edits take minutes. In debug builds
//! every plan goes through the check of all steps. `LINMAP_SEQUENCES` sets how many maps are tried,
//! `LINMAP_SEED` where the random numbers begin; `LINMAP_SOAK` tries many.

mod arena;
mod edit;
mod kernel;
mod pages;
#[path = "../changes/machine/random.rs"]
mod random;
mod setting;
mod world;

use std::fmt::Write as _;
use std::io::Write as _;

use linmap::{ChangeError, MemoryError, Protection};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Geometry, Granule};

use edit::{Edit, is_injected};
use random::{Random, seed, sequences};
use setting::{Setting, range};
use world::World;

/// Edits of one map.
const EDITS: usize = 24;

/// Makes `edit` and compares what it did with the oracle.
fn step(world: &mut World, edit: Edit) -> Result<bool, String> {
    let is_right = world.is_right(edit);
    let made = match world.call(edit) {
        Ok(_) if !is_right => return Err("made, although it is wrong".into()),
        Ok(_) => {
            world.note(edit);
            true
        }
        Err(MemoryError::Change(ChangeError::Refused(refused))) => {
            return Err(format!("the check refuses the plan: {refused} ({refused:x?})"));
        }
        Err(error) if is_right && !is_injected(&error) => return Err(format!("{error} ({error:x?})")),
        Err(_) => false,
    };
    world.agree().map(|()| made)
}

fn run(seed: u64) -> Result<(u64, u64), String> {
    let mut random = Random::new(seed);
    let setting = Setting::random(&mut random);
    let mut world = World::new(&setting);
    let mut log = String::new();
    let (mut made, mut failed) = (0, 0);
    for _ in 0..EDITS {
        let edit = Edit::random(&world, &mut random);
        world.kernel.arena.left = if random.percent(10) { random.below(4) } else { u64::MAX };
        world.kernel.stubborn = random.percent(5);
        let _ = writeln!(log, "{edit:x?}, {} frames", world.kernel.arena.left);
        match step(&mut world, edit) {
            Ok(true) => made += 1,
            Ok(false) => failed += 1,
            Err(reason) => return Err(format!("{reason}\nafter\n{log}{setting:#x?}")),
        }
    }
    if setting.leaves == world.map.leaves() {
        folds_to_what_was_built(&mut world)
            .map_err(|reason| format!("{reason}\nafter\n{log}{setting:#x?}"))?;
    }
    Ok((made, failed))
}

/// Makes every page what it was when the map was built, folds all memory, and compares the leaves
/// with those of a map that is built anew.
fn folds_to_what_was_built(world: &mut World) -> Result<(), String> {
    let fresh = World::new(&world.setting);
    world.has_room();
    for edit in world.undo(&fresh.pages) {
        let made = step(world, edit).map_err(|reason| format!("undoing, {edit:x?}: {reason}"))?;
        if !made {
            return Err(format!("undoing, {edit:x?} is not made"));
        }
    }
    let (folded, built) = (world.leaves(), fresh.leaves());
    let different = folded.iter().zip(&built).find(|(folded, built)| folded != built);
    match different {
        Some((folded, built)) => Err(format!("folded to {folded:x?}, built is {built:x?}")),
        None if folded.len() != built.len() => {
            Err(format!("{} leaves after the fold, {} when built", folded.len(), built.len()))
        }
        None => Ok(()),
    }
}

#[test]
fn random_edits_do_what_an_oracle_of_pages_says_and_no_plan_is_refused() {
    let seed = seed();
    let sequences = sequences(400, 20_000);
    let _ = writeln!(std::io::stderr(), "LINMAP_SEED={seed} LINMAP_SEQUENCES={sequences}");
    let (mut made, mut failed) = (0, 0);
    for nth in 0..sequences {
        let own = seed.wrapping_add(nth);
        match run(own) {
            Ok(counts) => {
                made += counts.0;
                failed += counts.1;
            }
            Err(reason) => panic!("LINMAP_SEED={own}: {reason}"),
        }
    }
    let _ = writeln!(std::io::stderr(), "{made} edits made, {failed} failed");
    assert!(made > failed, "most edits have to be ones that can be made");
}

#[test]
fn runs_between_invalid_and_valid_ones_become_read_only_at_level_0() {
    let setting = Setting {
        geometry: Geometry::new(Granule::K16, 47, 48).expect("a shape that there is"),
        bbm: BbmLevel::L0,
        leaves: Leaves::ContiguousBlocks,
        ranges: false,
        memory: vec![range(0x4000_0000, 0x414b_0000)],
        image: range(0x4000_0000, 0x4001_8000),
        read_only: 0x8000,
        steps: 1024,
    };
    let mut world = World::new(&setting);
    for edit in [
        Edit::MakeText(range(0x4082_c000, 0x4102_c000)),
        Edit::Remove(range(0x4040_4000, 0x4040_8000)),
        Edit::Protect(range(0x4069_4000, 0x414b_0000), Protection::Invalid),
        Edit::MakeData(range(0x40b4_8000, 0x40b4_c000)),
        Edit::Protect(range(0x4049_0000, 0x40c9_0000), Protection::ReadOnly),
    ] {
        assert_eq!(step(&mut world, edit), Ok(true), "{edit:x?}");
    }
}

#[test]
fn a_page_that_changes_to_and_fro_splits_once_and_folds_when_asked_to() {
    for leaves in [Leaves::Blocks, Leaves::ContiguousBlocks] {
        let setting = Setting {
            geometry: Geometry::K4_48,
            bbm: BbmLevel::L3,
            leaves,
            ranges: true,
            memory: vec![range(0x4000_0000, 0xc000_0000)],
            image: range(0x4020_0000, 0x4022_0000),
            read_only: 0x8000,
            steps: 1024,
        };
        let mut world = World::new(&setting);
        let built = world.kernel.arena.out();
        let page = range(0x9000_5000, 0x9000_6000);
        let toggle = |world: &mut World, protection| {
            let edit = Edit::Protect(page, protection);
            let changed = world.call(edit).expect("a page that may change");
            world.note(edit);
            world.agree().expect("as the oracle says");
            (changed.entries, changed.invalidations, changed.freed)
        };
        let first = toggle(&mut world, Protection::ReadOnly);
        assert!(first.0 > 1, "{leaves:?}: {first:?}");
        for protection in [Protection::ReadWrite, Protection::ReadOnly].into_iter().cycle().take(5) {
            assert_eq!(toggle(&mut world, protection), (1, 1, 0), "{leaves:?}");
        }
        assert!(world.kernel.arena.out() > built);
        assert_eq!(step(&mut world, Edit::Fold(setting.memory[0])), Ok(true));
        assert_eq!(world.leaves(), World::new(&setting).leaves(), "{leaves:?}");
    }
}

#[test]
fn leaves_within_a_range_fold_when_the_range_changes() {
    let setting = Setting {
        geometry: Geometry::K4_48,
        bbm: BbmLevel::L3,
        leaves: Leaves::ContiguousBlocks,
        ranges: true,
        memory: vec![range(0x4000_0000, 0x8000_0000)],
        image: range(0x4020_0000, 0x4022_0000),
        read_only: 0x8000,
        steps: 1024,
    };
    let mut world = World::new(&setting);
    let block = range(0x6000_0000, 0x6020_0000);
    let page = range(0x6000_5000, 0x6000_6000);
    for edit in [
        Edit::Protect(page, Protection::ReadOnly),
        Edit::Protect(page, Protection::ReadWrite),
        Edit::Protect(block, Protection::ReadOnly),
    ] {
        assert_eq!(step(&mut world, edit), Ok(true), "{edit:x?}");
    }
    let base = world.layout.linear(block.start).0;
    let inside: Vec<_> =
        world.leaves().into_iter().filter(|(va, ..)| va.wrapping_sub(base) < 2 << 20).collect();
    assert_eq!(inside.len(), 1, "one block again: {inside:x?}");
}
