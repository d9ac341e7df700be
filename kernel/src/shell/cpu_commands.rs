//! Commands on CPUs.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linmap_platform::CpuNode;
use linmap_vmsa::id::Midr;

use crate::arch::cpu;
use crate::arch::per_cpu;
use crate::arch::wait::{PATIENCE, wait_until};
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;
use crate::shell::words::Words;
use crate::smp::cpus::Cpus;
use crate::smp::cross_call;
use crate::{report, say};

/// The words of `cpu-on`.
pub const CPU_ON: &str = "cpu-on N";
/// The words of `cpu-off`.
pub const CPU_OFF: &str = "cpu-off N";
/// The words of `mask`.
pub const MASK: &str = "mask CPU MILLISECONDS";

/// Shows all CPUs. All that are online have to answer a call.
pub fn show(cpus: &Cpus) -> Result<(), CommandError> {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    ANSWERS.store(0, Ordering::Relaxed);
    let asked = per_cpu::others();
    let started = cpu::counter();
    let answered = cross_call::call(asked, |_| _ = ANSWERS.fetch_add(1, Ordering::Relaxed), 0);
    let ticks = cpu::ticks_since(started);

    say!("  cpu  mpidr         method      state     model          bbm: reported  relied on");
    for (number, described) in cpus.list.iter().enumerate() {
        show_one(cpus, number, *described);
    }
    let verdict = if answered.is_ok() { "ok" } else { "late" };
    report!(
        "call={verdict} asked={} answered={} ticks={ticks}",
        asked.len(),
        ANSWERS.load(Ordering::Relaxed)
    );
    answered?;
    say!("All other CPUs that are online have answered: {}.", asked.len());
    Ok(())
}

fn show_one(cpus: &Cpus, number: usize, described: CpuNode) {
    let CpuNode { affinity, method } = described;
    let state = per_cpu::of(number).state().name();
    let Some(features) = cpus.features(number) else {
        say!("  {number:<3}  {affinity:<12}  {method:<10}  {state}");
        report!("cpu={number} mpidr={affinity} method={method} state={state}");
        return;
    };
    let midr = features.midr;
    let (reported, bbm) = (features.reported.number(), features.bbm.number());
    say!(
        "  {number:<3}  {affinity:<12}  {method:<10}  {state:<8}  {:<13}  {reported:<13}  {bbm}",
        Model(midr)
    );
    report!(
        "cpu={number} mpidr={affinity} method={method} state={state} midr={:#x} bbm_reported={reported} \
         bbm={bbm}",
        midr.0
    );
}

/// A CPU's name, or its MIDR if the name is unknown.
struct Model(Midr);

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.name() {
            Some(name) => f.pad(name),
            None => write!(f, "{:#x}", self.0.0),
        }
    }
}

/// Starts a CPU.
pub fn cpu_on(owners: &mut Owners, word: &str) -> Result<(), CommandError> {
    let number = word.parse().map_err(|_| CommandError::Usage(CPU_ON))?;
    let started = cpu::counter();
    owners.cpus.start_late(&owners.platform, &mut owners.memory, number)?;
    owners.map.cpu_started(number);
    say!("CPU {number} is online.");
    report!("cpu={number} state=online ticks={}", cpu::ticks_since(started));
    Ok(())
}

/// Switches a CPU off.
pub fn cpu_off(owners: &mut Owners, word: &str) -> Result<(), CommandError> {
    let number = word.parse().map_err(|_| CommandError::Usage(CPU_OFF))?;
    let started = cpu::counter();
    owners.cpus.stop(number)?;
    owners.map.cpu_stopped(number);
    say!("CPU {number} is off.");
    report!("cpu={number} state=off ticks={}", cpu::ticks_since(started));
    Ok(())
}

/// Masks the interrupts of a CPU for a while, to see what a change does that interrupts it.
pub fn mask(rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, MASK);
    let (number, milliseconds) = (words.number()?, words.number()?);
    words.end()?;
    static MASKED: AtomicBool = AtomicBool::new(false);
    MASKED.store(false, Ordering::Release);
    cross_call::start_work(
        number as usize,
        |milliseconds| {
            cpu::mask_interrupts();
            MASKED.store(true, Ordering::Release);
            wait_until(milliseconds as u64, || false);
            cpu::unmask_interrupts();
        },
        milliseconds as usize,
    )?;
    wait_until(PATIENCE, || MASKED.load(Ordering::Acquire));
    say!("CPU {number} takes no interrupts for {milliseconds} ms.");
    Ok(())
}
