//! Entering the crash kernel that waits, when this kernel ends.

use core::ptr;
use core::sync::atomic::Ordering;

use linmap_table::Reserved;
use linmap_vmsa::registers::tcr_with_t0sz;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::frame::Frame;
use crate::arch::geometry::identity;
use crate::arch::per_cpu::{self, State};
use crate::arch::print::Quoted;
use crate::arch::stop;
use crate::arch::wait::{LAST_PATIENCE, patience_with, wait_until};
use crate::kexec::crash::description::{self, Changed, Description};
use crate::smp::leave;
use crate::{report, say};

/// A crash kernel that has not changed since it was loaded.
struct Ready {
    description: &'static Description,
    /// Other CPUs that have stopped.
    stopped: usize,
    /// Other CPUs that have not.
    running: usize,
    /// How long the check took.
    ticks: u64,
}

/// Whether the CPU `number`, which was online, has stopped or is leaving.
fn has_gone(number: usize) -> bool {
    stop::has_stopped(number) || per_cpu::of(number).state() != State::Online
}

/// Waits for the other CPUs, writes the notes, and checks the crash kernel. `None` if none waits.
fn ready(frame: &Frame) -> Result<Option<Ready>, Changed> {
    if !description::waits() {
        return Ok(None);
    }
    let others = per_cpu::others();
    wait_until(LAST_PATIENCE, || others.iter().all(has_gone));
    // From here on no CPU publishes or withdraws a description.
    let Some(description) = description::published()? else { return Ok(None) };
    per_cpu::of(per_cpu::this_cpu()).stopped.store(ptr::from_ref(frame).cast_mut(), Ordering::Release);
    description.write_notes();
    let started = cpu::counter();
    description.check()?;
    let ticks = cpu::ticks_since(started);
    let stopped = others.iter().filter(|&number| has_gone(number)).count();
    Ok(Some(Ready { description, stopped, running: others.len() - stopped, ticks }))
}

/// Enters the crash kernel from the CPU that ends the kernel, whose registers are in `frame`.
/// Returns if none waits, or if it has changed since it was loaded.
pub fn enter(frame: &Frame) {
    match ready(frame) {
        Ok(None) => {}
        Err(Changed(what)) => {
            say!("the crash kernel's {what} has changed since it was loaded: it is not entered");
            report!("error=verify when=before what={}", Quoted(what));
        }
        Ok(Some(ready)) => {
            let Description { entry, dtb, el, .. } = *ready.description;
            report!("phase=kexec-verify when=before ticks={}", ready.ticks);
            report!(
                "state=crash-kexec cpu={} stopped={} running={} entry={entry} dtb={dtb} el={el}",
                per_cpu::this_cpu(),
                ready.stopped,
                ready.running,
            );
            ready.go();
        }
    }
}

/// Enters the crash kernel like [`enter`], but prints nothing.
pub fn enter_silently(frame: &Frame) {
    if let Ok(Some(ready)) = ready(frame) {
        ready.go();
    }
}

impl Ready {
    fn go(self) -> ! {
        let departure = &self.description.departure;
        // The next kernel may start the other CPUs at once, so they must be off. A CPU reports that
        // it has stopped a moment before it is off.
        let me = per_cpu::this_cpu();
        let numbers = per_cpu::known().map(|(number, _)| number);
        let others = numbers.filter(|&number| number != me && stop::has_stopped(number));
        wait_until(patience_with(others.clone().count()), || others.clone().all(leave::is_off));
        leave::drain_interrupts();
        // Whatever this CPU was doing: TTBR0 goes to the reserved table, and none of its
        // translations stays cached.
        let nothing = departure.reserved.ttbr0;
        // Granule and descriptor format are the kernel's all the time.
        let tcr = tcr_with_t0sz(cpu::tcr(), identity()).unwrap_or(departure.reserved.tcr);
        // SAFETY: the kernel runs in TTBR1's half, and its own T0SZ goes with the empty table.
        unsafe { Reserved { ttbr0: nothing, tcr }.restore(&mut ThisCpu) };
        // SAFETY: the load has written and cleaned code and orders, and they are unchanged. Their
        // list is empty, so that nothing is moved, whatever the other CPUs do. The MMU is turned
        // off in the image's identity map. Interrupts are masked.
        unsafe { departure.go(&mut ThisCpu, 0) }
    }
}
