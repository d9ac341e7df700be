//! A stress run: random changes of the linear map on this CPU, while all others use it and judge what they see.

use core::fmt;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use linmap::{ChangeError, Changed, Layout, Protection};
use linmap_live::{Global, PlanError};
use linmap_memblock::AllocError;
use linmap_table::{LeafIter, OutOfFrames};
use linmap_vmsa::{Level, PaRange};
use thiserror::Error;

use super::arena::{Arena, KEPT_WORD, PAGE, PageState, TEXT_WORD};
use super::random::{Random, mix};
use super::worker::{Access, Tally, Wrong, is_right};
use crate::arch::percpu;
use crate::arch::percpu::CpuSet;
use crate::arch::probe;
use crate::memory::layout::MAX_CPUS;
use crate::memory::machine::Machine;
use crate::report;
use crate::smp::cross_call;
use crate::smp::cross_call::{NotIdle, PATIENCE};

/// Why a stress run ended early or badly.
#[derive(Clone, Copy, Debug, Error)]
pub enum StressError {
    /// No memory to work on.
    #[error("no memory for the run: {0}")]
    Memory(#[from] AllocError),
    /// A CPU can't work.
    #[error(transparent)]
    NotIdle(#[from] NotIdle),
    /// A call should have been possible.
    #[error("call {call}, {what}, failed: {error}")]
    Refused {
        /// Its number.
        call: u64,
        /// What it was.
        what: Call,
        /// Why it was refused.
        error: ChangeError,
    },
    /// A call should have been refused.
    #[error("call {call}, {what}, made memory writable and executable")]
    Allowed {
        /// Its number.
        call: u64,
        /// What it was.
        what: Call,
    },
    /// Another CPU saw what must not be.
    #[error(
        "CPU {cpu}, after call {call}: {what}, at {address:#x}, expected {expected:#x}, found {found:#x}"
    )]
    Wrong {
        /// The CPU.
        cpu: usize,
        /// The last call.
        call: u64,
        /// What it was.
        what: &'static str,
        /// Where.
        address: u64,
        /// The page's state, the word or the sum that should be there.
        expected: u64,
        /// The syndrome, the word or the sum found.
        found: u64,
    },
    /// A CPU stopped answering.
    #[error("CPU {cpu} does not answer after call {call}")]
    Silent {
        /// The CPU.
        cpu: usize,
        /// The last call.
        call: u64,
    },
    /// Undone and folded, the map is not what it was.
    #[error("the map was {before}, and is {after} after undoing all")]
    Differs {
        /// Before the run.
        before: Footprint,
        /// After it.
        after: Footprint,
    },
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    kind: Kind,
    first: u64,
    count: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Protect(Protection),
    Text,
    Split(Level),
    Fold,
    Global(Global),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Protect(protection) => write!(f, "protect {}", protection.name())?,
            Kind::Text => f.write_str("text")?,
            Kind::Split(level) => write!(f, "split to level {level}")?,
            Kind::Fold => f.write_str("fold")?,
            Kind::Global(Global::Global) => f.write_str("ng off")?,
            Kind::Global(Global::NonGlobal) => f.write_str("ng on")?,
        }
        write!(f, " of pages {:#x} to {:#x}", self.first, self.first + self.count)
    }
}

impl Call {
    fn random(random: &mut Random, pages: u64) -> Self {
        let kind = match random.below(256) {
            0..=49 => Kind::Protect(Protection::ReadOnly),
            50..=109 => Kind::Protect(Protection::ReadWrite),
            110..=134 => Kind::Protect(Protection::Invalid),
            135..=169 => Kind::Protect(Protection::Valid),
            170..=179 => Kind::Text,
            180..=199 => Kind::Protect(Protection::NoExecute),
            200..=219 => Kind::Split(Level::L3),
            220..=223 => Kind::Split(Level::L2),
            224..=254 => Kind::Fold,
            _ => Kind::Global(if random.below(2) == 0 { Global::Global } else { Global::NonGlobal }),
        };
        // Single pages, contiguous runs and blocks of every size, and odd pieces of them.
        let size = match random.below(16) {
            0..=5 => 1,
            6..=8 => 1 + random.below(15),
            9..=10 => 16,
            11 => 1 + random.below(511),
            12..=13 => 512,
            14 => 512 * (1 + random.below(31)),
            _ => 512 * 16,
        };
        let count = size.min(pages);
        let align = if random.below(4) == 0 { 1 } else { 1 << count.ilog2() };
        let first = random.below(pages - count + 1) / align * align;
        Self { kind, first, count }
    }

