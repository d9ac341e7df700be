//! What becomes of what the guest does: events of the trace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use linmap_trace::binary::Record;
use linmap_trace::{Event, Line, Recorded};

use crate::cpu::Cpu;
use crate::followed::{Frames, Standing, Table};
use crate::idle::IdleBarriers;
use crate::log::{Entry, Linked, Log};
use crate::memory::{Memory, ReadRom};
use crate::readable::Readable;
use crate::shape::Shape;
use crate::stream::Stream;
use crate::tree::Tree;
use crate::waiting::{Released, Unseen};

/// What the recorder reads of the CPU that executes.
pub trait CurrentCpu {
    /// X register `number`; 0 for 31.
    fn x(&self, number: u8) -> u64;
    /// A system register, if the CPU has it.
    fn system(&self, register: Readable) -> Option<u64>;
}

/// What the recorder has once the trace has begun.
pub(crate) struct Started {
    pub memory: Memory,
}

/// The recorder.
pub struct Recorder {
    pub(crate) stream: Stream,
    pub(crate) memory_file: PathBuf,
    pub(crate) layout_file: PathBuf,
    pub(crate) read_rom: ReadRom,
    /// `None` until the first CPU turns its MMU on.
    pub(crate) started: Option<Started>,
    /// The trace can't be begun.
    pub(crate) has_failed: bool,
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) frames: Frames,
    /// Trees, and how they are read, whether some CPU walks them or not.
    pub(crate) trees: BTreeMap<Tree, Shape>,
    /// Frames with stores since they were compared with memory.
    pub(crate) touched: Vec<u64>,
    /// Unordered stores to frames that are being linked: their numbers in the log, by whom, where.
    pub(crate) pending: Vec<(u64, Entry)>,
    /// Unordered stores to frames that are not followed.
    pub(crate) log: Log,
    /// Stores that raised no callback and are not read back yet.
    pub(crate) unseen: Option<Unseen>,
    /// Who released a word last.
    pub(crate) released: HashMap<u64, Released>,
    /// Firmware was asked to reset the machine, there.
    pub(crate) asked_for_reset: Option<u64>,
    /// Threads that may have taken access back and not returned to EL0 since.
    pub(crate) editing: BTreeSet<u64>,
    /// The CPU that does what is being recorded.
    pub(crate) actor: usize,
    /// How a frame is linked now, if one is.
    pub(crate) linked_by: Linked,
    /// The number of events.
    pub(crate) events: u64,
    /// Differences between what was recorded and memory.
    pub(crate) differences: u64,
    /// Words of tables that devices wrote.
    pub(crate) device_words: usize,
    /// Where vectors lie, as the trace has it.
    pub(crate) vectors: BTreeSet<u64>,
    /// Barriers without effect.
    pub(crate) idle: IdleBarriers,
    pub(crate) notes: usize,
    /// Tables of a second granule were noted.
    pub(crate) has_other_granule: bool,
}

/// Whether the trace has begun: until then no store matters.
pub static IS_STARTED: AtomicBool = AtomicBool::new(false);

/// The PC of an instruction whose own is not kept.
pub(crate) const NO_PC: u64 = 0;

/// The most places of vectors that the trace has.
pub(crate) const MOST_VECTORS: usize = 64;

/// The most notes.
const MOST_NOTES: usize = 64;

impl Recorder {
    /// A recorder that has the guest's RAM in the first of `files`, as the second says.
    pub fn new(stream: Stream, files: [PathBuf; 2], read_rom: ReadRom, cpus: usize) -> Self {
        let [memory_file, layout_file] = files;
        Self {
            stream,
            memory_file,
            layout_file,
            read_rom,
            started: None,
            has_failed: false,
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            frames: Frames::default(),
            trees: BTreeMap::new(),
            touched: Vec::new(),
            pending: Vec::new(),
            log: Log::new(cpus),
            unseen: None,
            released: HashMap::new(),
            asked_for_reset: None,
            editing: BTreeSet::new(),
            actor: 0,
            linked_by: Linked::ByRegister,
            events: 0,
            differences: 0,
            device_words: 0,
            vectors: BTreeSet::new(),
            idle: IdleBarriers::default(),
            notes: 0,
            has_other_granule: false,
        }
    }

    pub fn note(&mut self, text: &str) {
        self.notes += 1;
        if self.notes <= MOST_NOTES {
            self.stream.put(&Record::Note(text));
        }
    }

    /// Sends what waits to be sent.
    pub fn send_what_waits(&mut self) {
        self.stream.send_what_waits();
    }

    pub(crate) fn put(&mut self, event: Event, pc: Option<u64>) {
        let pc = pc.filter(|pc| *pc != NO_PC);
        self.put_release_before(&event);
        self.events += 1;
        self.frames.now = self.events;
        self.stream.put(&Record::Line(Line::Event(Recorded { event, pc })));
    }

