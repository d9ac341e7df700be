//! All CPUs at one job.

use core::hint::spin_loop;
use core::mem::transmute;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::lock::Lock;
use crate::machine;
use crate::process::{CPUS, Cpu};

/// What all CPUs do.
type Job<'a> = &'a (dyn Fn(&mut Cpu) + Sync);

static JOB: Lock<Option<Job<'static>>> = Lock::new(None);
/// How many jobs there were.
static JOBS: AtomicUsize = AtomicUsize::new(0);
/// How many other CPUs have done the last one.
static DONE: AtomicUsize = AtomicUsize::new(0);

/// Starts the other CPUs.
pub fn start() {
    (1..CPUS as u64).for_each(machine::start);
}

/// Lets all CPUs do `job`. Each runs no process when this returns.
pub fn all(cpu: &mut Cpu, job: Job<'_>) {
    // SAFETY: no CPU uses it when this returns.
    let job = unsafe { transmute::<Job<'_>, Job<'static>>(job) };
    JOB.with(|next| *next = Some(job));
    DONE.store(0, Ordering::Relaxed);
    JOBS.fetch_add(1, Ordering::Release);
    job(cpu);
    cpu.rest();
    wait(|| DONE.load(Ordering::Acquire) == CPUS - 1);
}

/// What the other CPUs do all the time.
pub fn serve(cpu: &mut Cpu) -> ! {
    for done in 0.. {
        wait(|| JOBS.load(Ordering::Acquire) > done);
        if let Some(job) = JOB.with(|job| *job) {
            job(cpu);
        }
        cpu.rest();
        DONE.fetch_add(1, Ordering::Release);
    }
    unreachable!("there is always another job")
}

/// Waits until something is so.
pub fn wait(is_so: impl Fn() -> bool) {
    while !is_so() {
        spin_loop();
    }
}
