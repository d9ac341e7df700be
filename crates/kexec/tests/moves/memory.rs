//! A simulated memory, the plans made in it, and a strict interpreter of their lists.

use std::num::NonZeroUsize;

use linmap_kexec::{
    Direction, Extent, ExtentSource, IndEntry, LIST_FRAME_WORDS, ListFrame, MoveError, MoveList, MovePlan,
    Moves, Pending, Record, Records, Segments, WireError,
};
use linmap_vmsa::{Pa, PaRange};

pub const PAGE: u64 = 0x1000;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub fn pages(first: u64, count: u64) -> PaRange {
    PaRange::from_len(Pa(first * PAGE), count * PAGE).unwrap()
}

/// Extents are written in page numbers.
pub fn copy(source: u64, destination: u64, len: u64) -> Extent {
    Extent {
        source: ExtentSource::At(Pa(source * PAGE)),
        destination: Pa(destination * PAGE),
        len: len * PAGE,
    }
}

pub fn zeros(destination: u64, len: u64) -> Extent {
    Extent { source: ExtentSource::Zeros, destination: Pa(destination * PAGE), len: len * PAGE }
}

type Words = [u64; LIST_FRAME_WORDS];

/// Frames for lists, by page number. What is in them must not matter.
pub struct Frames(Vec<(u64, Box<Words>)>);

impl Frames {
    pub fn new(at: impl IntoIterator<Item = u64>) -> Self {
        Self(at.into_iter().map(|page| (page, Box::new([0x5a5a_5a5a_5a5a_5a5a; LIST_FRAME_WORDS]))).collect())
    }

    pub fn hand_out(&mut self) -> impl Iterator<Item = ListFrame<'_>> {
        self.0.iter_mut().map(|(page, words)| ListFrame { pa: Pa(*page * PAGE), words })
    }

    pub fn at(&self, pa: Pa) -> Option<&Words> {
        self.0.iter().find(|(page, _)| page * PAGE == pa.0).map(|(_, words)| &**words)
    }
}

/// What a plan is made of, besides its extents.
pub struct Setup<'a> {
    pub destinations: &'a [PaRange],
    pub bounce: Option<PaRange>,
    pub shares: usize,
    pub workspace: usize,
}

impl Setup<'_> {
    pub fn plan(&self, extents: &[Extent], frames: &mut Frames) -> Result<Moves, MoveError> {
        let mut workspace = vec![Pending::UNUSED; self.workspace];
        let segments = Segments::new(self.destinations).unwrap();
        let shares = NonZeroUsize::new(self.shares).unwrap();
        let mut plan = MovePlan::new(segments, &mut workspace, self.bounce, shares)?;
        let mut frames = frames.hand_out();
        for &extent in extents {
            plan.push(extent, &mut frames)?;
        }
        plan.finish(&mut frames)
    }

    /// Whether destinations, which may touch, hold all of `range`.
    fn in_destination(&self, range: PaRange) -> bool {
        let held = self.destinations.iter().map(|destination| destination.intersection(range).len());
        held.sum::<u64>() == range.len()
    }
}

/// Memory from page `first` on, each page scaled down to `grain` bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Memory {
    first: u64,
    grain: usize,
    bytes: Vec<u8>,
}

impl Memory {
    /// Every page has a content of its own, and none has zeros.
    pub fn new(first: u64, count: usize, grain: usize) -> Self {
        let mut random = Random(first);
        let bytes = match grain {
            4 => (0..count as u32)
                .flat_map(|page| (page + 1).wrapping_mul(0x9e37_79b1).to_le_bytes())
                .collect(),
            _ => (0..count * grain).map(|_| random.next() as u8 | 1).collect(),
        };
        Self { first, grain, bytes }
    }

    fn at(&self, pa: Pa) -> usize {
        assert!(pa.0.is_multiple_of(PAGE), "{pa} is within a page");
        let page = (pa.0 / PAGE).checked_sub(self.first).expect("memory is there");
        page as usize * self.grain
    }

    fn page(&self, pa: Pa) -> &[u8] {
        let at = self.at(pa);
        &self.bytes[at..at + self.grain]
    }

    fn copy_page(&mut self, source: Pa, destination: Pa) {
        let (source, destination) = (self.at(source), self.at(destination));
        self.bytes.copy_within(source..source + self.grain, destination);
    }

    fn clear_page(&mut self, destination: Pa) {
        let at = self.at(destination);
        self.bytes[at..at + self.grain].fill(0);
    }

    /// What memory should be after `extents`.
    pub fn after(&self, extents: &[Extent]) -> Self {
        let mut after = self.clone();
        for extent in extents {
            for offset in (0..extent.len).step_by(PAGE as usize) {
                let destination = Pa(extent.destination.0 + offset);
                match extent.source {
                    ExtentSource::Zeros => after.clear_page(destination),
                    ExtentSource::At(source) => {
                        let at = after.at(destination);
                        after.bytes[at..at + self.grain].copy_from_slice(self.page(Pa(source.0 + offset)));
                    }
                }
            }
        }
        after
    }