    /// The CPU of the trace that stands for memory as it was before the recorder looked.
    pub(crate) fn observer(&self) -> usize {
        self.cpus.len()
    }

    pub(crate) fn word(&self, pa: u64) -> Option<u64> {
        self.started.as_ref()?.memory.word(pa)
    }

    /// A store of `len` bytes at `pa`, which memory has now.
    pub fn store(&mut self, cpu: usize, pc: u64, pa: u64, len: u64, is_atomic: bool) {
        if let Some(asked) = self.asked_for_reset.take() {
            self.reset(cpu, asked);
        }
        self.settle_unseen(Some((pa, len)));
        self.actor = cpu;
        let frame = self.frames.of(pa);
        if self.frames.get_mut(frame).is_none() {
            self.keep(cpu, pc, pa, len);
            return;
        }
        let mut word = pa & !7;
        let end = pa.saturating_add(len);
        while word < end && self.frames.of(word) == frame {
            if let Some(value) = self.word(word) {
                self.store_word(cpu, pc, frame, word, value, is_atomic);
            }
            word += 8;
        }
        if self.frames.is_over(frame) {
            self.give_up(frame);
        }
    }

    /// A store to a frame that is not followed.
    pub fn keep(&mut self, cpu: usize, pc: u64, pa: u64, len: u64) {
        self.settle_unseen(Some((pa, len)));
        for pa in (pa & !7..pa + len).step_by(8) {
            if let Some(value) = self.word(pa) {
                self.log.store(cpu, pc, pa, value);
            }
        }
    }

    /// Whether some CPU has a vector at `pc`.
    pub fn is_vector(&self, pc: u64) -> bool {
        let stage1 = self.cpus.iter().flat_map(|cpu| &cpu.registers.stage1);
        stage1.into_iter().any(|own| pc.wrapping_sub(own.vbar) < 0x800)
    }

    /// Ends that `frame` is followed. What it leads to has one reference less.
    pub(crate) fn give_up(&mut self, frame: u64) {
        self.leave_all(frame);
        self.frames.give_up(frame);
    }

    /// The tables of `frame` are none any more: what they lead to has one reference less.
    pub(crate) fn leave_all(&mut self, frame: u64) {
        let Some(state) = self.frames.get_mut(frame) else { return };
        for table in std::mem::take(&mut state.tables) {
            self.leave(frame, &table);
        }
    }

    /// Ends that the table at `pa` is followed.
    pub(crate) fn give_up_table(&mut self, pa: u64) {
        let frame = self.frames.of(pa);
        let Some(table) = self.frames.remove(pa) else { return };
        self.leave(frame, &table);
        if self.frames.get_mut(frame).is_some_and(|state| state.tables.is_empty()) {
            self.frames.give_up(frame);
        }
    }

    /// Ends that anything is followed.
    pub(crate) fn give_up_all(&mut self) {
        for frame in self.frames.followed() {
            self.give_up(frame);
        }
        self.trees.clear();
    }

    /// What a table of `frame` leads to has one reference less. Returns the words that led there.
    pub(crate) fn leave(&mut self, frame: u64, table: &Table) -> Vec<usize> {
        let Some(state) = self.frames.get_mut(frame) else { return Vec::new() };
        let linked = table.words().filter(|at| !state.skipped.contains(at));
        let leads = |at| {
            let value = state.recorded[at]?;
            let below = levels_of(table.levels).filter_map(|level| table.shape.table(level, value));
            let below: Vec<u64> = below.filter(|below| *below != frame).collect();
            (!below.is_empty()).then_some((at, below))
        };
        let led: Vec<_> = linked.filter_map(leads).collect();
        for below in led.iter().flat_map(|(_, below)| below) {
            self.frames.unrefer(*below);
        }
        led.into_iter().map(|(at, _)| at).collect()
    }

    fn store_word(&mut self, cpu: usize, pc: u64, frame: u64, pa: u64, value: u64, is_atomic: bool) {
        if !self.stays_followed(frame, value) {
            self.log.store(cpu, pc, pa, value);
            return;
        }
        self.stored(frame, pa, value);
        let event = if is_atomic {
            Event::Update { cpu, pa, value, old: None, via: None }
        } else {
            Event::Store { cpu, pa, value, via: None }
        };
        self.put(event, Some(pc));
        self.has_stored(cpu);
        if self.touched.last() != Some(&frame) {
            self.touched.push(frame);
        }
    }

    /// A word of a followed frame holds `value` from now on. Says whether it held another before.
    pub(crate) fn stored(&mut self, frame: u64, pa: u64, value: u64) -> bool {
        let at = ((pa - frame) / 8) as usize;
        let Some(state) = self.frames.get_mut(frame) else { return false };
        let before = state.recorded[at].replace(value);
        if before != Some(value) && state.tables.iter().any(|table| table.words().contains(&at)) {
            // The next owner of a frame that is no table any more may store anything there.
            let was_linked = !state.skipped.contains(&at);
            let is_linked = state.standing == Standing::Linked;
            if !is_linked {
                state.skipped.insert(at);
            }
            self.linked_by = Linked::ByStore(self.actor);
            self.relink(pa, before.filter(|_| was_linked), Some(value).filter(|_| is_linked));
            self.linked_by = Linked::ByRegister;
            if is_linked {
                self.note_edit(before.unwrap_or(0), value);
            }
            if is_linked && value & 1 == 0 && before.is_some_and(|before| before & 1 == 1) {
                self.note_broken(self.actor, pa);
            }
        }
        before != Some(value)
    }

