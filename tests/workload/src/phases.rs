//! What is done to the tables.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::area::{Area, ZERO};
use crate::system::{self, Access, Advice, Child, Pages, Result};

/// Something to do with pages of this size.
#[derive(Debug, Clone, Copy)]
pub struct Phase(fn(usize) -> Result<()>);

/// The pages of an area.
const COUNT: usize = 64;
/// What is written first.
const SEED: u64 = 0x6c69_6e6d_6170_0000;

impl Phase {
    /// All of them, by their names.
    pub const ALL: [(&'static str, Self); 9] = [
        ("pages", Self(pages)),
        ("folios", Self(folios)),
        ("huge", Self(huge)),
        ("reserved", Self(reserved)),
        ("shared", Self(shared)),
        ("sharers", Self(sharers)),
        ("processes", Self(processes)),
        ("secret", Self(secret)),
        ("filter", Self(filter)),
    ];

    /// The phase of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(of, _)| *of == name).map(|(_, phase)| *phase)
    }

    /// Does it once.
    pub fn run(self, page: usize) -> Result<()> {
        (self.0)(page)
    }
}

/// The pages of a contiguous run (Arm ARM D8.7.1): 64K of 4K, 2M of the other granules.
const fn run_of(page: usize) -> usize {
    match page {
        0x1000 => 16,
        0x4000 => 128,
        _ => 32,
    }
}

/// Pages of their own size.
fn pages(page: usize) -> Result<()> {
    let area = Area::new(COUNT, page, page, Pages::Private)?;
    change(area, 1)
}

/// Folios that one contiguous run maps each. Changes of one page unfold it.
fn folios(page: usize) -> Result<()> {
    let run = run_of(page);
    let area = Area::new(12 * run, page, run * page, Pages::Private)?;
    change(area, run)
}

/// Blocks, or what the kernel takes for pages of that size.
fn huge(page: usize) -> Result<()> {
    let block = page * (page / 8);
    let count = 2 * (page / 8);
    let area = Area::new(count, page, block, Pages::Private)?;
    area.advise(0..count, Advice::Huge)?;
    area.fill(0..count, SEED);
    // In the middle of the first block, and at the end of the second.
    area.protect(count / 4..count / 4 + 1, Access::Read)?;
    area.check(0..count, SEED)?;
    area.protect(count / 4..count / 4 + 1, Access::Write)?;
    area.fork(count / 4..count / 4 + 8, SEED)?;
    area.advise(count - 1..count, Advice::DontNeed)?;
    area.check(count - 1..count, ZERO)?;
    area.check(0..count - 1, SEED)?;
    let other = Area::new(count, page, block, Pages::Private)?;
    other.advise(0..count, Advice::Huge)?;
    other.fill(0..count, !SEED);
    let area = area.move_to(other)?;
    area.check(0..count - 1, SEED)
}

/// What is done to pages of either size, of which `run` are one.
fn change(area: Area, run: usize) -> Result<()> {
    let (count, page) = (area.count(), area.page());
    area.fill(0..count, SEED);
    area.check(0..count, SEED)?;
    // One page of a run, and both sides of a boundary between two.
    let one = 3 * run / 4;
    area.protect(one..one + 1, Access::Read)?;
    area.protect(run - 1..run + 1, Access::Read)?;
    area.check(0..count, SEED)?;
    area.protect(0..2 * run, Access::Write)?;
    area.fill(0..2 * run, SEED);
    // Whole runs.
    area.protect(2 * run..4 * run, Access::None)?;
    area.protect(2 * run..4 * run, Access::Read)?;
    area.check(2 * run..4 * run, SEED)?;
    area.protect(2 * run..3 * run, Access::Execute)?;
    area.check(2 * run..4 * run, SEED)?;
    area.protect(2 * run..4 * run, Access::Write)?;
    area.fork(0..count, SEED)?;
    // The access flag.
    area.advise(0..count, Advice::Cold)?;
    area.check(0..count, SEED)?;
    area.advise(4 * run..5 * run, Advice::Free)?;
    area.fill(4 * run..5 * run, SEED);
    area.check(4 * run..5 * run, SEED)?;
    area.advise(5 * run + 1..5 * run + 2, Advice::DontNeed)?;
    area.check(5 * run + 1..5 * run + 2, ZERO)?;
    area.advise(6 * run..8 * run, Advice::DontNeed)?;
    area.check(6 * run..8 * run, ZERO)?;
    area.fill(4 * run..8 * run, SEED);
    // Holes, and what is left moves.
    area.unmap(9 * run..9 * run + 1)?;
    area.unmap(10 * run..11 * run)?;
    area.check(0..9 * run, SEED)?;
    area.check(9 * run + 1..10 * run, SEED)?;
    let first = Area::new(8 * run, page, run * page, Pages::Private)?;
    first.fill(0..8 * run, SEED);
    let second = Area::new(8 * run, page, run * page, Pages::Private)?;
    second.fill(0..8 * run, !SEED);
    let second = first.move_to(second)?;
    second.check(0..8 * run, SEED)
}

/// hugetlb's pages of the size of a contiguous run.
fn reserved(page: usize) -> Result<()> {
    let run = run_of(page);
    let bytes = run * page;
    let area = Area::new(3 * run, page, bytes, Pages::Reserved(bytes.trailing_zeros()))?;
    area.fill(0..2 * run, SEED);
    area.protect(run..2 * run, Access::Read)?;
    area.check(0..2 * run, SEED)?;
    area.protect(run..2 * run, Access::Write)?;
    area.fill(run..2 * run, SEED);
    area.check(0..2 * run, SEED)?;
    area.unmap(run..2 * run)?;
    area.check(0..run, SEED)
}

