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

    /// Lets the walkers access memory before code under test reads a table, some of the times.
    // Without `sync`, which compares whole tables: an entry that walkers reach has no store that
    // the machine lacks, but for those of an event that is under way.
    fn accesses_to_read(&mut self) {
        if let Some(walkers) = &mut self.walkers {
            walkers.access_at_times(&mut self.machine, &mut self.memory);
        }
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

    /// Turns what changed in `count` words from `pa` on into stores, if their frames are open.
    ///
    /// Enough before a store: until a barrier or a walk, walkers see stores in any order, and what
    /// changed elsewhere in open frames becomes a store before the next event of another kind.
    pub fn sync_words(&mut self, pa: u64, count: u64) {
        let frame = pa & !(self.granule() - 1);
        let Some(&OpenFrame { cpu, .. }) = self.open.iter().find(|open| open.frame == frame) else { return };
        for pa in (pa..).step_by(8).take(count as usize) {
            // SAFETY: a word of one of the board's frames; code under test does not run now.
            let value = unsafe { self.memory.word(pa).read() };
            if self.is_change(pa, value) {
                self.event(Event::Store { cpu, pa, value, via: None });
            }
        }
    }

    /// Whether the word at `pa` is an entry by which `cpu` reaches an open frame.
    pub fn is_entry_of_open(&self, cpu: usize, pa: u64) -> bool {
        let mut reached = self.open.iter().filter(|open| open.cpu == cpu).filter_map(|open| open.va);
        reached.any(|va| self.machine.is_entry_for(pa, va))
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
        self.memory.pages(base).flat_map(|(pa, page)| {
            let stored = self.machine.stored_page(pa);
            // Whole pages first: most are as the machine knows them.
            let all = |known: &[u64]| known.iter().all(|word| *word == u64::MAX);
            let same = stored.is_some_and(|(words, known)| all(known) && words == page);
            let page = if same { &[] } else { page };
            let words = page.iter().enumerate().map(move |(nth, &value)| (nth, pa + 8 * nth as u64, value));
            let changed = words.filter(move |&(nth, pa, value)| match stored {
                Some((words, known)) if known[nth / 64] >> (nth % 64) & 1 == 1 => words[nth] != value,
                _ => value != garbage(pa),
            });
            changed.map(|(_, pa, value)| (pa, value))
        })
    }

    /// Emits the stores that `cpu` made to the frame at `base` since it was compared last.
    fn stores(&mut self, cpu: usize, base: u64) {
        let stored: Vec<(u64, u64)> = self.changes(base).collect();
        let mut events = Vec::new();
        let mut rest = &stored[..];
        while let Some(&(pa, value)) = rest.first() {
            let count = self.len_of_fill(rest);
            events.push(if count > 1 {
                let step = rest[1].1.wrapping_sub(value);
                Event::Fill { cpu, pa, count: count as u64, first: value, step }
            } else {
                Event::Store { cpu, pa, value, via: None }
            });
            rest = &rest[count..];
        }
        events.into_iter().for_each(|event| self.event(event));
    }

    /// How many of the first `words` one event can store: neighbours in a page to which nothing was
    /// stored before, with values that increase by one step.
    fn len_of_fill(&self, words: &[(u64, u64)]) -> usize {
        let [(first, value), (_, next), ..] = *words else { return 1 };
        let page = |pa: u64| pa & !0xfff;
        let is_fresh =
            self.machine.stored_page(first).is_none_or(|(_, known)| known.iter().all(|it| *it == 0));
        if !is_fresh {
            return 1;
        }
        let step = next.wrapping_sub(value);
        let follows = |pair: &[(u64, u64)]| {
            let [(pa, value), (next, other)] = *pair else { return false };
            next == pa + 8 && page(next) == page(first) && other.wrapping_sub(value) == step
        };
        1 + words.windows(2).take_while(|pair| follows(pair)).count()
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
        self.accesses_to_read();
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

#[cfg(test)]
mod tests {
    use linmap_table::TableWindow;
    use linmap_table::cpu::{Cpu, Dsb};
    use linmap_trace::Event;
    use linmap_vmsa::{Descriptor, Level, Pa};

    use super::*;
    use crate::Board;

    const TABLE: u64 = 0x8000_0000;

    fn board() -> Board {
        let (ram, granule) = (vec![(TABLE, 0x1000)], 0x1000);
        Board::new(
            &Config {
                cpus: 1,
                bbm: 0,
                granule,
                va_bits: 39,
                pa_bits: 40,
                ram,
                leniency: linmap_model::Leniency::Strict,
            },
            true,
        )
        .unwrap()
    }

    fn stored(board: &Board) -> Vec<(u64, u64)> {
        let events = board.trace().unwrap().events.into_iter();
        let stores = events.filter_map(|event| match event {
            Event::Store { pa, value, .. } => Some(vec![(pa - TABLE, value)]),
            Event::Fill { pa, count, first, step, .. } => {
                Some((0..count).map(|nth| (pa - TABLE + 8 * nth, first + step * nth)).collect())
            }
            _ => None,
        });
        stores.flatten().collect()
    }

    #[test]
    fn writes_through_a_pointer_are_stores_before_the_next_barrier() {
        let board = board();
        let (mut cpu, mut window) = (board.cpu(0), board.window(0, None));
        // SAFETY: the board's memory; both words lie in the frame.
        unsafe {
            let entry = window.open(Level::L3, Pa(TABLE));
            entry.write(2);
            entry.add(5).write(4);
            // Of the same word, both values.
            cpu.store(entry, Descriptor(6));
        }
        assert_eq!(stored(&board), [(0, 2), (0, 6)]);
        cpu.dsb(Dsb::Ish);
        assert_eq!(stored(&board), [(0, 2), (0, 6), (40, 4)]);
        window.close(Level::L3);
        assert_eq!(board.verdict(), Ok(()));
    }

    #[test]
    fn a_write_through_no_window_is_found_in_all_memory() {
        let board = board();
        let mut window = board.window(0, None);
        // SAFETY: the board's memory.
        let entry = unsafe { window.open(Level::L3, Pa(TABLE)) };
        window.close(Level::L3);
        // SAFETY: as above, but the frame is closed.
        unsafe { entry.write(2) };
        assert_eq!(board.violation(), None);
        assert_eq!(board.verdict().map_err(|violation| violation.rule), Err(Rule::ClosedWindow));
    }

    #[test]
    fn a_new_table_is_stored_in_runs_of_equal_steps() {
        let board = board();
        let mut window = board.window(0, None);
        // SAFETY: the board's memory.
        let entries = unsafe { window.open(Level::L3, Pa(TABLE)) };
        let expected: Vec<_> =
            (0..512).map(|nth| (8 * nth, if nth < 100 { 0 } else { 0x1000 * nth + 3 })).collect();
        for &(offset, value) in &expected {
            // SAFETY: within the frame.
            unsafe { entries.byte_add(offset as usize).write(value) };
        }
        window.close(Level::L3);
        assert_eq!(stored(&board), expected);
        assert_eq!(board.trace().unwrap().events.len(), 2);
    }
}