    /// What a page becomes.
    fn makes(self, state: PageState) -> PageState {
        match self.kind {
            Kind::Protect(Protection::ReadOnly) => state.with_writable(false),
            Kind::Protect(Protection::ReadWrite) => state.with_writable(true),
            Kind::Protect(Protection::NoExecute) => state.with_executable(false),
            Kind::Protect(Protection::Invalid) => state.with_valid(false),
            Kind::Protect(Protection::Valid) => state.with_valid(true),
            Kind::Text => state.with_writable(false).with_executable(true),
            Kind::Split(_) | Kind::Fold | Kind::Global(_) => state,
        }
    }

    fn changes_pages(self) -> bool {
        matches!(self.kind, Kind::Protect(_) | Kind::Text)
    }

    fn run(self, machine: &mut Machine<'_>, range: PaRange) -> Result<Changed, ChangeError> {
        let (map, mut editor, steps) = machine.live.parts(machine.memblock);
        let editor = &mut editor;
        match self.kind {
            Kind::Protect(protection) => map.protect(editor, steps, range, protection),
            Kind::Text => map.make_text(editor, steps, range),
            Kind::Split(to) => map.split(editor, steps, range, to),
            Kind::Fold => map.fold(editor, steps, range),
            Kind::Global(global) => map.set_global(editor, steps, global),
        }
    }
}

/// What the linear map is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// Leaf entries of the arena.
    entries: u64,
    /// Of them and their levels and attributes.
    digest: u64,
    /// Tables of the kernel's half.
    tables: u64,
    /// Bytes reserved in memblock, but for the pool and the run's own.
    reserved: u64,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, digest, tables, reserved } = self;
        write!(f, "{entries} leaf entries ({digest:#x}), {tables} tables, {reserved:#x} bytes reserved")
    }
}

impl Footprint {
    fn of(machine: &Machine<'_>, arena: &Arena) -> Self {
        let geometry = machine.geometry();
        let layout = machine.layout;
        let (first, end) = (layout.linear(arena.range.start), layout.linear(arena.range.end));
        let mut window = machine.tables();
        let level = geometry.start_level();
        let mut leaves =
            LeafIter::new(geometry, machine.image.swapper(), level, Layout::base(geometry), &mut window);
        let (mut entries, mut digest) = (0, 0);
        for leaf in leaves.by_ref() {
            if first <= leaf.va && leaf.va < end {
                entries += 1;
                digest = mix(digest ^ leaf.descriptor.0 ^ leaf.level.above_pages() as u64);
            }
        }
        let tables = leaves.tables();
        let reserved: u64 = machine.memblock.reserved().iter().map(|range| range.len()).sum();
        let pool = machine.live.pool.len() as u64 * PAGE;
        Self { entries, digest, tables, reserved: reserved - pool - arena.reserved() }
    }
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Calls made.
    pub calls: u64,
    /// Calls refused because memory would have become writable and executable.
    pub refused: u64,
    /// Calls whose plan would have been too long.
    pub too_long: u64,
    /// CPUs that worked meanwhile.
    pub workers: u64,
    /// Their accesses.
    pub accesses: u64,
    /// How many of them faulted, as they should.
    pub faults: u64,
    /// Addresses probed on all CPUs at once, right after a call.
    pub probed: u64,
    /// What the calls did together.
    pub changed: Changed,
}

static ARENA: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());
static STOP: AtomicBool = AtomicBool::new(false);
static TALLIES: [Tally; MAX_CPUS] = [const { Tally::new() }; MAX_CPUS];

/// Runs on the other CPUs: `worker` counts them from 0.
fn work(worker: usize) {
    // SAFETY: set before any worker is started, in a place of its own that no run writes to while a CPU works.
    let arena = unsafe { &*ARENA.load(Ordering::Acquire) };
    if let Some(tally) = TALLIES.get(percpu::this_cpu()) {
        super::worker::work(arena, tally, &STOP, worker);
    }
}

/// The CPU that found a page other than it must be, plus 1.
static FOUND_WRONG: AtomicUsize = AtomicUsize::new(0);

