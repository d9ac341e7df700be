//! What is invalidated when tables are removed: every leaf that was valid, and one address of each
//! lowest table at all levels.

use linmap_live::{BrokenRule, Change, Invalidation, Reach, Step};
use linmap_table::Leaves;
use linmap_vmsa::Va;
use linmap_vmsa::id::BbmLevel;

use crate::live::machine::{BASE, Edit, GIB, MIB, Machine, PAGE, in_use};

const INVALID: Change = Change { access: None, execute: None, valid: Some(false) };

fn invalidations(steps: &[Step]) -> Vec<Invalidation> {
    let invalidation = |step: &Step| match step {
        Step::Invalidate(invalidation) => Some(*invalidation),
        _ => None,
    };
    steps.iter().filter_map(invalidation).collect()
}

fn page(at: u64, count: u32) -> Invalidation {
    Invalidation::ByVa { va: Va(BASE + at), count, shift: 12, reach: Reach::AllLevels }
}

fn freed(steps: &[Step]) -> usize {
    steps.iter().filter(|step| matches!(step, Step::Free { .. })).count()
}

#[test]
fn the_last_page_in_its_tables_is_unmapped_by_one_invalidation() {
    for bbm in [BbmLevel::L0, BbmLevel::L3] {
        let mut machine = Machine::new(bbm);
        let target = in_use(5 * GIB + 7 * MIB, PAGE);
        machine.edit(target, Edit::Map(Leaves::Pages)).unwrap();
        let steps = machine.edit(target, Edit::Unmap).unwrap();
        assert_eq!(invalidations(&steps), [page(5 * GIB + 7 * MIB, 1)]);
        assert_eq!(freed(&steps), 1, "one subtree");
        assert_eq!(machine.arena.used(), 1, "the root is left");
    }
}

#[test]
fn each_valid_leaf_of_a_removed_table_is_invalidated_at_all_levels_and_no_other() {
    let mut machine = Machine::new(BbmLevel::L3);
    for at in [0x3000, 0x4000, 0x5000] {
        machine.edit(in_use(at, PAGE), Edit::Map(Leaves::Pages)).unwrap();
    }
    machine.edit(in_use(2 * MIB + 0x9000, 2 * PAGE), Edit::Map(Leaves::Pages)).unwrap();
    machine.edit(in_use(4 * MIB, 2 * MIB), Edit::Map(Leaves::Blocks)).unwrap();
    let steps = machine.edit(in_use(0, GIB), Edit::Unmap).unwrap();
    let block = Invalidation::ByVa { va: Va(BASE + 4 * MIB), count: 1, shift: 21, reach: Reach::AllLevels };
    assert_eq!(invalidations(&steps), [page(0x3000, 3), page(2 * MIB + 0x9000, 2), block]);
    assert_eq!(machine.arena.used(), 1);
}

#[test]
fn a_table_without_a_valid_leaf_costs_one_invalidation() {
    let mut machine = Machine::new(BbmLevel::L3);
    machine.edit(in_use(0, 2 * MIB), Edit::Map(Leaves::Pages)).unwrap();
    machine.edit(in_use(0, 2 * MIB), Edit::Protect(INVALID)).unwrap();
    let steps = machine.plan(in_use(0, 2 * MIB), Edit::Unmap).unwrap();
    assert_eq!(invalidations(&steps), [page(0, 1)]);
    let steps = machine.edit(in_use(0, 2 * MIB), Edit::Fold).unwrap();
    assert_eq!(invalidations(&steps), [page(0, 1)]);
    assert_eq!(freed(&steps), 1);
}

#[test]
fn a_removal_that_leaves_a_leaf_or_a_table_in_a_cache_is_refused() {
    let mut machine = Machine::new(BbmLevel::L3);
    for at in [0x3000, 0x4000, 2 * MIB + 0x9000] {
        machine.edit(in_use(at, PAGE), Edit::Map(Leaves::Pages)).unwrap();
    }
    let target = in_use(0, GIB);
    let steps = machine.plan(target, Edit::Unmap).unwrap();
    assert_eq!(invalidations(&steps), [page(0x3000, 2), page(2 * MIB + 0x9000, 1)]);
    let first = steps.iter().position(|step| matches!(step, Step::Invalidate(_))).unwrap();
    let last_level = |invalidation: Invalidation| match invalidation {
        Invalidation::ByVa { va, count, shift, .. } => {
            Invalidation::ByVa { va, count, shift, reach: Reach::LastLevel }
        }
        other => other,
    };
    let mutants: [(usize, Option<Invalidation>); 6] = [
        (first, Some(page(0x3000, 1))),
        (first, Some(page(0x4000, 1))),
        (first, Some(last_level(page(0x3000, 2)))),
        (first + 1, None),
        (first + 1, Some(last_level(page(2 * MIB + 0x9000, 1)))),
        (first + 1, Some(page(2 * MIB + 0xa000, 1))),
    ];
    for (at, mutant) in mutants {
        let mut mutated = steps.clone();
        match mutant {
            Some(invalidation) => mutated[at] = Step::Invalidate(invalidation),
            None => drop(mutated.remove(at)),
        }
        let refused = machine.check(target, &mutated).unwrap_err().rule;
        assert!(
            matches!(refused, BrokenRule::FreedEarly { .. } | BrokenRule::NotInvalidated { .. }),
            "{mutant:?}: {refused}"
        );
    }
    // One address of each lowest table at all levels is enough, beside the leaves at their own.
    let mut shorter = steps.clone();
    shorter[first] = Step::Invalidate(page(0x3000, 1));
    shorter.insert(first, Step::Invalidate(last_level(page(0x4000, 1))));
    assert_eq!(machine.check(target, &shorter), Ok(()));
}
