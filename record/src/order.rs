//! What orders stores without a DSB: DMB, and locks, which pass order on from CPU to CPU.

use std::sync::atomic::{AtomicU64, Ordering};

use linmap_trace::{Access, Domain, Event};

use crate::cpu::Cpu;
use crate::readable::Readable;
use crate::recorder::{CurrentCpu, Recorder};
use crate::regime::Regime;
use crate::waiting::Released;

/// The CPUs of the first 64 that execute at EL0, by an ERET, until something shows that they don't.
pub static AT_EL0: AtomicU64 = AtomicU64::new(0);

/// The bit of a CPU in [`AT_EL0`].
pub fn bit(cpu: usize) -> u64 {
    1_u64.checked_shl(cpu as u32).unwrap_or(0)
}

/// The most words of which is known who released them.
const MOST_RELEASED: usize = 1 << 16;

/// The most releases that a CPU has loaded and no barrier has ordered: the last ones.
const MOST_LOADED: usize = 8;

/// How many groups of releases of a CPU can be acquired: the last ones.
const GROUPS: u64 = 1 << 9;

/// The word that stands for a group of releases of `cpu` in the trace. The lock itself would not
/// do: a later release of it passes more on.
fn name(cpu: usize, group: u64) -> u64 {
    8 * (GROUPS * cpu as u64 + group % GROUPS)
}

/// The words of 4 bytes that an access is to. A part of one may be a lock, too, but some are taken
/// as a whole and released in part.
fn locks(pa: u64, len: u64) -> impl Iterator<Item = u64> {
    (pa & !3..pa.saturating_add(len)).step_by(4)
}

impl Recorder {
    /// A DMB. It is recorded if it orders recorded stores.
    pub(crate) fn dmb(&mut self, cpu: usize, pc: u64, domain: Domain, access: Access) {
        // One for the CPU itself orders nothing for another, so the next still has to.
        let is_alone = domain == Domain::Nsh && self.cpus.len() > 1;
        if self.started.is_none() || is_alone {
            return;
        }
        if access != Access::Stores {
            self.take_over_loaded(cpu, pc);
        }
        if access == Access::Loads {
            return;
        }
        self.settle_unseen(None);
        self.log.dmb(cpu);
        if std::mem::take(&mut self.cpus[cpu].has_stores_since_dmb) {
            self.put(Event::Dmb { cpu, domain, access }, Some(pc));
        }
    }

    /// `cpu` stores `len` bytes with release.
    pub fn release(&mut self, cpu: usize, pa: u64, len: u64) {
        if self.released.len() >= MOST_RELEASED {
            let cpus = &self.cpus;
            self.released.retain(|_, of| of.dsbs == cpus[of.cpu].dsbs);
            if self.released.len() >= MOST_RELEASED / 2 {
                self.released.clear();
            }
        }
        self.settle_unseen(None);
        let order = self.log.release(cpu);
        let end = self.log.end();
        let Cpu { dsbs, releases, .. } = &mut self.cpus[cpu];
        let (dsbs, group) = (*dsbs, releases.group);
        releases.first.get_or_insert(end);
        for lock in locks(pa, len) {
            self.released.insert(lock, Released { cpu, dsbs, group, order: order.clone() });
        }
    }

    /// `cpu` loads `len` bytes with acquire.
    pub fn acquire(&mut self, cpu: usize, pc: u64, pa: u64, len: u64) {
        for lock in locks(pa, len) {
            if let Some(released) = self.released_to(cpu, lock) {
                self.take_over(cpu, pc, &released);
            }
        }
    }

    /// `cpu` loads `len` bytes by an exclusive or an atomic without acquire. A barrier of loads
    /// behind it orders as much (Arm ARM B2.3, barrier-ordered-before).
    pub fn load(&mut self, cpu: usize, pa: u64, len: u64) {
        for lock in locks(pa, len) {
            if let Some(released) = self.released_to(cpu, lock) {
                let loaded = &mut self.cpus[cpu].loaded;
                if loaded.len() == MOST_LOADED {
                    loaded.remove(0);
                }
                loaded.push(released);
            }
        }
    }

