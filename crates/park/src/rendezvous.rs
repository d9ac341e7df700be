//! The protocol: one CPU requests that all others park, edits, and releases them.
//!
//! 1. The editor adds 1 to the request, which becomes odd, and interrupts the others.
//! 2. Each of them leaves the live root, stores the number of the request in its own word, and
//!    waits until the request is another number.
//! 3. When all words hold the number, the editor leaves the live root too, edits, and returns.
//! 4. The editor adds 1 to the request, which becomes even. The others return.
//!
//! If a CPU does not park in time, step 4 follows at once: the CPU that comes late finds an even
//! number and goes on. Each request has a number of its own, so that the answer to an old one never
//! counts for a new one.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linmap::{ParkError, Pause};

use crate::cpus::Cpus;
use crate::root_switch::RootSwitch;

/// The word of a CPU that has left the live root for good.
const LEFT: u64 = u64::MAX;

/// Where up to `CPUS` CPUs meet.
///
/// A kernel has one, in a `static`. CPUs that wait read and write it through the identity map,
/// which therefore maps its `size_of` bytes at VA = PA, writable: [`address`](Self::address) says
/// where they are.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Rendezvous<S, const CPUS: usize> {
    /// Odd while CPUs must park.
    request: AtomicU64,
    /// The last request for which each CPU has parked, or [`LEFT`].
    parked: [AtomicU64; CPUS],
    /// The editor is on its other root.
    editing: AtomicBool,
    /// The ticks from the request until all CPUs had parked, summed over all rendezvous so far.
    waited: AtomicU64,
    switch: S,
}

impl<S, const CPUS: usize> Rendezvous<S, CPUS> {
    /// Returns a rendezvous that asks no CPU to park. CPUs leave the live root by `switch`.
    pub const fn new(switch: S) -> Self {
        Self {
            request: AtomicU64::new(0),
            parked: [const { AtomicU64::new(0) }; CPUS],
            editing: AtomicBool::new(false),
            waited: AtomicU64::new(0),
            switch,
        }
    }

    /// Returns how CPUs leave the live root.
    pub const fn switch(&self) -> &S {
        &self.switch
    }

    /// Returns the address of the words, a multiple of 4096, to be mapped at their physical address
    /// too.
    pub fn address(&self) -> usize {
        (&raw const *self).expose_provenance()
    }

    /// Notes that the CPU `cpu`, which does not run yet, may come to the live root from now on.
    ///
    /// # Panics
    /// If `cpu` is not below `CPUS`.
    pub fn expect(&self, cpu: usize) {
        self.parked[cpu].store(0, Ordering::Release);
    }

    /// Notes that the CPU `cpu` can't come to the live root any more.
    ///
    /// # Safety
    /// It is so: the CPU is off or has left the live root, and its TLB holds nothing of it, until
    /// [`expect`](Self::expect) says otherwise.
    ///
    /// # Panics
    /// If `cpu` is not below `CPUS`.
    pub unsafe fn has_left(&self, cpu: usize) {
        self.parked[cpu].store(LEFT, Ordering::Release);
    }

    /// Returns whether the CPU `cpu` can't come to the live root any more: it has left for good, or
    /// [`has_left`](Self::has_left) says so.
    ///
    /// # Panics
    /// If `cpu` is not below `CPUS`.
    pub fn is_away(&self, cpu: usize) -> bool {
        self.parked[cpu].load(Ordering::Acquire) == LEFT
    }

    /// Returns the ticks from the request until all CPUs had parked, summed over all rendezvous so
    /// far.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// Returns the word of the CPU `cpu`, and the value that says that it has left for good.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn leaving(&self, cpu: usize) -> (&AtomicU64, u64) {
        (&self.parked[cpu], LEFT)
    }
}

