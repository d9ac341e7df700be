//! The allocator: generations of identifiers, and the slow path of a switch.

use crate::atomic::{AtomicBool, AtomicU64, Ordering, spin_loop};
use crate::claims::Claim;
use crate::id_error::{CpuError, IdError};
use crate::numbers::Numbers;
use crate::space_id::{SpaceId, Tag};

/// The identifiers of one kind, ASIDs or VMIDs, for `CPUS` CPUs.
///
/// It takes 8 KiB, so make it a static. If the width is known only at boot
/// (ID_AA64MMFR0_EL1.ASIDBits, ID_AA64MMFR1_EL1.VMIDBits), put it in a cell that is set once.
#[derive(Debug)]
pub struct IdAllocator<const CPUS: usize> {
    generation: AtomicU64,
    numbers: Numbers,
    claims: [Claim; CPUS],
    locked: AtomicBool,
}

impl<const CPUS: usize> IdAllocator<CPUS> {
    /// Returns an allocator of identifiers of `bits` bits: 8 or 16 on real CPUs, fewer to force
    /// rollovers in tests. No space gets an identifier of `reserved`.
    ///
    /// Reserve the identifier of the root that a CPU uses while it runs no space, usually 0.
    ///
    /// # Errors
    /// [`IdError::Width`], [`IdError::NoSuchId`], and [`IdError::TooFew`] unless there are more
    /// identifiers than CPUs.
    pub const fn new(bits: u32, reserved: &'static [u16]) -> Result<Self, IdError> {
        match Numbers::new(bits, reserved, CPUS) {
            Ok(numbers) => Ok(Self {
                generation: AtomicU64::new(1),
                numbers,
                claims: [const { Claim::new() }; CPUS],
                locked: AtomicBool::new(false),
            }),
            Err(error) => Err(error),
        }
    }

    /// Returns the present generation. The first is 1, and each rollover increments it.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Makes the caller CPU `cpu`.
    pub(crate) fn claim(&self, cpu: usize) -> Result<&Claim, CpuError> {
        let claim = self.claims.get(cpu).ok_or(CpuError::NoSuchCpu { cpu, cpus: CPUS })?;
        if claim.take() { Ok(claim) } else { Err(CpuError::Claimed { cpu }) }
    }

    /// Gives `space` an identifier of the present generation, and makes it what the CPU of `claim`
    /// runs with. Returns it, and whether that CPU's TLB is stale.
    pub(crate) fn run(&self, claim: &Claim, space: &SpaceId) -> (Tag, bool) {
        let _lock = Lock::new(&self.locked);
        let mut tag = space.tag();
        if tag.generation() != self.generation() {
            tag = self.assign(tag);
            space.set(tag);
        }
        (tag, claim.run(tag))
    }

    /// The CPU of `claim` runs with nothing.
    pub(crate) fn leave(&self, claim: &Claim) {
        let _lock = Lock::new(&self.locked);
        claim.idle();
    }

    /// An identifier of the present generation for a space that has `old`, of an earlier one.
    fn assign(&self, old: Tag) -> Tag {
        if old != Tag::NONE {
            let same = Tag::new(self.generation(), old.id());
            // CPUs that ran the space at the rollover run it still, by the same identifier.
            let mut is_reserved = false;
            for claim in &self.claims {
                is_reserved |= claim.renew(old, same);
            }
            if is_reserved || self.numbers.take(old.id()) {
                return same;
            }
        }
        loop {
            if let Some(id) = self.numbers.take_next() {
                return Tag::new(self.generation(), id);
            }
            self.roll_over();
        }
    }

    /// Begins a generation. CPUs keep the identifiers that they run with. Each invalidates its TLB
    /// before it uses any other.
    fn roll_over(&self) {
        self.generation.store(self.generation() + 1, Ordering::Relaxed);
        self.numbers.clear();
        for claim in &self.claims {
            let tag = claim.roll_over();
            if tag != Tag::NONE {
                self.numbers.take(tag.id());
            }
        }
    }
}

/// The allocator's lock, held.
struct Lock<'a>(&'a AtomicBool);

impl<'a> Lock<'a> {
    fn new(locked: &'a AtomicBool) -> Self {
        while locked.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        Self(locked)
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
