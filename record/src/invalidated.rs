//! Which TLBIs take tables that nothing leads to from all walk caches, and what follows.

use linmap_trace::{Tlbi, TlbiScope};

use crate::recorder::Recorder;

/// Whether a TLBI of `scope` spares the entries that lead to tables.
fn is_of_leaves(scope: TlbiScope) -> bool {
    use TlbiScope::{
        IpaLast, IpaRangeLast, RangeAnyAsidLast, RangeEl2Last, RangeEl3Last, RangeLast, VaAnyAsidLast,
        VaEl2Last, VaEl3Last, VaLast,
    };
    matches!(
        scope,
        VaLast
            | VaAnyAsidLast
            | RangeLast
            | RangeAnyAsidLast
            | VaEl2Last
            | RangeEl2Last
            | VaEl3Last
            | RangeEl3Last
            | IpaLast
            | IpaRangeLast
    )
}

impl Recorder {
    /// Whether no CPU but `cpu` has walked tables.
    pub(crate) fn is_alone(&self, cpu: usize) -> bool {
        self.cpus.iter().enumerate().all(|(other, state)| other == cpu || !state.has_walked())
    }

    /// `cpu` has issued `tlbi`.
    pub(crate) fn issued(&mut self, cpu: usize, tlbi: Tlbi) {
        if is_of_leaves(tlbi.scope) {
            return;
        }
        let now = self.events;
        let before = self.cpus[cpu].taking;
        // A broadcast one is not forgotten for one that does less.
        self.cpus[cpu].taking = match before {
            Some((at, true)) if !tlbi.broadcast => Some((at, true)),
            _ => Some((now, tlbi.broadcast)),
        };
    }

    /// A DSB of `cpu` has completed the TLBIs that it issued: on all CPUs those that are broadcast,
    /// if it `reaches` them.
    pub(crate) fn complete(&mut self, cpu: usize, reaches: bool) {
        let Some((at, is_broadcast)) = self.cpus[cpu].taking else { return };
        if is_broadcast && !reaches {
            return;
        }
        self.cpus[cpu].taking = None;
        self.cpus[cpu].taken = at;
        if is_broadcast {
            self.leave_unlinked(at);
            return;
        }
        // Each CPU may do it for itself.
        let walking = self.cpus.iter().filter(|state| state.has_walked());
        if let Some(by) = walking.map(|state| state.taken).min() {
            self.leave_unlinked(by);
        }
    }

