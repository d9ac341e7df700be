//! Contiguous runs whose entries differ because hardware has updated one of them: the access flag,
//! and with DBM dirty state, of one entry are those of the run.

use linmap_live::{Change, PlanError, Target};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Execute, Level};

use crate::live::machine::{BASE, Edit, MIB, Machine, PAGE, in_use, parked, quiescent};

const ACCESSED: u64 = 1 << 10;
const READ_ONLY: u64 = 1 << 7;
const DIRTY_MODIFIER: u64 = 1 << 51;
const CONTIGUOUS: u64 = 1 << 52;

const RO: Change = Change { access: Some(Access::KernelReadOnly), execute: None, valid: None };

type TargetOf = fn(u64, u64) -> Target;

const WAYS: [(BbmLevel, TargetOf); 6] = [
    (BbmLevel::L3, in_use),
    (BbmLevel::L3, quiescent),
    (BbmLevel::L2, quiescent),
    (BbmLevel::L1, quiescent),
    (BbmLevel::L0, quiescent),
    (BbmLevel::L0, parked),
];

/// 2 MiB in contiguous runs of pages, writable when dirty, not accessed and clean but for one entry
/// of each run.
fn machine(bbm: BbmLevel) -> Machine {
    let mut machine = Machine::new(bbm);
    for at in [0, MIB] {
        machine.edit(in_use(at, MIB), Edit::Map(Leaves::ContiguousBlocks)).unwrap();
    }
    for nth in 0..512 {
        machine.poke(nth * PAGE, Level::L3, |bits| {
            assert_ne!(bits & CONTIGUOUS, 0);
            let bits = bits | DIRTY_MODIFIER;
            if nth % 16 == 7 { bits } else { bits & !ACCESSED | READ_ONLY }
        });
    }
    machine
}

#[test]
fn a_run_that_is_split_is_accessed_and_dirty_if_one_of_its_entries_was() {
    for (bbm, target) in WAYS {
        let mut machine = machine(bbm);
        machine.edit(target(0x2_3000, PAGE), Edit::Split(Level::L3)).unwrap();
        for leaf in machine.leaves() {
            let nth = (leaf.va - BASE) / PAGE;
            let flags = leaf.bits & (ACCESSED | READ_ONLY | DIRTY_MODIFIER | CONTIGUOUS);
            if nth / 16 == 2 {
                assert_eq!(flags, ACCESSED | DIRTY_MODIFIER, "{bbm:?}: page {nth}");
            } else if nth % 16 == 7 {
                assert_eq!(flags, ACCESSED | DIRTY_MODIFIER | CONTIGUOUS, "{bbm:?}: page {nth}");
            } else {
                assert_eq!(flags, READ_ONLY | DIRTY_MODIFIER | CONTIGUOUS, "{bbm:?}: page {nth}");
            }
        }
    }
}

#[test]
fn runs_of_blocks_are_split_to_tables_that_are_accessed_and_dirty() {
    for (bbm, target) in WAYS {
        let mut machine = Machine::new(bbm);
        machine.edit(in_use(0, 32 * MIB), Edit::Map(Leaves::ContiguousBlocks)).unwrap();
        for nth in 0..16 {
            machine.poke(nth * 2 * MIB, Level::L2, |bits| {
                let bits = bits | DIRTY_MODIFIER;
                if nth == 3 { bits } else { bits & !ACCESSED | READ_ONLY }
            });
        }
        machine.edit(target(20 * MIB + PAGE, PAGE), Edit::Split(Level::L3)).unwrap();
        for leaf in machine.leaves() {
            let flags = leaf.bits & (ACCESSED | READ_ONLY | DIRTY_MODIFIER);
            assert_eq!(flags, ACCESSED | DIRTY_MODIFIER, "{bbm:?}: {:#x}", leaf.va);
        }
    }
}

#[test]
fn a_table_of_runs_folds_to_a_block_that_is_accessed_and_dirty() {
    for (bbm, target) in WAYS {
        let mut machine = machine(bbm);
        machine.edit(target(0, 2 * MIB), Edit::Fold).unwrap();
        let leaves = machine.leaves();
        assert_eq!(leaves.len(), 1, "{bbm:?}");
        let flags = leaves[0].bits & (ACCESSED | READ_ONLY | DIRTY_MODIFIER | CONTIGUOUS);
        assert_eq!(flags, ACCESSED | DIRTY_MODIFIER, "{bbm:?}");
    }
}

#[test]
fn runs_of_which_one_was_never_accessed_do_not_fold_to_a_block() {
    let mut machine = machine(BbmLevel::L3);
    machine.poke(7 * PAGE, Level::L3, |bits| bits & !ACCESSED);
    machine.edit(in_use(0, 2 * MIB), Edit::Fold).unwrap();
    assert_eq!(machine.leaves().len(), 512);
}

#[test]
fn what_becomes_read_only_is_not_made_writable_by_hardware() {
    for (bbm, target) in WAYS {
        let mut machine = machine(bbm);
        machine.edit(target(0x2_0000, 0x3_0000), Edit::Protect(RO)).unwrap();
        for leaf in machine.leaves() {
            let nth = (leaf.va - BASE) / PAGE;
            if (0x20..0x50).contains(&nth) {
                assert_eq!(leaf.bits & (READ_ONLY | DIRTY_MODIFIER), READ_ONLY, "{bbm:?}: page {nth}");
            }
        }
    }
}

#[test]
fn what_hardware_may_make_writable_does_not_become_executable() {
    let mut machine = machine(BbmLevel::L3);
    let text = Change { execute: Some(Execute::Kernel), ..Change::default() };
    // Clean all over: no entry is writable yet.
    for nth in 0..512 {
        machine.poke(nth * PAGE, Level::L3, |bits| bits | READ_ONLY);
    }
    let error = machine.edit(in_use(0x2_0000, 0x1_0000), Edit::Protect(text)).unwrap_err();
    assert!(matches!(error, PlanError::WritableAndExecutable { .. }), "{error}");
    let text = Change { access: Some(Access::KernelReadOnly), ..text };
    machine.edit(in_use(0x2_0000, 0x1_0000), Edit::Protect(text)).unwrap();
}
