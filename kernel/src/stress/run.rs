//! A stress run: random changes of the linear map on this CPU, while all other CPUs use the map and
//! check what they see.

use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use linmap::{ChangeError, Changed, Protection};
use linmap_live::{Global, PlanError};
use linmap_table::OutOfFrames;
use linmap_vmsa::Execute;

use crate::arch::cpu_set::CpuSet;
use crate::arch::image::Image;
use crate::arch::layout::MAX_CPUS;
use crate::arch::per_cpu;
use crate::arch::probe;
use crate::arch::wait::{PATIENCE, wait_until};
use crate::memory::live::LiveMap;
use crate::memory::physical::Memory;
use crate::report;
use crate::smp::cross_call::{self, NotIdle};
use crate::stress::arena::{Arena, CONSTANT_WORD, PageState, TEXT_WORD};
use crate::stress::call::{Call, Kind};
use crate::stress::error::StressError;
use crate::stress::footprint::Footprint;
use crate::stress::random::Random;
use crate::stress::worker::{self, Access, Tally, Wrong, is_right};

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Calls made.
    pub calls: u64,
    /// Calls refused because memory would have become writable and executable.
    pub refused: u64,
    /// Calls whose plan would have been too long.
    pub too_long: u64,
    /// CPUs that worked during the calls.
    pub workers: u64,
    /// Their accesses.
    pub accesses: u64,
    /// How many of them faulted, as they should.
    pub faults: u64,
    /// Addresses probed on all CPUs at once, right after a call.
    pub probed: u64,
    /// The sum of all calls' effects.
    pub changed: Changed,
}

static ARENA: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());
static STOP: AtomicBool = AtomicBool::new(false);
static TALLIES: [Tally; MAX_CPUS] = [const { Tally::new() }; MAX_CPUS];

/// Runs on the other CPUs, which are numbered from 0.
fn work(number: usize) {
    // SAFETY: the pointer is set before any worker is started. It leads to `PLACE`, which no run
    // writes while a CPU works.
    let arena = unsafe { &*ARENA.load(Ordering::Acquire) };
    if let Some(tally) = TALLIES.get(per_cpu::this_cpu()) {
        worker::work(arena, tally, &STOP, number);
    }
}

/// The CPU that found a page in an illegal state, plus 1.
static FOUND_WRONG: AtomicUsize = AtomicUsize::new(0);

/// Runs on every other CPU at once. Uses `page` in all ways, so that the CPU's TLB holds whatever
/// it may, and checks the outcome.
fn probe_page(page: usize) {
    let page = page as u64;
    // SAFETY: as in `work`.
    let arena = unsafe { &*ARENA.load(Ordering::Acquire) };
    let state = arena.state(page);
    let place = arena.word(page, CONSTANT_WORD);
    let expected = arena.expected(page, CONSTANT_WORD);
    let loaded = probe::load(place);
    // SAFETY: no worker writes this word, and the store keeps its value.
    let stored = unsafe { probe::store(place, expected) };
    // SAFETY: two RETs.
    let executed = unsafe { probe::execute(arena.word(page, TEXT_WORD)) };
    let right = loaded.is_ok_and(|value| value == expected) == loaded.is_ok()
        && is_right(state, Access::Read, loaded.map(|_| ())).is_ok()
        && is_right(state, Access::Write, stored).is_ok()
        && is_right(state, Access::Execute, executed).is_ok();
    if !right {
        FOUND_WRONG.store(1 + per_cpu::this_cpu(), Ordering::Release);
    }
}

/// The arena of the run. It stays when a run fails, because a CPU that does not answer may still
/// read it.
static mut PLACE: MaybeUninit<Arena> = MaybeUninit::uninit();

