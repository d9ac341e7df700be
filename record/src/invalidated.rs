//! Which TLBIs take tables that nothing leads to from all walk caches.

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
            self.invalidated(at);
            return;
        }
        // Each CPU may do it for itself.
        let walking = self.cpus.iter().filter(|state| state.has_walked());
        if let Some(by) = walking.map(|state| state.taken).min() {
            self.invalidated(by);
        }
    }

    /// No walk cache leads to what was unlinked when the trace had fewer events than `by`. So no
    /// walk goes on from there, either.
    pub(crate) fn invalidated(&mut self, by: u64) {
        loop {
            let reached = self.frames.invalidated(by);
            if reached.is_empty() {
                break;
            }
            for (frame, since) in reached {
                self.leave_below(frame, since);
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

    const BELOW: u64 = 0x4000_1000;

    /// The same, and it leads to another.
    fn unlinked_above() -> Recorder {
        let mut recorder = unlinked();
        let shape = Shape::of(16, false).expect("it is walked");
        recorder.frames.refer(FRAME, 2, 512, shape);
        recorder.frames.get_mut(FRAME).expect("it is followed").recorded[1] = Some(BELOW | 0b11);
        recorder.frames.refer(BELOW, 3, 512, shape);
        recorder.frames.unrefer(FRAME);
        recorder
    }

    fn standing(recorder: &mut Recorder, frame: u64) -> Option<Standing> {
        recorder.frames.get_mut(frame).map(|at| at.standing)
    }

    #[test]
    fn what_a_table_leads_to_is_left_with_it() {
        let mut recorder = unlinked_above();
        assert_eq!(standing(&mut recorder, BELOW), Some(Standing::Linked));
        issue(&mut recorder, 0, TlbiScope::AllEl1, true);
        recorder.complete(0, true);
        assert!(matches!(standing(&mut recorder, BELOW), Some(Standing::Grace(_))));

        // Something else led to it until behind the TLBI.
        let mut recorder = unlinked_above();
        let shape = Shape::of(16, false).expect("it is walked");
        recorder.frames.refer(BELOW, 3, 512, shape);
        issue(&mut recorder, 0, TlbiScope::AllEl1, true);
        recorder.frames.unrefer(BELOW);
        recorder.complete(0, true);
        assert!(matches!(standing(&mut recorder, FRAME), Some(Standing::Grace(_))));
        assert_eq!(standing(&mut recorder, BELOW), Some(Standing::Unlinked));
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
