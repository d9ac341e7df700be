//! The state that a board shares with its CPUs, windows and frame sources.

use std::cell::{RefCell, RefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use linmap_model::{Config, ConfigError, Machine, Rule, Violation};
use linmap_trace::{Event, Use};

use crate::memory::{Memory, garbage};
use crate::walkers::Walkers;

/// A frame that code under test may be writing to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OpenFrame {
    /// The CPU that writes.
    pub cpu: usize,
    /// The frame.
    pub frame: u64,
    /// The address at which the CPU reaches it; `None` as with the MMU off.
    pub va: Option<u64>,
}

/// The machine, and the memory that code under test writes beside it.
#[derive(Debug)]
pub(crate) struct State {
    pub machine: Machine,
    pub memory: Memory,
    pub config: Config,
    /// Frames that code under test may be writing to.
    pub open: Vec<OpenFrame>,
    /// All events, if the board records them.
    pub events: Option<Vec<Event>>,
    /// The first violation.
    pub violation: Option<Violation>,
    /// CPUs that access memory all the time.
    pub walkers: Option<Walkers>,
}

impl State {
    pub fn new(config: &Config, record: bool) -> Result<Self, ConfigError> {
        Ok(Self {
            machine: Machine::new(config)?,
            memory: Memory::new(config.granule),
            config: config.clone(),
            open: Vec::new(),
            events: record.then(Vec::new),
            violation: None,
            walkers: None,
        })
    }

    /// The granule in bytes.
    pub fn granule(&self) -> u64 {
        self.config.granule
    }

    /// Lets an event happen on the machine.
    pub fn event(&mut self, event: Event) {
        if self.violation.is_some() {
            return;
        }
        if let Some(events) = &mut self.events {
            events.push(event);
        }
        self.violation = self.machine.step(&event).err();
        if let Some(walkers) = &mut self.walkers {
            walkers.note(&event);
        }
    }

    /// Lets the walkers access memory, if there are any.
    pub fn accesses(&mut self) {
        let Some(mut walkers) = self.walkers.take() else { return };
        self.sync();
        walkers.access(&mut self.machine, &mut self.memory);
        self.walkers = Some(walkers);
    }

    /// Lets an event happen, and stores what it stores to memory as well.
    pub fn event_in_memory(&mut self, event: Event) {
        self.sync();
        self.event(event);
        let (pa, count, first, step) = match event {
            Event::Store { pa, value, .. } | Event::Update { pa, value, .. } => (pa, 1, value, 0),
            Event::Fill { pa, count, first, step, .. } => (pa, count, first, step),
            _ => return,
        };
        // What the machine refused is not in its memory either.
        if self.violation.is_some() {
            return;
        }
        for index in 0..count {
            self.memory.write(pa + 8 * index, first.wrapping_add(step.wrapping_mul(index)));
        }
    }

    /// Turns what changed in open frames into stores.
    pub fn sync(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        for nth in 0..open.len() {
            let OpenFrame { cpu, frame, .. } = open[nth];
            if open[..nth].iter().all(|other| other.frame != frame) {
                self.stores(cpu, frame);
            }
        }
        open.append(&mut self.open);
        self.open = open;
    }

    /// Whether the word at `pa`, which holds `value`, was stored to since it was compared last.
    fn is_change(&self, pa: u64, value: u64) -> bool {
        match self.machine.word(pa) {
            Some(before) => before != value,
            None => value != garbage(pa),
        }
    }

    /// The words of the frame at `base` that were stored to since they were compared last, with
    /// their values.
    fn changes(&self, base: u64) -> impl Iterator<Item = (u64, u64)> {
        // Whole pages first: most are as the machine knows them.
        let pages = self.memory.pages(base).filter(|(pa, page)| self.machine.known_page(*pa) != Some(page));
        pages.flat_map(|(pa, page)| {
            let words = page.iter().enumerate().map(move |(nth, &value)| (pa + 8 * nth as u64, value));
            words.filter(|&(pa, value)| self.is_change(pa, value))
        })
    }

    /// Emits the stores that `cpu` made to the frame at `base` since it was compared last.
    fn stores(&mut self, cpu: usize, base: u64) {
        let stored: Vec<(u64, u64)> = self.changes(base).collect();
        for (pa, value) in stored {
            self.event(Event::Store { cpu, pa, value, via: None });
        }
    }

    /// The first violation. Memory that was written through no open window is one.
    pub fn verdict(&mut self) -> Result<(), Violation> {
        self.sync();
        let astray = || self.memory.frames().find_map(|base| Some(self.changes(base).next()?.0));
        let closed = |pa| Violation::new(Rule::ClosedWindow).at_pa(pa);
        self.violation.or_else(|| astray().map(closed)).map_or(Ok(()), Err)
    }

    /// Opens a frame, which the CPU uses from now on if it reaches it through the MMU.
    pub fn open(&mut self, open: OpenFrame) -> NonNull<u64> {
        if let Some(va) = open.va {
            let len = self.granule();
            self.event(Event::Access { cpu: open.cpu, va, kind: Use::Write, pa: open.frame });
            self.event(Event::Uses { cpu: open.cpu, va, len, kind: Use::Write });
        }
        self.open.push(open);
        self.memory.word(open.frame)
    }

    /// Closes a frame that [`open`](Self::open) opened.
    pub fn close(&mut self, open: OpenFrame) {
        self.stores(open.cpu, open.frame);
        if let Some(nth) = self.open.iter().position(|other| *other == open) {
            self.open.swap_remove(nth);
            if let Some(va) = open.va {
                let len = self.granule();
                self.event(Event::Unuses { cpu: open.cpu, va, len, kind: Use::Write });
            }
        }
    }
}

/// A share of the state.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Rc<RefCell<State>>);

impl Shared {
    pub fn new(state: State) -> Self {
        Self(Rc::new(RefCell::new(state)))
    }

    /// Borrows the state exclusively, for as long as the reference lives.
    pub fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// The state with all stores so far known to the machine.
    pub fn synced(&self) -> RefMut<'_, State> {
        let mut state = self.state();
        state.sync();
        state
    }
}