/// Runs on every other CPU at once: uses `page` in all ways, so that its TLB has what it may have, and judges.
fn probe_page(page: usize) {
    let page = page as u64;
    // SAFETY: as in `work`.
    let arena = unsafe { &*ARENA.load(Ordering::Acquire) };
    let state = arena.state(page);
    let place = arena.word(page, KEPT_WORD);
    let expected = arena.expected(page, KEPT_WORD);
    let loaded = probe::load(place);
    // SAFETY: the word behind those of the workers, which this leaves as it is.
    let stored = unsafe { probe::store(place, expected) };
    // SAFETY: two RETs.
    let executed = unsafe { probe::execute(arena.word(page, TEXT_WORD)) };
    let right = loaded.is_ok_and(|value| value == expected) == loaded.is_ok()
        && is_right(state, Access::Read, loaded.map(|_| ())).is_ok()
        && is_right(state, Access::Write, stored).is_ok()
        && is_right(state, Access::Execute, executed).is_ok();
    if !right {
        FOUND_WRONG.store(1 + percpu::this_cpu(), Ordering::Release);
    }
}

/// The arena of the run. It stays where it is when a run ends badly: a CPU that does not answer may still look at it.
static mut PLACE: MaybeUninit<Arena> = MaybeUninit::uninit();

/// Makes `calls` random calls with all other CPUs at work, undoes them, and compares.
pub fn run(machine: &mut Machine<'_>, calls: u64, seed: u64) -> Result<Summary, StressError> {
    let others = percpu::others();
    if let Some(busy) = others.iter().find(|&cpu| !cross_call::finished(cpu)) {
        return Err(NotIdle::Busy(busy).into());
    }
    let taken = Arena::take(machine.memblock, machine.layout)?;
    let place = &raw mut PLACE;
    // SAFETY: this runs on the boot CPU alone, and no other CPU has work or a call left of an earlier run.
    let arena: &'static Arena = unsafe { (*place).write(taken) };
    let result = run_in(machine, arena, others, calls, seed);
    // After a failure the memory stays reserved, as it is.
    if result.is_ok() {
        arena.release(machine.memblock);
    }
    result
}

fn run_in(
    machine: &mut Machine<'_>,
    arena: &'static Arena,
    others: CpuSet,
    calls: u64,
    seed: u64,
) -> Result<Summary, StressError> {
    let mut summary = Summary::default();
    // What earlier changes left small is large before the run as it will be after it.
    let all_around = Call { kind: Kind::Fold, first: 0, count: arena.pages() };
    let around = around(machine, arena);
    let fold = |machine: &mut Machine<'_>| {
        let folded = all_around.run(machine, around);
        folded.map_err(|error| StressError::Refused { call: 0, what: all_around, error })
    };
    fold(machine)?;
    let before = Footprint::of(machine, arena);
    let global = machine.live.map.global();
    report!("stress=begin calls={calls} seed={seed:#x} arena={} pages={}", arena.range, arena.pages());
    ARENA.store(ptr::from_ref(arena).cast_mut(), Ordering::Release);
    STOP.store(false, Ordering::Release);
    let mut result = Ok(());
    for (worker, cpu) in others.iter().enumerate() {
        TALLIES[cpu].clear();
        result = result.and_then(|()| Ok(cross_call::start_work(cpu, work, worker)?));
        summary.workers += 1;
    }
    result = result.and_then(|()| change(machine, arena, calls, Random(seed), &mut summary));
    STOP.store(true, Ordering::Release);
    for cpu in others.iter() {
        if !percpu::wait_until(6 * PATIENCE, || cross_call::finished(cpu)) {
            return Err(StressError::Silent { cpu, call: summary.calls });
        }
        let tally = &TALLIES[cpu];
        summary.accesses += tally.accesses.load(Ordering::Relaxed);
        summary.faults += tally.faults.load(Ordering::Relaxed);
        result = result.and_then(|()| wrong(cpu, summary.calls));
    }
    result?;
    undo(machine, arena, global, &mut summary)?;
    fold(machine)?;
    let after = Footprint::of(machine, arena);
    if before != after {
        return Err(StressError::Differs { before, after });
    }
    if let Some((address, expected, found)) = arena.first_wrong() {
        let (address, call, what) = (address.0, summary.calls, "a word at the end");
        return Err(StressError::Wrong { cpu: 0, call, what, address, expected, found });
    }
    Ok(summary)
}