    /// An invalidation is complete of what was unlinked when the trace had fewer events than `by`.
    /// The tables below it are unlinked in turn. Those need another invalidation, since something
    /// else may have led to them until now.
    pub(crate) fn leave_unlinked(&mut self, by: u64) {
        for frame in self.frames.invalidated(by) {
            let Some(state) = self.frames.get_mut(frame) else { continue };
            let tables = std::mem::take(&mut state.tables);
            for table in &tables {
                let left = self.leave(frame, table);
                if let Some(state) = self.frames.get_mut(frame) {
                    state.skipped.extend(left);
                }
            }
            if let Some(state) = self.frames.get_mut(frame) {
                state.tables = tables;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use linmap_trace::Event;

    use super::*;
    use crate::followed::Standing;
    use crate::place::Place;
    use crate::regime::{Regime, Space};
    use crate::shape::Shape;
    use crate::tree::Tree;

    const FRAME: u64 = 0x4000_0000;

    /// A recorder of two CPUs that walk, with a frame to which nothing leads any more.
    fn unlinked() -> Recorder {
        let mut recorder = Recorder::unread(2);
        for cpu in &mut recorder.cpus {
            cpu.recorded[0][4] = Some(1);
        }
        recorder.frames.set_granule(12);
        recorder.frames.refer(FRAME, 3, 512, Shape::of(16, false).expect("it is walked"));
        recorder.frames.unrefer(FRAME);
        recorder
    }

    fn issue(recorder: &mut Recorder, cpu: usize, scope: TlbiScope, broadcast: bool) {
        let tlbi = Tlbi { scope, broadcast };
        recorder.put(Event::Tlbi { cpu, tlbi, operand: 0 }, None);
        recorder.issued(cpu, tlbi);
    }

    fn is_followed(recorder: &mut Recorder) -> bool {
        recorder.frames.get_mut(FRAME).is_some_and(|at| at.standing == Standing::Unlinked)
    }

    #[test]
    fn a_tlbi_of_one_cpu_for_itself_takes_no_table_from_the_others() {
        let mut recorder = unlinked();
        issue(&mut recorder, 0, TlbiScope::AllEl1, false);
        recorder.complete(0, true);
        assert!(is_followed(&mut recorder));
        issue(&mut recorder, 1, TlbiScope::AllEl1, false);
        recorder.complete(1, false);
        assert!(!is_followed(&mut recorder), "each has done it");
    }

    #[test]
    fn a_tlbi_of_leaves_or_from_before_takes_no_table() {
        let mut recorder = unlinked();
        issue(&mut recorder, 0, TlbiScope::VaLast, true);
        recorder.complete(0, true);
        assert!(is_followed(&mut recorder));
        issue(&mut recorder, 0, TlbiScope::AllEl1, true);
        recorder.complete(0, false);
        assert!(is_followed(&mut recorder), "a DSB of this CPU alone");
        issue(&mut recorder, 0, TlbiScope::AllEl1, true);
        recorder.complete(0, true);
        assert!(!is_followed(&mut recorder));

        let mut recorder = unlinked();
        recorder.frames.refer(FRAME, 3, 512, Shape::of(16, false).expect("it is walked"));
        issue(&mut recorder, 0, TlbiScope::AllEl1, true);
        recorder.frames.unrefer(FRAME);
        recorder.complete(0, true);
        assert!(is_followed(&mut recorder), "it was unlinked behind the TLBI");
    }

    #[test]
    fn tables_below_one_that_was_left_are_followed_up_to_the_next_tlbi() {
        let mut recorder = unlinked();
        let (below, shape) = (FRAME + 0x1000, Shape::of(16, false).expect("it is walked"));
        recorder.frames.refer(FRAME, 2, 512, shape);
        recorder.set_recorded(FRAME, FRAME + 8, below | 3);
        recorder.frames.refer(below, 3, 512, shape);
        recorder.frames.unrefer(FRAME);
        let mut standing = |is_invalidated| {
            if is_invalidated {
                issue(&mut recorder, 0, TlbiScope::AllEl1, true);
                recorder.complete(0, true);
            }
            recorder.frames.get_mut(below).map(|at| at.standing)
        };
        assert_eq!(standing(false), Some(Standing::Linked));
        assert_eq!(standing(true), Some(Standing::Unlinked));
        assert!(matches!(standing(true), Some(Standing::Grace(_))));
        // The word that led to it does not count twice.
        recorder.frames.refer(below, 3, 512, shape);
        recorder.give_up(FRAME);
        assert_eq!(recorder.frames.get_mut(below).map(|at| at.standing), Some(Standing::Linked));
    }

    #[test]
    fn a_tlbi_of_an_asid_leaves_upper_trees_followed() {
        let mut recorder = Recorder::unread(1);
        let shape = Shape::of(16, false).expect("it is walked");
        for upper in [false, true] {
            let space = Space::Half { regime: Regime::El1, upper };
            recorder.trees.insert(Tree { root: FRAME, space, id: 0 }, shape);
        }
        let place = Place { el: 1, hcr: 0, has_el2: false };
        recorder.leave_invalidated(0, TlbiScope::Asid, 0, place);
        let left: Vec<_> = recorder.trees.keys().map(|tree| tree.space).collect();
        assert_eq!(left, [Space::Half { regime: Regime::El1, upper: true }]);
    }
}