    /// `cpu` has stores in the trace that nothing has ordered.
    pub(crate) fn has_stored(&mut self, cpu: usize) {
        if let Some(cpu) = self.cpus.get_mut(cpu) {
            cpu.has_stores = true;
            cpu.has_stores_since_dmb = true;
        }
    }

    /// Follows what the new value of the entry at `pa` leads to, and leaves what the old one did.
    pub(crate) fn relink(&mut self, pa: u64, before: Option<u64>, now: Option<u64>) {
        let frame = self.frames.of(pa);
        let at = ((pa - frame) / 8) as usize;
        let Some(state) = self.frames.get_mut(frame) else { return };
        let own = state.tables.iter().filter(|table| table.words().contains(&at));
        let own: Vec<_> = own.map(|table| (table.levels, table.shape)).collect();
        for (levels, shape) in own {
            for level in levels_of(levels) {
                // A table that leads to itself would be followed for ever.
                let below = |it: u64| shape.table(level, it).filter(|below| *below != frame);
                let [old, new] = [before, now].map(|it| it.and_then(below));
                if old == new {
                    continue;
                }
                if let Some(new) = new {
                    self.link(new, level + 1, shape.entries(), shape);
                }
                if let Some(old) = old {
                    self.frames.unrefer(old);
                }
            }
        }
    }

    pub(crate) fn set_recorded(&mut self, frame: u64, pa: u64, value: u64) {
        if let Some(state) = self.frames.get_mut(frame)
            && let Some(word) = state.recorded.get_mut(((pa - frame) / 8) as usize)
        {
            *word = Some(value);
        }
    }

    /// Records words in ascending order, runs of them in one event.
    pub(crate) fn put_words(&mut self, cpu: usize, pc: Option<u64>, words: &[(u64, u64)]) {
        let mut rest = words;
        while let [(pa, first), ..] = *rest {
            let step = match rest {
                [_, (next, value), ..] if *next == pa + 8 => value.wrapping_sub(first),
                _ => 0,
            };
            let fits = |&(nth, &(at, value)): &(usize, &(u64, u64))| {
                at == pa + 8 * nth as u64 && value == first.wrapping_add(step.wrapping_mul(nth as u64))
            };
            let count = rest.iter().enumerate().take_while(fits).count().max(1);
            if count == 1 {
                self.put(Event::Store { cpu, pa, value: first, via: None }, pc);
            } else {
                self.put(Event::Fill { cpu, pa, count: count as u64, first, step }, pc);
            }
            rest = &rest[count..];
        }
    }
}

/// The levels of a set.
pub(crate) fn levels_of(levels: u8) -> impl Iterator<Item = i8> {
    (-1..=3).filter(move |level| levels >> (level + 1) & 1 == 1)
}

#[cfg(test)]
impl Recorder {
    /// A recorder of `cpus` CPUs, whose trace nobody reads.
    pub(crate) fn unread(cpus: usize) -> Self {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
        std::mem::forget(theirs);
        Self::new(Stream::new(ours), [PathBuf::new(), PathBuf::new()], |_, _| None, cpus)
    }

    /// A recorder whose trace has begun and goes to `to`. Its memory is the file, `len` bytes from
    /// `start`.
    pub(crate) fn with_memory(
        to: std::os::unix::net::UnixStream,
        cpus: usize,
        start: u64,
        len: u64,
    ) -> (Self, std::fs::File) {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("linmap-record-{}-{nth}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let files = ["memory", "layout"].map(|name| folder.join(name));
        let open = std::fs::File::options().write(true).create(true).truncate(true).open(&files[0]);
        let file = open.expect("a file");
        file.set_len(len).expect("its length");
        std::fs::write(&files[1], format!("{start:x} {len:x} 0")).expect("a file");
        let memory = Memory::map(&files[0], &files[1], |_, _| None).expect("memory");
        std::fs::remove_dir_all(&folder).expect("the folder");
        let mut recorder = Self::new(Stream::new(to), files, |_, _| None, cpus);
        recorder.started = Some(Started { memory });
        recorder.frames.set_granule(12);
        (recorder, file)
    }

    /// The same of `cpus` CPUs, whose trace nobody reads, with a page of zeros at 1 GiB.
    pub(crate) fn begun(cpus: usize) -> Self {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
        std::mem::forget(theirs);
        Self::with_memory(ours, cpus, 1 << 30, 0x1000).0
    }
}
