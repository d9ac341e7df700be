//! The state of every CPU, readable by all: its number, its life cycle, its calls and its work.

use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::arch::cpu_set::CpuSet;
use crate::arch::frame::Frame;
use crate::arch::layout::MAX_CPUS;

/// Where a CPU is in its life cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Not started, or switched off.
    Off,
    /// Called.
    Starting,
    /// It runs Rust code and waits for the boot CPU to admit or refuse it.
    Arrived,
    /// The boot CPU admitted it.
    Admitted,
    /// The boot CPU refused it: it has to leave.
    Refused,
    /// It takes interrupts and work.
    Online,
    /// It is leaving.
    Leaving,
    /// It timed out while it arrived or left. It is only started again if it is found where CPUs
    /// wait to be called. If it arrives after all, it stays where it walks no tables.
    Lost,
    /// It has left its spin table and waits to be called, with its MMU off: it was switched off, or
    /// it shares the mailbox of a CPU that was called.
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

    /// The state's name in reports.
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

// `PerCpu::state` looks the stored number up.
const _: () = {
    let mut i = 0;
    while i < State::ALL.len() {
        assert!(State::ALL[i] as usize == i);
        i += 1;
    }
};

/// The state of one CPU. One CPU at a time writes each word; which one depends on [`State`].
#[derive(Debug)]
pub struct PerCpu {
    state: AtomicU8,
    /// MIDR, MMFR0, MMFR2 and ISAR0. The CPU writes them before [`State::Arrived`].
    pub id: [AtomicU64; 4],
    /// The CPU's bit in a GICv2's target lists, written by the CPU itself.
    pub gic_target: AtomicU8,
    /// How the CPU leaves: a `CONDUIT_` of [`psci`](crate::arch::psci), written by the CPU that
    /// starts it.
    pub conduit: AtomicU64,
    /// The function to call. The caller writes it before `call_wanted`.
    pub call: Job,
    /// The number of the newest call, written by the caller.
    pub call_wanted: AtomicU64,
    /// The number of the newest call that is done, written by the CPU itself.
    pub call_done: AtomicU64,
    /// The function to run outside interrupts.
    pub work: Job,
    /// The registers of the CPU when it stopped for good, on its own stack. Null until then.
    pub stopped: AtomicPtr<Frame>,
    /// Whether the CPU that ends the kernel interrupts this one to stop it.
    pub told_to_stop: AtomicBool,
    /// 1 while `work` waits or runs. Set by the CPU that gives the work, cleared by this one.
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

    /// The CPU's state. Everything that was written before the state was set is visible after this.
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Acquire)) % State::ALL.len()]
    }

    /// Sets the state. Everything written before is visible to a CPU that reads it.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Sets the state if it still is `from`. Returns whether it was.
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

    /// Sets function and argument. The caller publishes them.
    pub fn set(&self, function: fn(usize), argument: usize) {
        self.function.store(function as *mut (), Ordering::Relaxed);
        self.argument.store(argument, Ordering::Relaxed);
    }

    /// Runs the function, if one was set.
    pub fn run(&self) {
        let function = self.function.load(Ordering::Relaxed);
        if function.is_null() {
            return;
        }
        // SAFETY: `set` alone stores here, a `fn(usize)`, and on this target a function pointer is
        // an address.
        let function: fn(usize) = unsafe { core::mem::transmute(function) };
        function(self.argument.load(Ordering::Relaxed));
    }
}

static CPUS: [PerCpu; MAX_CPUS] = [PerCpu::NEW; MAX_CPUS];

/// The state of the CPU `number`.
pub fn of(number: usize) -> &'static PerCpu {
    &CPUS[number]
}

/// The number of CPUs that have a number.
static KNOWN: AtomicUsize = AtomicUsize::new(1);

/// Adds the CPU `number` to those that are [`known`].
pub fn introduce(number: usize) {
    KNOWN.fetch_max(number + 1, Ordering::Relaxed);
}

/// All CPUs that have a number, in order.
pub fn known() -> impl Iterator<Item = (usize, &'static PerCpu)> + Clone {
    CPUS.iter().take(known_count()).enumerate()
}

/// How many CPUs have a number.
pub fn known_count() -> usize {
    KNOWN.load(Ordering::Relaxed)
}

/// All CPUs that are online, including the boot CPU.
pub fn online() -> CpuSet {
    known().filter(|(_, cpu)| cpu.state() == State::Online).map(|(number, _)| number).collect()
}

/// All CPUs that are online, except this one.
pub fn others() -> CpuSet {
    let mut set = online();
    set.remove(this_cpu());
    set
}

/// This CPU's number. It is in TPIDR_EL1, which EL2 accesses too: E2H does not redirect that name
/// (Arm ARM D24.2). Nothing else uses the register, because no code runs at EL1 below a kernel at
/// EL2.
pub fn this_cpu() -> usize {
    let number: usize;
    // SAFETY: reading this register has no effect.
    unsafe { asm!("mrs {}, tpidr_el1", out(reg) number, options(nomem, nostack, preserves_flags)) };
    number % MAX_CPUS
}

/// Gives this CPU the number 0, the boot CPU's. `secondary.S` numbers all others.
pub fn become_boot_cpu() {
    // SAFETY: the register only holds the number.
    unsafe { asm!("msr tpidr_el1, xzr", options(nomem, nostack, preserves_flags)) };
    of(0).set_state(State::Online);
}