impl<S: RootSwitch, const CPUS: usize> Rendezvous<S, CPUS> {
    /// Parks the CPU `cpu`, the one this runs on, until the editor releases it. Returns at once if
    /// the request was cancelled before. To be called by the handler of the interrupt that
    /// [`Cpus::interrupt`] sends.
    ///
    /// # Safety
    /// Interrupts are masked. The CPU runs on the live root, with what [`RootSwitch::wait`] asks
    /// for, and no other CPU has the number `cpu`.
    ///
    /// # Panics
    /// If `cpu` is not below `CPUS`.
    pub unsafe fn answer(&self, cpu: usize) {
        let request = self.request.load(Ordering::Acquire);
        if request.is_multiple_of(2) {
            return;
        }
        // SAFETY: the caller's.
        unsafe { self.switch.wait(&self.request, &self.parked[cpu], request) };
    }

    /// Runs `edit` on the root with the TTBR1 value `root` while all other CPUs are parked.
    ///
    /// If it is unknown whether a CPU has left the live root, this fails at once, so that the map
    /// never changes under it.
    ///
    /// # Errors
    /// [`ParkError`] names the first CPU that did not park. `edit` did not run then, and the CPUs
    /// that had parked are back.
    ///
    /// # Safety
    /// - `cpus` names all CPUs that may run on the live root, except the one this runs on.
    /// - No other CPU calls this at the same time, and `edit` neither calls it nor unwinds.
    /// - Interrupts are masked. The root maps what [`RootSwitch::go_to`] asks for and all that
    ///   `edit` accesses.
    pub unsafe fn edit_parked<R>(
        &self,
        cpus: &impl Cpus,
        root: u64,
        edit: impl FnOnce() -> R,
    ) -> Result<(R, Pause), ParkError> {
        let started = cpus.ticks();
        let ticks = || cpus.ticks().wrapping_sub(started);
        let on_live_root = |cpu: &usize| self.parked[*cpu].load(Ordering::Acquire) != LEFT;
        if let Some(cpu) = cpus.in_transit().find(on_live_root) {
            return Err(ParkError { cpu, ticks: 0 });
        }
        // 64 bits never wrap around.
        let request = self.request.load(Ordering::Relaxed).wrapping_add(1);
        self.request.store(request, Ordering::Release);
        let others = cpus.others();
        cpus.interrupt(others.clone());
        // A parked CPU stays parked, so the editor can wait for one CPU after the other.
        let mut missing = others.peekable();
        let parked = cpus.wait_until(|| {
            while missing.next_if(|&cpu| self.parked[cpu].load(Ordering::Acquire) == request).is_some() {}
            missing.peek().is_none()
        });
        if !parked {
            self.release(request);
            let cpu = missing.next().unwrap_or_default();
            return Err(ParkError { cpu, ticks: ticks() });
        }
        self.waited.fetch_add(ticks(), Ordering::Relaxed);
        self.editing.store(true, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { self.switch.go_to(root) };
        let result = edit();
        // SAFETY: the live root was left with this code, stack and vectors.
        unsafe { self.switch.go_to_live() };
        self.editing.store(false, Ordering::Relaxed);
        self.release(request);
        Ok((result, Pause { ticks: ticks() }))
    }

    /// Cancels a request that the editor, the CPU this runs on, no longer waits for because the
    /// kernel stops: the CPUs that have parked return. Does nothing while an edit runs, since no
    /// CPU can return then.
    ///
    /// # Safety
    /// The CPU that this runs on is the one that called [`edit_parked`](Self::edit_parked), if one
    /// has: no edit begins at the same time.
    pub unsafe fn abandon(&self) {
        let request = self.request.load(Ordering::Relaxed);
        if !request.is_multiple_of(2) && !self.editing.load(Ordering::Relaxed) {
            self.release(request);
        }
    }

    /// Releases the CPUs that have parked for `request`.
    fn release(&self, request: u64) {
        self.request.store(request.wrapping_add(1), Ordering::Release);
        self.switch.wake();
    }
}