/// The memory around the arena that the largest block or run could join with it.
fn around(machine: &Machine<'_>, arena: &Arena) -> PaRange {
    let whole = arena.range.align_outward(1 << 30).unwrap_or(arena.range);
    machine
        .mapped()
        .find(|mapped| mapped.covers(arena.range))
        .map_or(arena.range, |mapped| mapped.intersection(whole))
}

fn wrong(cpu: usize, call: u64) -> Result<(), StressError> {
    match TALLIES.get(cpu).and_then(Tally::wrong) {
        None => Ok(()),
        Some(Wrong { what, address, expected, found }) => {
            Err(StressError::Wrong { cpu, call, what, address, expected, found })
        }
    }
}

fn change(
    machine: &mut Machine<'_>,
    arena: &Arena,
    calls: u64,
    mut random: Random,
    summary: &mut Summary,
) -> Result<(), StressError> {
    let others = percpu::others();
    while summary.calls < calls {
        let call = Call::random(&mut random, arena.pages());
        let Call { first, count, .. } = call;
        let becomes_both = matches!(call.kind, Kind::Protect(Protection::ReadWrite))
            && arena.any(first, count, PageState::executable);
        // The others use what is about to change.
        arena.set_focus(first, count);
        let probed = summary.calls.is_multiple_of(8).then(|| first + random.below(count));
        if let Some(page) = probed {
            probe_everywhere(arena, page, summary)?;
        }
        if call.changes_pages() {
            arena.begin(first, count);
        }
        let result = call.run(machine, arena.range_of(first, count));
        if call.changes_pages() {
            let done = result.is_ok();
            arena.end(first, count, |state| if done { call.makes(state) } else { state });
        }
        summary.calls += 1;
        match result {
            Ok(_) if becomes_both => return Err(StressError::Allowed { call: summary.calls, what: call }),
            Ok(changed) => summary.changed = summary.changed.and(changed),
            Err(ChangeError::Plan(PlanError::WritableAndExecutable { .. })) if becomes_both => {
                summary.refused += 1;
            }
            Err(ChangeError::Plan(
                PlanError::TooLong { .. } | PlanError::OutOfFrames(OutOfFrames { .. }),
            )) => summary.too_long += 1,
            Err(error) => return Err(StressError::Refused { call: summary.calls, what: call, error }),
        }
        // At once: on every CPU, by the time the call has returned.
        if let Some(page) = probed {
            probe_everywhere(arena, page, summary)?;
        }
        for cpu in others.iter() {
            wrong(cpu, summary.calls)?;
        }
    }
    Ok(())
}

/// Has all other CPUs judge `page` now.
fn probe_everywhere(arena: &Arena, page: u64, summary: &mut Summary) -> Result<(), StressError> {
    let call = summary.calls;
    FOUND_WRONG.store(0, Ordering::Release);
    if let Err(silent) = cross_call::call(percpu::others(), probe_page, page as usize) {
        let cpu = silent.0.iter().next().unwrap_or_default();
        return Err(StressError::Silent { cpu, call });
    }
    if let Some(cpu) = FOUND_WRONG.load(Ordering::Acquire).checked_sub(1) {
        let (address, expected) = (arena.word(page, 0).0, arena.state(page).bits());
        return Err(StressError::Wrong {
            cpu,
            call,
            what: "all ways to use a page",
            address,
            expected,
            found: 0,
        });
    }
    summary.probed += 1;
    Ok(())
}

/// Makes all of the arena what it was, and folds it.
fn undo(
    machine: &mut Machine<'_>,
    arena: &Arena,
    global: Global,
    summary: &mut Summary,
) -> Result<(), StressError> {
    let all = |kind| Call { kind, first: 0, count: arena.pages() };
    let calls = [
        all(Kind::Protect(Protection::Valid)),
        all(Kind::Protect(Protection::NoExecute)),
        all(Kind::Protect(Protection::ReadWrite)),
        all(Kind::Fold),
        all(Kind::Global(global)),
    ];
    for call in calls {
        let changed = call.run(machine, arena.range).map_err(|error| StressError::Refused {
            call: summary.calls,
            what: call,
            error,
        })?;
        summary.changed = summary.changed.and(changed);
    }
    Ok(())
}
