//! What every CPU has of its own, where all can see it: its number, its state, what it was asked to do.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use core::{hint, iter, ptr};

use crate::arch::cpu;
use crate::arch::exceptions::Frame;
use crate::end::fatal;
use crate::memory::layout::MAX_CPUS;

/// A set of CPUs, by number.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuSet([u64; MAX_CPUS / 64]);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self([0; MAX_CPUS / 64]);

    /// The one CPU `number`.
    pub fn one(number: usize) -> Self {
        let mut set = Self::EMPTY;
        set.insert(number);
        set
    }

    /// Adds the CPU `number`, which is below [`MAX_CPUS`].
    pub fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    /// Takes the CPU `number` out.
    pub fn remove(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Their numbers, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        self.0.into_iter().enumerate().flat_map(|(nth, word)| {
            let mut left = word;
            iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < u64::BITS).then_some(nth * 64 + bit as usize)
            })
        })
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut set = Self::EMPTY;
        numbers.into_iter().for_each(|number| set.insert(number));
        set
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, number) in self.iter().enumerate() {
            write!(f, "{}{number}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// Where a CPU is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Not started, or off again.
    Off,
    /// Told to come.
    Starting,
    /// It runs Rust code and waits to be told whether it may stay.
    Arrived,
    /// It may stay.
    Admitted,
    /// It has to go.
    Refused,
    /// It takes interrupts and work.
    Online,
    /// It is on its way off.
    Leaving,
    /// It did not come in time, or did not go. It is not started again, unless it is found where CPUs wait to be called:
    /// should it come, it stays where it walks no tables.
    Lost,
    /// It has left its spin table, with its MMU off, and waits to be called: it shares a mailbox with another CPU that was,
    /// or it was switched off.
    Uncalled,
}

impl State {
    const ALL: [Self; 9] = [
        Self::Off,
        Self::Starting,
        Self::Arrived,
        Self::Admitted,
        Self::Refused,
        Self::Online,
        Self::Leaving,
        Self::Lost,
        Self::Uncalled,
    ];

    /// What it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Arrived => "arrived",
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Online => "online",
            Self::Leaving => "leaving",
            Self::Lost => "lost",
            Self::Uncalled => "uncalled",
        }
    }
}

// What is stored as a number is looked up.
const _: () = {
    let mut i = 0;
    while i < State::ALL.len() {
        assert!(State::ALL[i] as usize == i);
        i += 1;
    }
};

/// What one CPU has. Words are written by one CPU at a time; who that is changes with [`State`].
#[derive(Debug)]
pub struct PerCpu {
    state: AtomicU8,
    /// The ID registers, by the CPU itself on its way to [`State::Arrived`]: MIDR, MMFR0, MMFR2, ISAR0.
    pub id: [AtomicU64; 4],
    /// The bit that stands for the CPU in a GICv2's target lists, by the CPU itself.
    pub gic_target: AtomicU8,
    /// How the CPU goes off, a `CONDUIT_` of [`secondary`](crate::smp::secondary), by who starts it.
    pub conduit: AtomicU64,
    /// What to call: written by the caller before `call_wanted`.
    pub call: Job,
    /// Number of the newest call, by the caller.
    pub call_wanted: AtomicU64,
    /// Number of the newest call that is done, by the CPU itself.
    pub call_done: AtomicU64,
    /// What to do outside interrupts.
    pub work: Job,
    /// Where the CPU was when it stopped for good, on its own stack; null before that.
    pub stopped: AtomicPtr<Frame>,
    /// The CPU that met its end interrupts this one to stop it.
    pub told_to_stop: AtomicBool,
    /// 1 while `work` waits or runs: set by who gives it, cleared by the CPU itself.
    pub working: AtomicU8,
}

impl PerCpu {
    #[expect(clippy::declare_interior_mutable_const, reason = "a pattern for statics, never used as a value")]
    const NEW: Self = Self {
        state: AtomicU8::new(State::Off as u8),
        id: [const { AtomicU64::new(0) }; 4],
        gic_target: AtomicU8::new(0),
        conduit: AtomicU64::new(0),
        call: Job::NONE,
        call_wanted: AtomicU64::new(0),
        call_done: AtomicU64::new(0),
        work: Job::NONE,
        stopped: AtomicPtr::new(ptr::null_mut()),
        told_to_stop: AtomicBool::new(false),
        working: AtomicU8::new(0),
    };