/// Pages of a file that two mappings have, and a child.
fn shared(page: usize) -> Result<()> {
    let count = COUNT;
    let file = system::memory_file(count * page)?;
    let [one, other] = [Area::of(file, count, page)?, Area::of(file, count, page)?];
    one.fill(0..count, SEED);
    other.check(0..count, SEED)?;
    one.sync()?;
    other.fill(0..count / 2, !SEED);
    one.check(0..count / 2, !SEED)?;
    let child = Child::copy(|| {
        one.check(count / 2..count, SEED)?;
        one.fill(0..count, SEED);
        Ok(())
    })?;
    child.wait()?;
    other.check(0..count, SEED)?;
    one.advise(0..count, Advice::PageOut)?;
    one.check(0..count, SEED)?;
    let all = Area::new(count, page, page, Pages::Shared)?;
    all.fill(0..count, SEED);
    Child::copy(|| all.check(0..count, SEED).map(|()| all.fill(0..count, !SEED)))?.wait()?;
    all.check(0..count, !SEED)?;
    system::close(file)
}

/// What the sharers do: 0 goes on, any other value ends them.
static DONE: AtomicUsize = AtomicUsize::new(0);
/// How many of them run.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// The bytes of a sharer's stack.
const STACK: usize = 32 << 10;

/// What a sharer needs to know.
struct Sharer<'a> {
    cpu: usize,
    area: &'a Area,
}

/// Reads the pages of an area, on a CPU of its own.
extern "C" fn read_on(argument: usize) {
    // SAFETY: `sharers` passes a `Sharer` that outlives this.
    let sharer = unsafe { &*(argument as *const Sharer<'_>) };
    system::go_to_cpu(sharer.cpu);
    RUNNING.fetch_add(1, Ordering::SeqCst);
    while DONE.load(Ordering::SeqCst) == 0 {
        if sharer.area.check(0..sharer.area.count(), SEED).is_err() {
            system::exit(Err(system::Refused { what: "a sharer's page", errno: 0 }));
        }
        system::give_way();
    }
}

/// Three CPUs read what a fourth changes.
fn sharers(page: usize) -> Result<()> {
    let run = run_of(page);
    let count = 2 * run;
    let area = Area::new(count, page, run * page, Pages::Private)?;
    area.fill(0..count, SEED);
    let stack = STACK.div_ceil(page);
    let stacks = Area::new(3 * stack, page, page, Pages::Private)?;
    let sharers = [1, 2, 3].map(|cpu| Sharer { cpu, area: &area });
    DONE.store(0, Ordering::SeqCst);
    RUNNING.store(0, Ordering::SeqCst);
    system::go_to_cpu(0);
    let start = |sharer: &Sharer<'_>| {
        let end = stacks.end() - (sharer.cpu - 1) * stack * page;
        // SAFETY: a stack each, and all read the area alone.
        unsafe { Child::sharing(end, read_on, &raw const *sharer as usize) }
    };
    let [one, two, three] = &sharers;
    let running = [start(one)?, start(two)?, start(three)?];
    while RUNNING.load(Ordering::SeqCst) < 3 {
        system::give_way();
    }
    for _ in 0..4 {
        area.protect(1..2, Access::Read)?;
        area.protect(0..count, Access::Read)?;
        area.protect(0..count, Access::Write)?;
        area.fill(0..count, SEED);
        area.advise(0..count, Advice::Cold)?;
        let scratch = Area::new(count, page, run * page, Pages::Private)?;
        scratch.fill(0..count, SEED);
        system::give_way();
    }
    DONE.store(1, Ordering::SeqCst);
    for child in running {
        child.wait()?;
    }
    Ok(())
}

/// More processes than there are ASIDs of 8 bits, a few at a time.
const PROCESSES: usize = 300;

/// Processes that come and go.
fn processes(page: usize) -> Result<()> {
    let count = 4;
    let area = Area::new(count, page, page, Pages::Private)?;
    for nth in (0..PROCESSES).step_by(4) {
        let seed = SEED ^ (nth as u64) << 8;
        area.fill(0..count, seed);
        let start = |_| {
            Child::copy(|| {
                area.check(0..count, seed)?;
                area.fill(0..count, !seed);
                system::give_way();
                area.check(0..count, !seed)
            })
        };
        let [one, two, three, four] = [0, 1, 2, 3].map(start);
        for child in [one?, two?, three?, four?] {
            child.wait()?;
        }
        area.check(0..count, seed)?;
    }
    Ok(())
}

/// Pages that the kernel takes out of its linear map, and puts back.
fn secret(page: usize) -> Result<()> {
    let count = 16;
    let file = system::secret_file(count * page)?;
    let area = Area::of(file, count, page)?;
    area.fill(0..count, SEED);
    area.check(0..count, SEED)?;
    system::close(file)
}

/// A filter that the kernel compiles: loads of the packet's length, and the return of all of it.
fn filter(_: usize) -> Result<()> {
    // struct sock_filter has the code in the lowest 16 bits: BPF_LD | BPF_W | BPF_LEN, and at the
    // end BPF_RET | BPF_A.
    let mut program = [0x80_u64; 64];
    program[63] = 0x16;
    let sockets = [system::filtered_socket(&program)?, system::filtered_socket(&program[60..])?];
    sockets.into_iter().try_for_each(system::close)
}
