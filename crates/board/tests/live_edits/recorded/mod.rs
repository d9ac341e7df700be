//! Edits recorded on the machine, to be replayed with a mistake in them.

use linmap_live::{Change, Half};
use linmap_model::{Config, Event, Machine, Violation};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Geometry, Granule, HardwareUpdates};

use crate::world::{Done, Op, Setting, Who, World};

pub const MIB: u64 = 1 << 20;

/// The events of one edit, of all before it, and of all that relies on it.
pub struct Recorded {
    pub config: Config,
    pub before: Vec<Event>,
    pub edit: Vec<Event>,
    pub after: Vec<Event>,
}

impl Recorded {
    pub fn verdict(&self, edit: &[Event]) -> Result<(), Violation> {
        let mut machine = Machine::new(&self.config).unwrap();
        for event in &self.before {
            machine.step(event).unwrap();
        }
        edit.iter().chain(&self.after).try_for_each(|event| machine.step(event))
    }
}

pub fn setting(granule: Granule, bbm: BbmLevel) -> Setting {
    let va_bits = if granule == Granule::K4 { 39 } else { 36 };
    Setting {
        geometry: Geometry::new(granule, va_bits, 48).unwrap(),
        bbm,
        cpus: 2,
        half: Half::High,
        area_at: 1 << 34,
        area_len: 64 * MIB,
        frames: 80,
        own_window: false,
        window_leaves: Leaves::Pages,
        range_invalidation: false,
        asid: None,
        updates: HardwareUpdates::Off,
        seed: 0,
    }
}

pub fn mapped(leaves: Leaves) -> Op {
    Op::Map { at: 0, len: 64 * MIB, shift: 0, attributes: Attributes::KERNEL_DATA, leaves }
}

pub fn read_only(at: u64, len: u64) -> Op {
    let change = Change { access: Some(Access::KernelReadOnly), ..Change::default() };
    Op::Protect { at, len, change }
}

/// Does all of `ops`, and records the last of them.
pub fn record(setting: Setting, initial: Op, ops: &[Op], who: Who) -> Recorded {
    let mut world = World::new(setting, &[initial], true);
    let (last, first) = ops.split_last().unwrap();
    for op in first {
        assert_eq!(world.apply(*op, who, 0), Ok(Done::Applied));
    }
    let before = world.board.trace().unwrap().events;
    assert_eq!(world.apply(*last, who, 0), Ok(Done::Applied));
    world.agree().unwrap();
    let edited = world.board.trace().unwrap().events.len();
    let (at, len) = last.range();
    let page = setting.geometry.granule().bytes();
    let places = [at, (at + len / 2) & !(page - 1), at + len - page, at + len, at.saturating_sub(page)];
    for cpu in 0..setting.cpus {
        for place in places {
            world.probe(cpu, place).unwrap();
        }
    }
    let trace = world.board.trace().unwrap();
    // `apply` ends with `Settled`, which is what comes after the edit.
    let edit = single(&trace.events[before.len()..edited - 1]);
    let after = trace.events[edited - 1..].to_vec();
    assert_eq!(after[0], Event::Settled);
    let recorded = Recorded { config: trace.config, before, edit, after };
    assert_eq!(recorded.verdict(&recorded.edit), Ok(()));
    recorded
}

pub fn is_dsb(event: &Event) -> bool {
    matches!(event, Event::Dsb { .. })
}

pub fn is_tlbi(event: &Event) -> bool {
    matches!(event, Event::Tlbi { .. })
}

pub fn is_free(event: &Event) -> bool {
    matches!(event, Event::Free { .. })
}

pub fn is_isb(event: &Event) -> bool {
    matches!(event, Event::Isb { .. })
}

pub fn moved(events: &[Event], from: usize, to: usize) -> Vec<Event> {
    let mut events = events.to_vec();
    let event = events.remove(from);
    events.insert(to, event);
    events
}

pub fn without(events: &[Event], nth: usize) -> Vec<Event> {
    let mut events = events.to_vec();
    events.remove(nth);
    events
}

/// Fills of more than one word as single stores, so that one of them can be changed.
pub fn single(events: &[Event]) -> Vec<Event> {
    let mut singles = Vec::new();
    for event in events {
        match *event {
            Event::Fill { cpu, pa, count, first, step } => {
                singles.extend((0..count).map(|nth| Event::Store {
                    cpu,
                    pa: pa + 8 * nth,
                    value: first.wrapping_add(step.wrapping_mul(nth)),
                    via: None,
                }));
            }
            event => singles.push(event),
        }
    }
    singles
}