    /// Whether nothing differs outside the bounce buffer.
    pub fn is_like(&self, other: &Self, bounce: Option<PaRange>) -> bool {
        let outside = |at: usize| {
            let pa = Pa((self.first + (at / self.grain) as u64) * PAGE);
            !bounce.is_some_and(|bounce| bounce.contains(pa))
        };
        self.bytes.len() == other.bytes.len()
            && (0..self.bytes.len()).all(|at| self.bytes[at] == other.bytes[at] || !outside(at))
    }
}

/// A CPU on its way through a list, a page at a time.
struct Cpu<'l, 'm, F> {
    list: &'l MoveList,
    records: Records<'l, 'm, F>,
    current: Option<(Record, u64)>,
    extents: u64,
    bytes: u64,
    finished: bool,
}

enum Did {
    Page,
    Go,
    End,
}

/// What the CPUs did.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Done {
    pub copied: u64,
    pub cleared: u64,
    pub bounced: u64,
    pub ordered: u64,
}

struct Machine<'a> {
    memory: &'a mut Memory,
    setup: &'a Setup<'a>,
    written: Vec<u64>,
    done: Done,
}

impl Machine<'_> {
    /// Checks a record against what the plan may ask for.
    fn admit(&mut self, record: Record, gone: bool) {
        match record {
            Record::Go => {}
            Record::Clear { destination, len } => {
                assert!(gone, "{record} is in the ordered part");
                assert!(self.setup.in_destination(PaRange::from_len(destination, len).unwrap()), "{record}");
                self.done.cleared += len;
            }
            Record::Copy { source, destination, len, direction } => {
                let [from, to] = [source, destination].map(|start| PaRange::from_len(start, len).unwrap());
                if gone {
                    let touched =
                        self.setup.destinations.iter().any(|destination| destination.overlaps(from));
                    assert!(!touched, "{record} reads what another may write");
                    assert_eq!(direction, Direction::Upwards, "{record}");
                }
                self.done.ordered += u64::from(!gone);
                match self.setup.bounce {
                    Some(bounce) if !gone && bounce.covers(to) => self.done.bounced += len,
                    _ => {
                        assert!(self.setup.in_destination(to), "{record}");
                        self.done.copied += len;
                    }
                }
            }
        }
    }

    /// Does page `nth` of a record.
    fn page(&mut self, record: Record, nth: u64) {
        let behind = |pa: Pa, nth: u64| Pa(pa.0 + nth * PAGE);
        let destination = match record {
            Record::Go => return,
            Record::Clear { destination, .. } => {
                self.memory.clear_page(behind(destination, nth));
                behind(destination, nth)
            }
            Record::Copy { source, destination, len, direction } => {
                let nth = match direction {
                    Direction::Upwards => nth,
                    Direction::Downwards => len / PAGE - 1 - nth,
                };
                self.memory.copy_page(behind(source, nth), behind(destination, nth));
                behind(destination, nth)
            }
        };
        if !self.setup.bounce.is_some_and(|bounce| bounce.contains(destination)) {
            self.written.push(destination.0);
        }
    }
}

impl<'m, F> Cpu<'_, 'm, F>
where
    F: FnMut(Pa) -> Option<&'m Words>,
{
    fn step(&mut self, machine: &mut Machine<'_>, gone: bool) -> Did {
        let (record, nth) = match self.current.take() {
            Some(current) => current,
            None => match self.records.next() {
                None => {
                    self.finished = true;
                    assert_eq!((self.extents, self.bytes), (self.list.extents, self.list.bytes));
                    return Did::End;
                }
                Some(record) => {
                    let record = record.unwrap();
                    machine.admit(record, gone);
                    if record == Record::Go {
                        return Did::Go;
                    }
                    self.extents += 1;
                    self.bytes += record.len();
                    (record, 0)
                }
            },
        };
        machine.page(record, nth);
        let next = nth + 1;
        self.current = (next < record.len() / PAGE).then_some((record, next));
        Did::Page
    }
}