    /// What another CPU than `cpu` released to `lock` that no DSB of it has ordered since.
    fn released_to(&self, cpu: usize, lock: u64) -> Option<Released> {
        let released = self.released.get(&lock)?;
        (released.cpu != cpu && released.dsbs == self.cpus[released.cpu].dsbs).then(|| released.clone())
    }

    /// A barrier of loads orders what `cpu` has loaded.
    pub(crate) fn take_over_loaded(&mut self, cpu: usize, pc: u64) {
        for released in std::mem::take(&mut self.cpus[cpu].loaded) {
            self.take_over(cpu, pc, &released);
        }
    }

    /// What was `released` is ordered before what `cpu` does from now on. If its CPU had stores by
    /// then that no DSB has ordered, both are recorded.
    fn take_over(&mut self, cpu: usize, pc: u64, released: &Released) {
        let (from, group) = (released.cpu, released.group);
        let releases = self.cpus[from].releases;
        if released.dsbs != self.cpus[from].dsbs {
            return;
        }
        self.log.pass(&released.order, cpu);
        if group < releases.floor || group + GROUPS <= releases.group {
            return;
        }
        if group == releases.group && !releases.is_recorded {
            if !self.cpus[from].has_stores {
                return;
            }
            self.put_release(from);
        }
        let known = self.cpus[cpu].known.entry(from).or_insert(0);
        if *known > group {
            return;
        }
        *known = group + 1;
        self.put(Event::Acquire { cpu, pa: name(from, group) }, Some(pc));
        // What it passes on and what its DSB orders has grown.
        self.has_stored(cpu);
    }

    /// What `event` adds is none of what its CPU released before: that is recorded first.
    pub(crate) fn put_release_before(&mut self, event: &Event) {
        let (Event::Store { cpu, .. }
        | Event::Fill { cpu, .. }
        | Event::Update { cpu, .. }
        | Event::Acquire { cpu, .. }) = *event
        else {
            return;
        };
        let Some(Cpu { releases, has_stores, .. }) = self.cpus.get_mut(cpu) else { return };
        if releases.first.is_none() {
            return;
        }
        if !*has_stores {
            // Nothing that is recorded was before them.
            releases.dsb();
            return;
        }
        if !releases.is_recorded {
            self.put_release(cpu);
        }
        self.cpus[cpu].releases.end_group();
    }

    /// Records the present group of releases of `cpu`.
    fn put_release(&mut self, cpu: usize) {
        let releases = &mut self.cpus[cpu].releases;
        releases.is_recorded = true;
        let pa = name(cpu, releases.group);
        self.put(Event::Release { cpu, pa }, None);
    }

    /// An ERET is about to be executed at exception level `el`. Returns whether it is one to EL0.
    pub(crate) fn returns(&mut self, cpu: usize, el: u8, own: &dyn CurrentCpu) -> bool {
        let regime = match el {
            2 => Regime::El2,
            3 => Regime::El3,
            _ => Regime::El1,
        };
        let spsr = own.system(Readable::Spsr(regime));
        self.cpus[cpu].is_aarch32 = spsr.is_some_and(|spsr| spsr >> 4 & 1 == 1);
        let is_to_el0 = spsr.is_some_and(|spsr| spsr & 0xf == 0);
        if is_to_el0 {
            AT_EL0.fetch_or(bit(cpu), Ordering::Relaxed);
        } else {
            self.is_privileged(cpu);
        }
        is_to_el0
    }