    /// The CPU's state, and with it everything that was written before it was set.
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Acquire)) % State::ALL.len()]
    }

    /// Sets the state, after everything that was written before.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Sets the state if it still is `from`; says whether it was.
    pub fn change_state(&self, from: State, to: State) -> bool {
        let changed = self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }
}

/// A function and its argument.
#[derive(Debug)]
pub struct Job {
    function: AtomicPtr<()>,
    argument: AtomicUsize,
}

impl Job {
    #[expect(clippy::declare_interior_mutable_const, reason = "a pattern for statics, never used as a value")]
    pub const NONE: Self = Self { function: AtomicPtr::new(ptr::null_mut()), argument: AtomicUsize::new(0) };

    /// Notes what to do. Publishing it is the caller's.
    pub fn set(&self, function: fn(usize), argument: usize) {
        self.function.store(function as *mut (), Ordering::Relaxed);
        self.argument.store(argument, Ordering::Relaxed);
    }

    /// Does what was noted, if anything was.
    pub fn run(&self) {
        let function = self.function.load(Ordering::Relaxed);
        if function.is_null() {
            return;
        }
        // SAFETY: `set` alone stores here, a `fn(usize)`, and on this target a function pointer is an address.
        let function: fn(usize) = unsafe { core::mem::transmute(function) };
        function(self.argument.load(Ordering::Relaxed));
    }
}

static CPUS: [PerCpu; MAX_CPUS] = [PerCpu::NEW; MAX_CPUS];

/// What the CPU `number` has.
pub fn of(number: usize) -> &'static PerCpu {
    &CPUS[number]
}

/// How many numbers are given.
static KNOWN: AtomicUsize = AtomicUsize::new(1);

/// From here on there is a CPU `number`.
pub fn introduce(number: usize) {
    KNOWN.fetch_max(number + 1, Ordering::Relaxed);
}

/// All CPUs that have a number, in order.
pub fn known() -> impl Iterator<Item = (usize, &'static PerCpu)> + Clone {
    CPUS.iter().take(KNOWN.load(Ordering::Relaxed)).enumerate()
}

/// All CPUs that are online, the boot CPU among them.
pub fn online() -> CpuSet {
    known().filter(|(_, cpu)| cpu.state() == State::Online).map(|(number, _)| number).collect()
}

/// All CPUs that are online but this one.
pub fn others() -> CpuSet {
    let mut set = online();
    set.remove(this_cpu());
    set
}

/// This CPU's number. It is in TPIDR_EL1, which is also EL2's to read and write, and which nobody else uses: EL2 with E2H
/// set does not redirect that name (Arm ARM D24.2), and no code runs at EL1 below it.
pub fn this_cpu() -> usize {
    let number: usize;
    // SAFETY: reads a register that has no effect.
    unsafe { asm!("mrs {}, tpidr_el1", out(reg) number, options(nomem, nostack, preserves_flags)) };
    number % MAX_CPUS
}

/// Makes this CPU the one with number 0, the boot CPU. `secondary.S` does the same for all others.
pub fn become_boot_cpu() {
    // SAFETY: the register only holds the number.
    unsafe { asm!("msr tpidr_el1, xzr", options(nomem, nostack, preserves_flags)) };
    of(0).set_state(State::Online);
}

/// Waits until `done`, at most `milliseconds`; says whether it was. Stops for good when another CPU met its end.
pub fn wait_until(milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    poll_until(milliseconds, || {
        done() || {
            fatal::stop_if_elsewhere();
            false
        }
    })
}

/// The same, whoever meets the end meanwhile.
pub fn poll_until(milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let started = cpu::counter();
    let patience = cpu::ticks_of_milliseconds(milliseconds);
    loop {
        if done() {
            return true;
        }
        if cpu::ticks_since(started) > patience {
            return done();
        }
        hint::spin_loop();
    }
}
