//! Code of the other crates, run against the machine: real memory to write to, and a CPU whose instructions are events.
//!
//! The code under test writes tables through pointers, as on real hardware. Before each of its instructions the board
//! compares the frames that it had open with what the machine knows, and turns what changed into stores. Between two
//! instructions the order of stores means nothing: they may reach walkers in any order anyhow. Stores to live tables
//! that code makes through [`Cpu::store`] are events of their own.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;

use linmap_table::cpu::{self, Cpu};
use linmap_table::{FrameSource, OutOfFrames, TableWindow};
use linmap_vmsa::{Descriptor, Level, Pa, Va};
use rustc_hash::FxHashMap;

use linmap_model::event::{Access, Domain, Event, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Config, ConfigError, Machine, Rule, Trace, Violation};

/// A frame of memory that code under test can write.
struct Frame {
    words: NonNull<u64>,
    layout: Layout,
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nothing outlives the board that owns it.
        unsafe { dealloc(self.words.as_ptr().cast(), self.layout) };
    }
}

/// A frame that code under test may be writing to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Open {
    cpu: usize,
    frame: u64,
    /// Where the CPU reaches it.
    va: Option<u64>,
}

struct State {
    machine: Machine,
    frames: FxHashMap<u64, Frame>,
    /// Where the frames lie on the host.
    places: FxHashMap<usize, u64>,
    open: Vec<Open>,
    events: Option<Vec<Event>>,
    violation: Option<Violation>,
    config: Config,
}

/// A machine with memory.
#[derive(Clone)]
pub struct Board(Rc<RefCell<State>>);

