//! The check that what a plan makes invalid is valid again at the end.
//!
//! The rules of break-before-make allow a break without a make. A plan that splits, folds, protects
//! or remaps must not end with one.

use linmap_table::TableWindow;
use linmap_vmsa::{Descriptor, Level, Va};

use crate::history::History;
use crate::refused::{BrokenRule, Refused};
use crate::step::{Edit, Step, Store};
use crate::tree_context::TreeContext;

/// Refuses the plan, whose steps are legal, if an entry that is valid in memory is not at the end.
/// A block of invalidated leaves may replace their table.
#[cold]
#[inline(never)]
pub(super) fn check_stays_valid<W: TableWindow>(
    context: &TreeContext,
    steps: &[Step],
    window: &mut W,
) -> Result<(), Refused> {
    let stores = || steps.iter().enumerate().filter_map(|(at, step)| Some((at, store(step)?)));
    let mut history = History::new(context.geometry, steps);
    stores().for_each(|(at, store)| history.push(at, store));
    for (at, store) in stores().filter(|(_, store)| makes_invalid(store.edit)) {
        let Store { table, level, .. } = *store;
        for nth in 0..usize::from(store.count) {
            let index = usize::from(store.index) + nth;
            let va = store.va.0.wrapping_add((nth as u64) << context.shift(level));
            let memory = context.read(window, level, table, index);
            let end = history.value(steps.len(), level, (table, index, va), memory);
            let is_table = level != Level::L3 && context.next_table(memory).is_some();
            let is_left = if is_table { end.0 == 0 } else { memory.is_valid() && !end.is_valid() };
            if is_left {
                let rule = BrokenRule::LeftInvalid { va: Va(va), table, level, index };
                return Err(Refused { step: at, rule });
            }
        }
    }
    Ok(())
}

const fn store(step: &Step) -> Option<&Store> {
    if let Step::Store(store) = step { Some(store) } else { None }
}

/// Whether an entry may be invalid after the edit.
fn makes_invalid(edit: Edit) -> bool {
    !edit.of(Descriptor(u64::MAX), 0).is_valid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::half::Half;
    use crate::update::Update;
    use linmap_table::OffsetWindow;
    use linmap_vmsa::id::BbmLevel;
    use linmap_vmsa::{Attributes, Geometry, Pa};
    use std::vec;

    const G: Geometry = Geometry::K4_48;
    const VALID: u64 = 1;
    const CONTIGUOUS: u64 = 1 << 52;

    /// A table of one block; a table of pages is at entry 1. Table n is at PA n × 0x1000.
    fn checked(steps: &[Step]) -> Result<(), BrokenRule> {
        let mut entries = vec![0; 512 * 5];
        for nth in 1..3 {
            entries[512 * nth] = Descriptor::table(G, Pa(0x1000 * (nth as u64 + 1))).0;
        }
        entries[512 * 3] = Descriptor::leaf(G, Level::L2, Pa(0), Attributes::KERNEL_DATA).unwrap().0;
        entries[512 * 3 + 1] = Descriptor::table(G, Pa(0x4000)).0;
        let offset = entries.as_ptr().expose_provenance() as u64;
        // SAFETY: the tables, which nothing else uses.
        let mut window = unsafe { OffsetWindow::new(offset) };
        let context = TreeContext::new(G, Pa(0x1000), Half::Low, BbmLevel::L0);
        check_stays_valid(&context, steps, &mut window).map_err(|refused| refused.rule)
    }

    fn at(index: u16, edit: Edit) -> Step {
        let va = Va(u64::from(index) << 21);
        Step::Store(Store { va, table: Pa(0x3000), level: Level::L2, index, count: 1, edit })
    }

    #[test]
    fn a_break_without_a_make_is_refused() {
        let broken = Edit::Update(Update::Bits { clear: VALID, set: 0 });
        let made = Edit::Update(Update::Bits { clear: 0, set: VALID | CONTIGUOUS });
        let left = |index| BrokenRule::LeftInvalid {
            va: Va((index as u64) << 21),
            table: Pa(0x3000),
            level: Level::L2,
            index,
        };
        assert_eq!(checked(&[at(0, broken)]), Err(left(0)));
        assert_eq!(checked(&[at(0, broken), Step::Isb, at(0, made)]), Ok(()));
        assert_eq!(checked(&[at(0, broken), Step::Isb, at(1, made)]), Err(left(0)));
        // What was invalid before may stay so.
        assert_eq!(checked(&[at(2, broken)]), Ok(()));
    }

    #[test]
    fn a_table_that_is_removed_leaves_a_block_in_its_place() {
        let removed = Edit::Update(Update::Bits { clear: u64::MAX, set: 0 });
        let block = |valid: u64| {
            let first = Descriptor::leaf(G, Level::L2, Pa(0x20_0000), Attributes::KERNEL_DATA).unwrap();
            Edit::Write { first: Descriptor(first.0 & !VALID | valid), step: 0 }
        };
        assert!(matches!(checked(&[at(1, removed)]), Err(BrokenRule::LeftInvalid { index: 1, .. })));
        assert_eq!(checked(&[at(1, removed), at(1, block(VALID))]), Ok(()));
        // Of invalidated leaves.
        assert_eq!(checked(&[at(1, removed), at(1, block(0))]), Ok(()));
    }
}
