//! What the other CPUs do during a run: they read, write, sum up and execute pages of the arena,
//! without pause.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::arch::cpu;
use crate::arch::per_cpu;
use crate::arch::probe::{self, Fault};
use crate::stress::arena::{Arena, PageState, TEXT_WORD, WORDS, WRITERS};
use crate::stress::random::Random;

/// An illegal state that a worker saw.
#[derive(Clone, Copy, Debug)]
pub struct Wrong {
    pub what: &'static str,
    pub address: u64,
    pub expected: u64,
    pub found: u64,
}

/// What a worker has done so far, and the first illegal state that it saw.
#[derive(Default)]
pub struct Tally {
    pub accesses: AtomicU64,
    pub faults: AtomicU64,
    pub passes: AtomicU64,
    is_wrong: AtomicBool,
    wrong: [AtomicU64; 4],
    what: AtomicU64,
}

const WHAT: [&str; 6] = [
    "a page that should fault was accessed",
    "a page faulted that should not",
    "a page faulted in another way than it should",
    "a word has another value",
    "a page that was not changed has another checksum",
    "none",
];

impl Tally {
    pub const fn new() -> Self {
        Self {
            accesses: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            passes: AtomicU64::new(0),
            is_wrong: AtomicBool::new(false),
            wrong: [const { AtomicU64::new(0) }; 4],
            what: AtomicU64::new(0),
        }
    }

    pub fn clear(&self) {
        for count in [&self.accesses, &self.faults, &self.passes] {
            count.store(0, Ordering::Relaxed);
        }
        self.is_wrong.store(false, Ordering::Release);
    }

    fn record_wrong(&self, what: usize, address: u64, expected: u64, found: u64) {
        if self.is_wrong.load(Ordering::Relaxed) {
            return;
        }
        for (place, value) in self.wrong.iter().zip([address, expected, found, 0]) {
            place.store(value, Ordering::Relaxed);
        }
        self.what.store(what as u64, Ordering::Relaxed);
        self.is_wrong.store(true, Ordering::Release);
    }

    /// The first illegal state.
    pub fn wrong(&self) -> Option<Wrong> {
        let value = |nth: usize| self.wrong[nth].load(Ordering::Relaxed);
        self.is_wrong.load(Ordering::Acquire).then(|| Wrong {
            what: WHAT[self.what.load(Ordering::Relaxed) as usize % WHAT.len()],
            address: value(0),
            expected: value(1),
            found: value(2),
        })
    }
}

/// A kind of access.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// Checks that `access` to a page in `state` may have this result.
///
/// # Errors
/// The index in [`WHAT`] of what is wrong.
pub fn is_right(state: PageState, access: Access, result: Result<(), Fault>) -> Result<(), usize> {
    let allowed = match access {
        Access::Read => true,
        Access::Write => state.writable(),
        Access::Execute => state.executable(),
    };
    match result {
        Ok(()) if !state.valid() || !allowed => Err(0),
        Ok(()) => Ok(()),
        Err(_) if state.valid() && allowed => Err(1),
        Err(fault) if !state.valid() && !fault.is_translation() => Err(2),
        Err(fault) if state.valid() && !fault.is_permission() => Err(2),
        Err(_) => Ok(()),
    }
}

/// Works until `stop`. Workers are numbered from 0.
pub fn work(arena: &Arena, tally: &Tally, stop: &AtomicBool, worker: usize) {
    let mut random = Random(0x5eed_0000 + per_cpu::this_cpu() as u64);
    while !stop.load(Ordering::Relaxed) && tally.wrong().is_none() {
        let page = arena.some_page(&mut random);
        match random.below(8) {
            0..=2 if worker < WRITERS => write(arena, tally, worker, page),
            0..=4 => read(arena, tally, worker, page, random.below(WORDS)),
            5 => execute(arena, tally, page),
            _ => checksum(arena, tally, worker, page),
        }
        tally.passes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs one access and judges it. Returns whether it succeeded.
fn judge_run(
    arena: &Arena,
    tally: &Tally,
    page: u64,
    word: u64,
    access: Access,
    run: impl FnOnce() -> Result<(), Fault>,
) -> bool {
    let before = arena.state(page);
    let result = run();
    judge(arena, tally, page, word, access, before, result);
    result.is_ok()
}

/// Judges an access to a page that was in state `before`, unless the state has changed during the
/// access.
fn judge(
    arena: &Arena,
    tally: &Tally,
    page: u64,
    word: u64,
    access: Access,
    before: PageState,
    result: Result<(), Fault>,
) {
    // The access and its table walk complete before the state is read again.
    cpu::barrier();
    let after = arena.state(page);
    tally.accesses.fetch_add(1, Ordering::Relaxed);
    if result.is_err() {
        tally.faults.fetch_add(1, Ordering::Relaxed);
    }
    if before == after
        && !before.is_changing()
        && let Err(what) = is_right(before, access, result)
    {
        let found = result.err().map_or(0, |fault| fault.esr);
        tally.record_wrong(what, arena.word(page, word).0, before.bits(), found);
    }
}

/// Whether the word is another writer's, which may change at any time.
fn is_foreign(worker: usize, word: u64) -> bool {
    word < WRITERS as u64 && word != worker as u64
}

fn read(arena: &Arena, tally: &Tally, worker: usize, page: u64, word: u64) {
    let mut value = 0;
    let done = judge_run(arena, tally, page, word, Access::Read, || {
        value = probe::load(arena.word(page, word))?;
        Ok(())
    });
    let expected = arena.expected(page, word);
    if done && !is_foreign(worker, word) && value != expected {
        tally.record_wrong(3, arena.word(page, word).0, expected, value);
    }
}

fn write(arena: &Arena, tally: &Tally, worker: usize, page: u64) {
    let word = worker as u64;
    let value = arena.expected(page, word).wrapping_add(1);
    // SAFETY: the word is this worker's own, and only probes reach it.
    let done = judge_run(arena, tally, page, word, Access::Write, || unsafe {
        probe::store(arena.word(page, word), value)
    });
    if done {
        arena.written(page, worker);
    }
}

fn execute(arena: &Arena, tally: &Tally, page: u64) {
    // SAFETY: the word is two RETs, which nothing writes to.
    judge_run(arena, tally, page, TEXT_WORD, Access::Execute, || unsafe {
        probe::execute(arena.word(page, TEXT_WORD))
    });
}

/// Sums up all words that no other worker writes to.
fn checksum(arena: &Arena, tally: &Tally, worker: usize, page: u64) {
    let before = arena.state(page);
    let (mut sum, mut expected) = (0u64, 0u64);
    for word in (0..WORDS).filter(|word| !is_foreign(worker, *word)) {
        let value = match probe::load(arena.word(page, word)) {
            Ok(value) => value,
            Err(fault) => {
                judge(arena, tally, page, word, Access::Read, before, Err(fault));
                return;
            }
        };
        sum = sum.rotate_left(1) ^ value;
        expected = expected.rotate_left(1) ^ arena.expected(page, word);
    }
    tally.accesses.fetch_add(WORDS, Ordering::Relaxed);
    if sum != expected {
        tally.record_wrong(4, arena.word(page, 0).0, expected, sum);
    }
}