/// Runs the lists as the CPUs may, in an order that `random` says once all may start.
pub fn run(
    moves: &Moves,
    setup: &Setup<'_>,
    frames: &Frames,
    memory: &mut Memory,
    random: &mut Random,
) -> Done {
    let mut machine = Machine { memory, setup, written: Vec::new(), done: Done::default() };
    let frame_at = |pa| frames.at(pa);
    let mut cpus: Vec<_> = moves
        .lists
        .iter()
        .map(|list| {
            let records = list.records(frame_at);
            Cpu { list, records, current: None, extents: 0, bytes: 0, finished: false }
        })
        .collect();
    assert!(cpus.len() <= setup.shares);
    let mut gone = false;
    if let Some(boot) = cpus.first_mut() {
        loop {
            // With one CPU there is no mark: what follows the ordered part is told from it by
            // count.
            let free = setup.shares == 1 && boot.extents >= moves.ordered;
            match boot.step(&mut machine, free) {
                Did::Page => {}
                Did::Go => gone = true,
                Did::End => break,
            }
            if gone {
                break;
            }
        }
    }
    assert!(gone || cpus.len() < 2, "the other CPUs wait for ever");
    cpus.retain(|cpu| !cpu.finished);
    while !cpus.is_empty() {
        let which = random.below(cpus.len() as u64) as usize;
        match cpus[which].step(&mut machine, true) {
            Did::Page => {}
            Did::Go => panic!("a second start"),
            Did::End => drop(cpus.swap_remove(which)),
        }
    }
    let mut written = machine.written;
    let count = written.len();
    written.sort_unstable();
    written.dedup();
    assert_eq!(written.len(), count, "a destination is written twice");
    let frame_count: u64 = moves.lists.iter().map(|list| list.frames).sum();
    assert_eq!(moves.frames, frame_count);
    assert_eq!(moves.extents, moves.lists.iter().map(|list| list.extents).sum::<u64>());
    let done = machine.done;
    assert_eq!((done.copied, done.cleared), (moves.moved, moves.cleared));
    assert_eq!((done.bounced, done.ordered), (moves.bounced, moves.ordered));
    done
}

/// Linux's list of `moves`, written into `pages`: its head, and where in memory its pages of zeros
/// and of words are.
pub struct IndListed {
    pub head: u64,
    pub zeros: Pa,
    pub pages: Frames,
}

impl IndListed {
    /// The page of zeros is page number `first`, and as many pages of the list as are needed follow
    /// it.
    pub fn new(moves: &Moves, frames: &Frames, first: u64) -> Self {
        let zeros = Pa(first * PAGE);
        let count = moves.ind_pages(|pa| frames.at(pa)).unwrap();
        let mut pages = Frames::new(first + 1..=first + count);
        let list = moves.ind_list(zeros, pages.hand_out(), |pa| frames.at(pa));
        let entries: Vec<_> = list.collect::<Result<_, _>>().unwrap();
        assert_eq!(entries.last(), Some(&IndEntry::Done));
        let links = entries.iter().filter(|entry| matches!(entry, IndEntry::Indirection(_))).count();
        assert_eq!(links as u64, count, "every page is needed");
        Self { head: entries[0].word(), zeros, pages }
    }

    /// How many pages there are, with that of zeros.
    pub fn page_count(&self) -> usize {
        1 + self.pages.0.len()
    }

    /// Puts the page of zeros and, where pages of memory are whole pages, the list into memory.
    pub fn put(&self, memory: &mut Memory) {
        memory.clear_page(self.zeros);
        for (page, words) in self.pages.0.iter().filter(|_| memory.grain == PAGE as usize) {
            let at = memory.at(Pa(page * PAGE));
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            memory.bytes[at..at + memory.grain].copy_from_slice(&bytes);
        }
    }

    /// Carries the list out as `arm64_relocate_new_kernel` does: word by word from the head, each
    /// told by the flags in its low bits; all that is done is to copy pages. Where pages of memory
    /// are whole pages, the words are those that are in memory by then.
    pub fn carry_out(&self, memory: &mut Memory) {
        let (mut word, mut next_word, mut destination) = (self.head, None, None);
        loop {
            let pa = Pa(word & !0xfff);
            match word & 0xfff {
                1 => destination = Some(pa),
                2 => next_word = Some(pa.0),
                4 => {
                    assert_eq!(pa, Pa(0));
                    return;
                }
                8 => {
                    let to: &mut Pa = destination.as_mut().expect("a destination comes first");
                    assert!(*to != self.zeros && self.pages.at(*to).is_none(), "{to} is the list's own");
                    memory.copy_page(pa, *to);
                    to.0 += PAGE;
                }
                flags => panic!("flags {flags:#x}"),
            }
            let at = next_word.as_mut().expect("the head links or ends");
            let page = Pa(*at & !0xfff);
            let nth = (*at % PAGE / 8) as usize;
            word = if memory.grain == PAGE as usize {
                u64::from_le_bytes(*memory.page(page)[nth * 8..].first_chunk().unwrap())
            } else {
                u64::from_le(self.pages.at(page).expect("a page of the list")[nth])
            };
            *at += 8;
        }
    }
}

/// The records of all lists.
pub fn read(moves: &Moves, frames: &Frames) -> Result<Vec<Record>, WireError> {
    moves.records(|pa| frames.at(pa)).collect()
}