/// What a word holds before anything is stored: a valid descriptor of nonsense, another for each word.
fn garbage(pa: u64) -> u64 {
    pa.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

impl State {
    fn granule(&self) -> u64 {
        self.config.granule
    }

    fn event(&mut self, event: Event) {
        if self.violation.is_some() {
            return;
        }
        if let Some(events) = &mut self.events {
            events.push(event);
        }
        self.violation = self.machine.step(&event).err();
    }

    fn frame(&mut self, pa: u64) -> NonNull<u64> {
        let bytes = self.granule();
        let base = pa & !(bytes - 1);
        let places = &mut self.places;
        let frame = self.frames.entry(base).or_insert_with(|| {
            let layout = Layout::from_size_align(bytes as usize, bytes as usize)
                .unwrap_or_else(|_| unreachable!("a granule is a power of two"));
            // SAFETY: the layout is not empty.
            let pointer = unsafe { alloc(layout) };
            let Some(words) = NonNull::new(pointer.cast::<u64>()) else { handle_alloc_error(layout) };
            for index in 0..bytes as usize / 8 {
                // SAFETY: within the allocation.
                unsafe { words.add(index).write(garbage(base + 8 * index as u64)) };
            }
            places.insert(pointer.expose_provenance(), base);
            Frame { words, layout }
        });
        let offset = (pa - base) as usize / 8;
        // SAFETY: within the frame.
        unsafe { frame.words.add(offset) }
    }

    /// The physical address of an entry.
    fn place(&self, entry: NonNull<u64>) -> u64 {
        let bytes = self.granule() as usize;
        let address = entry.as_ptr().expose_provenance();
        let base = self.places.get(&(address & !(bytes - 1)));
        let base = base.unwrap_or_else(|| panic!("{entry:p} is no entry of a table on this board"));
        base + (address & (bytes - 1)) as u64
    }

    /// Turns what changed in open frames into stores.
    fn sync(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        for nth in 0..open.len() {
            let Open { cpu, frame, .. } = open[nth];
            if open[..nth].iter().all(|other| other.frame != frame) {
                self.stores(cpu, frame);
            }
        }
        open.append(&mut self.open);
        self.open = open;
    }

    /// Whether the word at `pa`, which holds `value`, was stored to since it was looked at last.
    fn is_change(&self, pa: u64, value: u64) -> bool {
        match self.machine.word(pa) {
            Some(before) => before != value,
            None => value != garbage(pa),
        }
    }

    /// The words of a frame, a page at a time, with their addresses.
    fn pages<'f>(&self, base: u64, frame: &'f Frame) -> impl Iterator<Item = (u64, &'f [u64])> + use<'f> {
        // SAFETY: a frame is one granule, which was written when it was made; code under test does not run meanwhile.
        let words = unsafe { slice::from_raw_parts(frame.words.as_ptr(), frame.layout.size() / 8) };
        words.chunks(512).enumerate().map(move |(nth, page)| (base + 0x1000 * nth as u64, page))
    }

    /// The first word of a frame that was stored to since it was looked at last.
    fn first_change(&self, base: u64, frame: &Frame) -> Option<u64> {
        self.pages(base, frame).filter(|(pa, page)| self.machine.page(*pa) != Some(page)).find_map(
            |(pa, page)| {
                let words = page.iter().enumerate().map(|(nth, &value)| (pa + 8 * nth as u64, value));
                words.into_iter().find(|&(pa, value)| self.is_change(pa, value)).map(|(pa, _)| pa)
            },
        )
    }

    /// The stores that `cpu` made to a frame since it was looked at last.
    fn stores(&mut self, cpu: usize, base: u64) {
        self.frame(base);
        let mut stored = Vec::new();
        if let Some(frame) = self.frames.get(&base) {
            for (pa, page) in self.pages(base, frame) {
                if self.machine.page(pa) != Some(page) {
                    let words = page.iter().enumerate().map(|(nth, &value)| (pa + 8 * nth as u64, value));
                    stored.extend(words.filter(|&(pa, value)| self.is_change(pa, value)));
                }
            }
        }
        for (pa, value) in stored {
            self.event(Event::Store { cpu, pa, value, via: None });
        }
    }

    /// Opens a frame for `cpu`, which reaches it at `va`.
    fn open(&mut self, open: Open) -> NonNull<u64> {
        if let Some(va) = open.va {
            let len = self.granule();
            self.event(Event::Access { cpu: open.cpu, va, kind: Use::Write, pa: open.frame });
            self.event(Event::Uses { cpu: open.cpu, va, len, kind: Use::Write });
        }
        self.open.push(open);
        self.frame(open.frame)
    }

    fn close(&mut self, open: Open) {
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

impl Board {
    /// A board with the machine that `config` describes, and memory that holds garbage. With `record` the events are
    /// kept, so that a violation can be traced.
    ///
    /// # Errors
    /// [`ConfigError`] when there can be no such machine.
    pub fn new(config: &Config, record: bool) -> Result<Self, ConfigError> {
        Ok(Self(Rc::new(RefCell::new(State {
            machine: Machine::new(config)?,
            frames: FxHashMap::default(),
            places: FxHashMap::default(),
            open: Vec::new(),
            events: record.then(Vec::new),
            violation: None,
            config: config.clone(),
        }))))
    }

    /// CPU number `number`.
    pub fn cpu(&self, number: usize) -> BoardCpu {
        BoardCpu { board: self.clone(), number }
    }

    /// Frames as `cpu` reaches them at VA = PA + `offset`; with `None` as with the MMU off, unchecked.
    pub fn window(&self, cpu: usize, offset: Option<u64>) -> BoardWindow {
        BoardWindow { board: self.clone(), cpu, offset, open: [None; 5] }
    }

    /// Lets an event happen that no code under test causes. What it stores is in memory as well.
    pub fn event(&self, event: Event) {
        let mut state = self.0.borrow_mut();
        state.sync();
        state.event(event);
        let (pa, count, first, step) = match event {
            Event::Store { pa, value, .. } => (pa, 1, value, 0),
            Event::Fill { pa, count, first, step, .. } => (pa, count, first, step),
            _ => return,
        };
        // What the machine refused is not in its memory either.
        for index in 0..if state.violation.is_none() { count } else { 0 } {
            let value = first.wrapping_add(step.wrapping_mul(index));
            // SAFETY: a word of one of the board's frames.
            unsafe { state.frame(pa + 8 * index).write(value) };
        }
    }

    /// The memory of the word at `pa`, a multiple of 8.
    pub fn pointer(&self, pa: Pa) -> NonNull<u64> {
        self.0.borrow_mut().frame(pa.0)
    }

    /// The first violation.
    ///
    /// # Errors
    /// The [`Violation`]. Memory that was written through no open window counts as one.
    pub fn verdict(&self) -> Result<(), Violation> {
        let mut state = self.0.borrow_mut();
        state.sync();
        let astray = || state.frames.iter().find_map(|(&base, frame)| state.first_change(base, frame));
        match state.violation.or_else(|| astray().map(|pa| Violation::of(Rule::ClosedWindow).entry(pa))) {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    /// What happened so far, when the board records.
    pub fn trace(&self) -> Option<Trace> {
        let state = self.0.borrow();
        state.events.clone().map(|events| Trace { config: state.config.clone(), events })
    }

    /// Looks at the machine.
    pub fn with_machine<R>(&self, look: impl FnOnce(&mut Machine) -> R) -> R {
        let mut state = self.0.borrow_mut();
        state.sync();
        look(&mut state.machine)
    }
}

/// A CPU of the board.
#[derive(Clone)]
pub struct BoardCpu {
    board: Board,
    number: usize,
}

impl BoardCpu {
    fn event(&self, event: Event) {
        self.board.event(event);
    }

    fn write(&self, register: Register, value: u64) {
        self.event(Event::Write { cpu: self.number, register, value });
    }
}

impl Cpu for BoardCpu {
    type Frames = BoardWindow;

    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        let mut state = self.board.0.borrow_mut();
        state.sync();
        let pa = state.place(entry);
        // SAFETY: the caller's: an entry of a table, which lies in one of the board's frames.
        unsafe { entry.write(descriptor.0) };
        state.event(Event::Store { cpu: self.number, pa, value: descriptor.0, via: None });
        // A fixmap slot whose entry this was is closed by it.
        let State { machine, open, .. } = &mut *state;
        let cpu = self.number;
        open.retain(|open| {
            open.cpu != cpu
                || open.va.is_none_or(|va| {
                    !machine.is_entry_for(pa, va)
                        || machine.in_use(cpu, va)
                        || machine.translate(cpu, va, Use::Write) == Ok(open.frame)
                })
        });
    }

    unsafe fn store_run(&mut self, entries: NonNull<u64>, count: usize, first: Descriptor, step: u64) {
        if count == 0 {
            return;
        }
        let mut state = self.board.0.borrow_mut();
        state.sync();
        let pa = state.place(entries);
        let value = |index| first.0.wrapping_add(step.wrapping_mul(index));
        for index in 0..count {
            // SAFETY: the caller's: entries of one table, which lies in one of the board's frames.
            unsafe { entries.add(index).write(value(index as u64)) };
        }
        let (cpu, count) = (self.number, count as u64);
        state.event(Event::Fill { cpu, pa, count, first: first.0, step });
    }

    fn reach(&mut self, va: Va) -> NonNull<u64> {
        let mut state = self.board.0.borrow_mut();
        state.sync();
        let cpu = self.number;
        match state.machine.translate(cpu, va.0, Use::Write) {
            Ok(pa) => {
                let bytes = state.granule();
                state.event(Event::Access { cpu, va: va.0, kind: Use::Write, pa });
                state.open.push(Open { cpu, frame: pa & !(bytes - 1), va: Some(va.0 & !(bytes - 1)) });
                state.frame(pa)
            }
            Err(violation) => {
                state.violation = state.violation.or(Some(violation));
                // Code under test goes on somewhere harmless.
                state.frame(u64::MAX << 20)
            }
        }
    }

    unsafe fn frames_at(&mut self, offset: u64) -> BoardWindow {
        self.board.window(self.number, Some(offset))
    }

    fn dsb(&mut self, dsb: cpu::Dsb) {
        let (domain, access) = match dsb {
            cpu::Dsb::Ishst => (Domain::Ish, Access::Stores),
            cpu::Dsb::Ish => (Domain::Ish, Access::All),
            cpu::Dsb::Nsh => (Domain::Nsh, Access::All),
        };
        self.event(Event::Dsb { cpu: self.number, domain, access });
    }

    fn isb(&mut self) {
        self.event(Event::Isb { cpu: self.number });
    }

    fn tlbi(&mut self, tlbi: cpu::Tlbi) {
        let (scope, broadcast, operand) = match tlbi {
            cpu::Tlbi::ByVa(operand) => (TlbiScope::VaAnyAsid, true, operand.0),
            cpu::Tlbi::LastLevelByVa(operand) => (TlbiScope::VaAnyAsidLast, true, operand.0),
            cpu::Tlbi::ByRange(operand) => (TlbiScope::RangeAnyAsid, true, operand.0),
            cpu::Tlbi::LastLevelByRange(operand) => (TlbiScope::RangeAnyAsidLast, true, operand.0),
            cpu::Tlbi::All => (TlbiScope::AllEl1, true, 0),
            cpu::Tlbi::AllLocal => (TlbiScope::AllEl1, false, 0),
        };
        self.event(Event::Tlbi { cpu: self.number, tlbi: Tlbi { scope, broadcast }, operand });
    }

    fn write_ttbr0(&mut self, value: u64) {
        self.write(Register::Ttbr0, value);
    }

    fn write_ttbr1(&mut self, value: u64) {
        self.write(Register::Ttbr1, value);
    }

    fn write_tcr(&mut self, value: u64) {
        self.write(Register::Tcr, value);
    }
}

/// Table frames as a CPU of the board reaches them.
pub struct BoardWindow {
    board: Board,
    cpu: usize,
    offset: Option<u64>,
    open: [Option<Open>; 5],
}

// SAFETY: a frame is always the same allocation of one granule, aligned to it, that lives as long as the board.
unsafe impl TableWindow for BoardWindow {
    fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        self.close(level);
        let va = self.offset.map(|offset| table.0.wrapping_add(offset));
        let open = Open { cpu: self.cpu, frame: table.0, va };
        self.open[level.above_pages() as usize] = Some(open);
        self.board.0.borrow_mut().open(open)
    }

    fn close(&mut self, level: Level) {
        if let Some(open) = self.open[level.above_pages() as usize].take() {
            self.board.0.borrow_mut().close(open);
        }
    }
}

impl Drop for BoardWindow {
    fn drop(&mut self) {
        for open in self.open.iter_mut().filter_map(Option::take) {
            self.board.0.borrow_mut().close(open);
        }
    }
}

/// A source of frames that the machine is told about: what is given back must be out of every walk's reach, and is
/// garbage afterwards.
pub struct BoardFrames<F> {
    board: Board,
    /// Where the frames come from.
    pub source: F,
}

impl<F> BoardFrames<F> {
    /// The frames of `source`, which must lie in the board's memory.
    pub fn new(board: &Board, source: F) -> Self {
        Self { board: board.clone(), source }
    }
}

// SAFETY: hands on what `source` does.
unsafe impl<F: FrameSource> FrameSource for BoardFrames<F> {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        self.source.alloc()
    }

    fn free(&mut self, frame: Pa) {
        let mut state = self.board.0.borrow_mut();
        state.sync();
        let len = state.granule();
        state.event(Event::Free { pa: frame.0, len });
        let words = state.frame(frame.0);
        for index in 0..len / 8 {
            let pa = frame.0 + 8 * index;
            // SAFETY: within the frame, which code under test has given back.
            unsafe { words.add(index as usize).write(garbage(pa)) };
        }
        drop(state);
        self.source.free(frame);
    }
}