    /// `cpu` executes what EL0 can't.
    pub(crate) fn is_privileged(&self, cpu: usize) {
        AT_EL0.fetch_and(!bit(cpu), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Linked;

    const LOCK: u64 = 0x4000_1000;
    const FRAME: u64 = 0x5000_0000;

    impl Recorder {
        fn put_store(&mut self, cpu: usize) {
            self.put(Event::Store { cpu, pa: FRAME, value: 0, via: None }, None);
            self.has_stored(cpu);
        }

        /// The groups of CPU 0's releases that the trace has, and that CPU 1 knows.
        fn groups(&self) -> (u64, Option<u64>) {
            let releases = self.cpus[0].releases;
            (releases.group + u64::from(releases.is_recorded), self.cpus[1].known.get(&0).copied())
        }
    }

    #[test]
    fn a_store_behind_a_release_is_not_passed_on() {
        let mut recorder = Recorder::unread(2);
        recorder.put_store(0);
        recorder.release(0, LOCK, 4);
        assert_eq!((recorder.events, recorder.groups()), (1, (0, None)));
        recorder.put_store(0);
        assert_eq!((recorder.events, recorder.groups()), (3, (1, None)), "the release is before the store");
        recorder.acquire(1, 0, LOCK, 4);
        assert_eq!((recorder.events, recorder.groups()), (4, (1, Some(1))), "it has no second release");
        recorder.acquire(1, 0, LOCK, 4);
        recorder.acquire(1, 0, LOCK, 4);
        assert_eq!(recorder.events, 4);
        // The next passes the second store on.
        recorder.release(0, LOCK, 4);
        recorder.release(0, LOCK + 4, 4);
        recorder.acquire(1, 0, LOCK + 4, 4);
        assert_eq!((recorder.events, recorder.groups()), (6, (2, Some(2))));
    }

    #[test]
    fn a_store_behind_a_release_to_a_frame_that_is_linked_later_is_not_passed_on() {
        let mut recorder = Recorder::unread(2);
        recorder.log.store(0, 0, FRAME, 1);
        recorder.release(0, LOCK, 4);
        recorder.log.store(0, 0, FRAME + 8, 2);
        recorder.acquire(1, 0, LOCK, 4);
        let left = recorder.log.unordered(FRAME, 0x1000, Linked::ByStore(1));
        assert_eq!(left.len(), 1);
        for (nth, entry) in recorder.log.unordered(FRAME, 0x1000, Linked::ByRegister) {
            recorder.put_entry(nth, entry);
        }
        assert_eq!((recorder.events, recorder.groups()), (3, (1, None)), "the release is between them");
    }

    #[test]
    fn a_barrier_of_loads_takes_over_what_an_exclusive_has_loaded() {
        let taken = |early: u64, barrier: Access, late: u64| {
            let mut recorder = Recorder::begun(2);
            recorder.put_store(0);
            recorder.load(1, early, 4);
            recorder.release(0, LOCK, 4);
            recorder.load(1, late, 4);
            recorder.dmb(1, 0, Domain::Ish, barrier);
            recorder.groups().1
        };
        for barrier in [Access::All, Access::Loads] {
            assert_eq!(taken(LOCK + 4, barrier, LOCK), Some(1));
            assert_eq!(taken(LOCK, barrier, LOCK + 4), None, "it was released later");
        }
        assert_eq!(taken(LOCK + 4, Access::Stores, LOCK), None);
    }

    #[test]
    fn a_dsb_ends_what_a_release_passes_on() {
        let mut recorder = Recorder::unread(2);
        recorder.put_store(0);
        recorder.release(0, LOCK, 4);
        recorder.cpus[0].dsbs += 1;
        recorder.cpus[0].releases.dsb();
        recorder.acquire(1, 0, LOCK, 4);
        assert_eq!(recorder.events, 1);
    }

    #[test]
    fn two_locks_of_one_word_of_eight_bytes_are_told_apart() {
        let mut recorder = Recorder::unread(2);
        recorder.put_store(0);
        recorder.release(0, LOCK, 1);
        recorder.acquire(1, 0, LOCK + 4, 4);
        assert_eq!(recorder.events, 1);
        recorder.acquire(1, 0, LOCK, 8);
        assert_eq!(recorder.events, 3);
    }
}