/// Makes `calls` random calls while all other CPUs work, undoes them, and compares the map.
///
/// # Errors
/// [`StressError`]. The memory of the run stays reserved, as it is.
pub fn run(
    memory: &mut Memory,
    map: &mut LiveMap,
    image: Image,
    calls: u64,
    seed: u64,
) -> Result<Summary, StressError> {
    let others = per_cpu::others();
    if let Some(busy) = others.iter().find(|&cpu| !cross_call::is_finished(cpu)) {
        return Err(NotIdle::Busy(busy).into());
    }
    let arena = Arena::allocate(&mut memory.memblock, memory.layout)?;
    let place = &raw mut PLACE;
    // SAFETY: this runs on the boot CPU alone, and no other CPU has work or a call left of an
    // earlier run.
    let arena: &'static Arena = unsafe { (*place).write(arena) };
    let mut run = Run { memory, map, image, arena, others, summary: Summary::default() };
    run.run(calls, seed)?;
    let summary = run.summary;
    arena.release(&mut memory.memblock);
    Ok(summary)
}

/// A run in progress.
struct Run<'r> {
    memory: &'r mut Memory,
    map: &'r mut LiveMap,
    image: Image,
    arena: &'static Arena,
    others: CpuSet,
    summary: Summary,
}

impl Run<'_> {
    fn run(&mut self, calls: u64, seed: u64) -> Result<(), StressError> {
        let arena = self.arena;
        // Earlier changes may have left small leaves, which the run would fold.
        self.fold_around()?;
        let before = Footprint::of(self.memory, self.map, self.image, arena);
        let global = self.map.map.global();
        report!("stress=begin calls={calls} seed={seed:#x} arena={} pages={}", arena.range, arena.pages());
        ARENA.store(ptr::from_ref(arena).cast_mut(), Ordering::Release);
        STOP.store(false, Ordering::Release);
        let result = self.start_workers().and_then(|()| self.change(calls, Random(seed)));
        STOP.store(true, Ordering::Release);
        self.wait_for_workers()?;
        result?;
        self.check_workers()?;
        self.undo(global)?;
        self.fold_around()?;
        let after = Footprint::of(self.memory, self.map, self.image, arena);
        if before != after {
            return Err(StressError::Differs { before, after });
        }
        if let Some((address, expected, found)) = arena.first_wrong() {
            let (address, call, what) = (address.0, self.summary.calls, "a word at the end");
            return Err(StressError::Wrong { cpu: 0, call, what, address, expected, found });
        }
        Ok(())
    }

    /// Folds the memory around the arena that the largest block or run could join with it.
    fn fold_around(&mut self) -> Result<(), StressError> {
        let range = self.arena.range;
        let whole = range.align_outward(1 << 30).unwrap_or(range);
        let mapped = self.memory.mapped().find(|mapped| mapped.covers(range));
        let around = mapped.map_or(range, |mapped| mapped.intersection(whole));
        let fold = Call { kind: Kind::Fold, first: 0, count: self.arena.pages() };
        match fold.run(self.memory, self.map, around) {
            Ok(_) => Ok(()),
            Err(error) => Err(StressError::Refused { call: 0, what: fold, error }),
        }
    }

    fn start_workers(&mut self) -> Result<(), StressError> {
        let mut result = Ok(());
        for (number, cpu) in self.others.iter().enumerate() {
            TALLIES[cpu].clear();
            result = result.and_then(|()| Ok(cross_call::start_work(cpu, work, number)?));
            self.summary.workers += 1;
        }
        result
    }

    fn wait_for_workers(&mut self) -> Result<(), StressError> {
        for cpu in self.others.iter() {
            if !wait_until(6 * PATIENCE, || cross_call::is_finished(cpu)) {
                return Err(StressError::Silent { cpu, call: self.summary.calls });
            }
            let tally = &TALLIES[cpu];
            self.summary.accesses += tally.accesses.load(Ordering::Relaxed);
            self.summary.faults += tally.faults.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// Checks that no worker has seen an illegal state.
    fn check_workers(&self) -> Result<(), StressError> {
        self.others.iter().try_for_each(|cpu| match TALLIES.get(cpu).and_then(Tally::wrong) {
            None => Ok(()),
            Some(Wrong { what, address, expected, found }) => {
                Err(StressError::Wrong { cpu, call: self.summary.calls, what, address, expected, found })
            }
        })
    }

    /// Makes all calls.
    fn change(&mut self, calls: u64, mut random: Random) -> Result<(), StressError> {
        while self.summary.calls < calls {
            let call = Call::random(&mut random, self.arena.pages());
            // The workers use what is about to change.
            self.arena.set_focus(call.first, call.count);
            let probed = self.summary.calls.is_multiple_of(8).then(|| call.first + random.below(call.count));
            if let Some(page) = probed {
                self.probe_everywhere(page)?;
            }
            self.make(call)?;
            // From the moment when the call has returned, every CPU has to see its effect.
            if let Some(page) = probed {
                self.probe_everywhere(page)?;
            }
            self.check_workers()?;
        }
        Ok(())
    }

    /// Makes one call, and checks that it succeeds or fails as it should.
    fn make(&mut self, call: Call) -> Result<(), StressError> {
        let (arena, summary) = (self.arena, &mut self.summary);
        let Call { kind, first, count } = call;
        let makes_both = matches!(kind, Kind::Protect(Protection::ReadWrite))
            && arena.any(first, count, PageState::executable);
        let tables = self.map.map.tree().geometry().table_permissions();
        let is_taken = matches!(kind, Kind::Text) && !tables.allows_execute(Execute::Kernel);
        if call.changes_pages() {
            arena.begin(first, count);
        }
        let result = call.run(self.memory, self.map, arena.range_of(first, count));
        if call.changes_pages() {
            let done = result.is_ok();
            arena.end(first, count, |state| if done { call.apply(state) } else { state });
        }
        summary.calls += 1;
        match result {
            Ok(_) if makes_both || is_taken => Err(StressError::Allowed { call: summary.calls, what: call }),
            Ok(changed) => {
                summary.changed = summary.changed.and(changed);
                Ok(())
            }
            Err(ChangeError::Plan(PlanError::WritableAndExecutable { .. })) if makes_both => {
                summary.refused += 1;
                Ok(())
            }
            Err(ChangeError::Plan(PlanError::TakenByTables { .. })) if is_taken => {
                summary.refused += 1;
                Ok(())
            }
            Err(ChangeError::Plan(
                PlanError::TooLong { .. } | PlanError::OutOfFrames(OutOfFrames { .. }),
            )) => {
                summary.too_long += 1;
                Ok(())
            }
            Err(error) => Err(StressError::Refused { call: summary.calls, what: call, error }),
        }
    }

    /// Has all other CPUs judge `page` now.
    fn probe_everywhere(&mut self, page: u64) -> Result<(), StressError> {
        let call = self.summary.calls;
        FOUND_WRONG.store(0, Ordering::Release);
        if let Err(silent) = cross_call::call(self.others, probe_page, page as usize) {
            let cpu = silent.cpus.iter().next().unwrap_or_default();
            return Err(StressError::Silent { cpu, call });
        }
        if let Some(cpu) = FOUND_WRONG.load(Ordering::Acquire).checked_sub(1) {
            let (address, expected) = (self.arena.word(page, 0).0, self.arena.state(page).bits());
            let what = "all ways to use a page";
            return Err(StressError::Wrong { cpu, call, what, address, expected, found: 0 });
        }
        self.summary.probed += 1;
        Ok(())
    }

    /// Undoes all changes of the arena, and folds it.
    fn undo(&mut self, global: Global) -> Result<(), StressError> {
        let all = |kind| Call { kind, first: 0, count: self.arena.pages() };
        let calls = [
            all(Kind::Protect(Protection::Valid)),
            all(Kind::Protect(Protection::NoExecute)),
            all(Kind::Protect(Protection::ReadWrite)),
            all(Kind::Fold),
            all(Kind::Global(global)),
        ];
        for call in calls {
            let result = call.run(self.memory, self.map, self.arena.range);
            let changed = result.map_err(|error| StressError::Refused {
                call: self.summary.calls,
                what: call,
                error,
            })?;
            self.summary.changed = self.summary.changed.and(changed);
        }
        Ok(())
    }
}
