//! The last events of a pipe, which can't be read again, and what came before them in short.

use std::collections::{BTreeMap, VecDeque};

use linmap_model::event::{Access, Domain, Register};
use linmap_model::{Event, Excerpt, Machine};

use super::events::Located;

/// The last events.
pub struct History {
    limit: usize,
    /// The number of the first event that is kept.
    first: usize,
    kept: VecDeque<Kept>,
    /// The registers as events before the first that is kept left them.
    registers: BTreeMap<(usize, Order), u64>,
    /// The ranges in use then.
    uses: Vec<Event>,
}

struct Kept {
    located: Located,
    /// What the word that it stores held before; `None` if nothing is known.
    before: Option<u64>,
}

/// Registers in the order in which they are written before a walk.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Order(Register);

impl Order {
    fn rank(self) -> u8 {
        match self.0 {
            Register::Hcr => 0,
            Register::Sctlr => 1,
            Register::SctlrEl2 => 2,
            Register::SctlrEl3 => 3,
            Register::Tcr => 4,
            Register::TcrEl2 => 5,
            Register::TcrEl3 => 6,
            Register::Vtcr => 7,
            Register::Mair => 8,
            Register::MairEl2 => 9,
            Register::MairEl3 => 10,
            Register::Ttbr0 => 11,
            Register::Ttbr1 => 12,
            Register::Ttbr0El2 => 13,
            Register::Ttbr1El2 => 14,
            Register::Ttbr0El3 => 15,
            Register::Vttbr => 16,
        }
    }
}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl History {
    /// A history of at most `limit` events.
    pub fn new(limit: usize) -> Self {
        Self { limit, first: 0, kept: VecDeque::new(), registers: BTreeMap::new(), uses: Vec::new() }
    }

    /// The number of the first event that is kept; 0 if all are.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Adds the next event, which `machine` has not run yet.
    pub fn push(&mut self, located: Located, machine: &Machine) {
        let before = match located.recorded.event {
            Event::Store { pa, .. } | Event::Update { pa, .. } => machine.word(pa),
            _ => None,
        };
        // Room first, so that the queue never grows beyond the limit.
        if self.kept.len() == self.limit
            && let Some(dropped) = self.kept.pop_front()
        {
            self.first += 1;
            self.sum_up_one(dropped.located.recorded.event);
        }
        if self.kept.len() == self.kept.capacity() {
            let more = self.kept.len().max(1 << 10).min(self.limit - self.kept.len());
            self.kept.reserve_exact(more);
        }
        self.kept.push_back(Kept { located, before });
    }

    /// Keeps what later events need of an event that is dropped.
    fn sum_up_one(&mut self, event: Event) {
        match event {
            Event::Write { cpu, register, value } => {
                self.registers.insert((cpu, Order(register)), value);
            }
            Event::Uses { .. } => self.uses.push(event),
            Event::Unuses { cpu, va, len, kind } => {
                let ended = Event::Uses { cpu, va, len, kind };
                if let Some(nth) = self.uses.iter().position(|uses| *uses == ended) {
                    self.uses.swap_remove(nth);
                }
            }
            _ => {}
        }
    }

    /// Adds all events to `excerpt`, after what sums up the events before them. Calls `chosen` with
    /// each that may take part, and its number. `machine` has run all of them.
    pub fn fill(&self, excerpt: &mut Excerpt, machine: &Machine, mut chosen: impl FnMut(usize, Located)) {
        if self.first > 0 {
            self.sum_up(excerpt, machine);
        }
        for (number, kept) in (self.first..).zip(&self.kept) {
            if excerpt.add(number, &kept.located.recorded.event) {
                chosen(number, kept.located);
            }
        }
    }

    /// Adds the entries, registers and uses as they were before the first event that is kept.
    fn sum_up(&self, excerpt: &mut Excerpt, machine: &Machine) {
        let mut then: BTreeMap<u64, Option<u64>> =
            excerpt.entries().into_iter().map(|pa| (pa, machine.word(pa))).collect();
        for kept in self.kept.iter().rev() {
            if let Event::Store { pa, .. } | Event::Update { pa, .. } = kept.located.recorded.event
                && let Some(value) = then.get_mut(&pa)
            {
                *value = kept.before;
            }
        }
        for (pa, value) in then {
            let value = value.unwrap_or(0);
            excerpt.add_summary(&Event::Store { cpu: 0, pa, value, via: None });
        }
        excerpt.add_summary(&Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All });
        for (&(cpu, Order(register)), &value) in &self.registers {
            excerpt.add_summary(&Event::Write { cpu, register, value });
            excerpt.add_summary(&Event::Isb { cpu });
        }
        for uses in &self.uses {
            excerpt.add_summary(uses);
        }
    }
}
