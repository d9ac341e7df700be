//! The editor: again and again it write-protects the guest's RAM, splits it to pages, collects
//! which pages the guest writes to, and folds it back, while the guest runs.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use linmap_vmsa::{Pa, PaRange};

use crate::cpu;
use crate::lock::Lock;
use crate::machine::{GUEST_RAM, IDLE, end, say};
use crate::pages::{self, PAGE, PAGES, PageSet};
use crate::stage2::STAGE2;

/// One page of so many is compared in a round, others in the next.
const COMPARED: usize = 8;
/// How often dirty pages are collected in a round.
const COLLECTIONS: usize = 2;
/// What is write-protected and folded in one go, and what is split and collected in one go.
const RUN: u64 = 32 << 20;
const BLOCK: u64 = 2 << 20;

/// Whether the guest has asked to be switched off.
static IS_DONE: AtomicBool = AtomicBool::new(false);

/// Ends this guest CPU. The editor ends the machine after its round.
pub fn guest_is_done() -> ! {
    IS_DONE.store(true, Relaxed);
    loop {
        core::hint::spin_loop();
    }
}

/// What the editor finds.
struct Log {
    /// The pages that were written to between the last two collections.
    dirty: PageSet,
    /// The pages that differ from the snapshot.
    changed: PageSet,
    /// The snapshot: a hash of each page that is compared.
    hashes: [u64; PAGES.div_ceil(COMPARED)],
    rounds: usize,
    /// Over all rounds.
    dirty_pages: usize,
    changed_pages: usize,
}

static LOG: Lock<Log> = Lock::new(Log {
    dirty: PageSet::EMPTY,
    changed: PageSet::EMPTY,
    hashes: [0; PAGES.div_ceil(COMPARED)],
    rounds: 0,
    dirty_pages: 0,
    changed_pages: 0,
});

/// The editor's CPU.
pub extern "C" fn edit() -> ! {
    // SAFETY: this CPU never enters the guest.
    unsafe { STAGE2.lock().enable() };
    let mut log = LOG.lock();
    let tables = STAGE2.lock().tables();
    while !IS_DONE.load(Relaxed) {
        let start = cpu::now();
        log.round();
        let now = STAGE2.lock().tables();
        if now != tables {
            end(Some(format_args!("{now} tables after a fold, and {tables} before")));
        }
        // As long again nothing is write-protected.
        let (duration, rest) = (cpu::now() - start, cpu::now());
        while cpu::now() - rest < duration && !IS_DONE.load(Relaxed) {
            core::hint::spin_loop();
        }
    }
    log.report();
    end(None)
}

/// The guest's RAM in pieces of `len` bytes.
fn pieces(len: u64) -> impl Iterator<Item = PaRange> {
    let starts = (GUEST_RAM.start.0..GUEST_RAM.end.0).step_by(len as usize);
    starts.map(move |start| PaRange { start: Pa(start), end: Pa(start + len) })
}

impl Log {
    fn round(&mut self) {
        pieces(RUN).for_each(|run| STAGE2.lock().write_protect(run));
        pieces(BLOCK).for_each(|block| STAGE2.lock().split(block));
        self.dirty.fill();
        for _ in 0..COLLECTIONS {
            self.take_snapshot();
            self.compare();
            self.dirty.clear(GUEST_RAM);
            pieces(BLOCK).for_each(|block| STAGE2.lock().collect(block, &mut self.dirty));
            self.dirty_pages += self.dirty.count(GUEST_RAM);
            self.check();
        }
        pieces(RUN).for_each(|run| STAGE2.lock().restore(run));
        self.rounds += 1;
    }

    /// The pages that are compared in this round, and where their hashes are.
    fn compared(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        (self.rounds % COMPARED..PAGES).step_by(COMPARED).enumerate()
    }

    /// Takes a snapshot, after pages were write-protected. Those that were so before and are still
    /// have not changed since the last one.
    fn take_snapshot(&mut self) {
        for (nth, page) in self.compared() {
            if self.dirty.contains(page) {
                self.hashes[nth] = hash(page);
            }
        }
    }

    /// Notes which pages differ from the snapshot, before the dirty ones are collected.
    fn compare(&mut self) {
        self.changed.clear(GUEST_RAM);
        for (nth, page) in self.compared() {
            if self.hashes[nth] != hash(page) {
                self.changed.insert(page);
            }
        }
        self.changed_pages += self.changed.count(GUEST_RAM);
    }

    /// Every page that changed is dirty, and no page is that the guest leaves alone.
    fn check(&self) {
        let is_missed = |page: &usize| self.changed.contains(*page) && !self.dirty.contains(*page);
        if let Some(page) = (0..PAGES).find(is_missed) {
            let page = pages::page(page);
            end(Some(format_args!("{page} changed and is not among the dirty pages")));
        }
        let idle = self.dirty.count(IDLE);
        if idle > 0 {
            end(Some(format_args!("{idle} pages of {IDLE} are dirty, which the guest leaves alone")));
        }
    }

    fn report(&self) {
        let counts = STAGE2.lock().counts();
        say!(
            "rounds={} edits={} logged={} marked={} retried={} dirty={} changed={}",
            self.rounds,
            counts.edits,
            counts.logged,
            counts.marked,
            counts.retried,
            self.dirty_pages,
            self.changed_pages
        );
    }
}

/// A hash of what the page holds, which the guest may be writing to. A change of one word always
/// shows: each step is a bijection.
fn hash(page: usize) -> u64 {
    let start = pages::page(page).start.0 as *const [AtomicU64; 8];
    (0..PAGE as usize / 64).fold(0, |hash: u64, nth| {
        // SAFETY: RAM is mapped where it is.
        let words = unsafe { &*start.add(nth) };
        words.iter().fold(hash, |hash, word| (hash ^ word.load(Relaxed)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    })
}
