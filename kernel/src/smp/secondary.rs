//! What a secondary CPU does: comes, asks whether it may stay, waits for work, leaves. How it gets here is `secondary.S`.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use linmap_park::WayOff;
use linmap_platform::{Affinity, Conduit, EnableMethod as Method};
use linmap_table::Reserved;
use linmap_vmsa::{Pa, Va};
use smccc::psci::AffinityState;
use thiserror::Error;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::percpu::{self, State, wait_until};
use crate::arch::psci::Psci;
use crate::boot::entry::Entered;
use crate::end::fatal;
use crate::gic::controller as gic;
use crate::memory::layout::{IMAGE, MAX_CPUS};
use crate::smp::cross_call::PATIENCE;
use crate::smp::parking;

/// What a CPU needs to know before its MMU is on, and where it says why it can't stay: one page, so that the two are in
/// no line together, and with nothing else.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct BootPage {
    /// How the boot CPU was entered, as `entry.S` numbers it.
    entered: AtomicU64,
    /// The least ID_AA64MMFR0_EL1.PARange that will do.
    pa_range: AtomicU64,
    /// How the CPU that is to come goes off, if it can't stay: a `CONDUIT_`.
    conduit: AtomicU64,
    /// The affinity of the CPU that is to come, all ones for none: who comes uncalled waits until it is called.
    called: AtomicU64,
    /// What TTBR0 holds when it translates nothing; read with the MMU on.
    ttbr0: AtomicU64,
    /// The affinity of the CPU that is asked whether it waits to be called, below the question's number; all ones for none.
    asked: AtomicU64,
    /// 0, or the pen that the CPU which is called goes to instead of coming.
    pen: AtomicU64,
    /// Where it says in the pen that it is there.
    mark: AtomicU64,
    _rest: [u64; 248],
    /// 0, or the affinity of a CPU that can't stay with the reason in bits 63:56. Stored to with the
    /// MMU off, and by the boot CPU, with the MMU on, only while nobody else may store here.
    status: AtomicU64,
    /// The last question that a CPU has answered, as it stood in `asked`. Stored to with the MMU off alone.
    answer: AtomicU64,
    _rest_of_page: [u64; 254],
}

const _: () = {
    assert!(size_of::<BootPage>() == 4096);
    // A cache line, and what is written back with it (CTR_EL0.CWG), has at most 2 KiB.
    assert!(offset_of!(BootPage, status) == 2048);
};

/// The page, which `secondary.S` addresses relative to the PC.
#[unsafe(no_mangle)]
static SECONDARY_BOOT: BootPage = BootPage {
    entered: AtomicU64::new(0),
    pa_range: AtomicU64::new(0),
    conduit: AtomicU64::new(CONDUIT_NONE),
    called: AtomicU64::new(NOBODY),
    ttbr0: AtomicU64::new(0),
    asked: AtomicU64::new(NOBODY),
    pen: AtomicU64::new(0),
    mark: AtomicU64::new(0),
    _rest: [0; 248],
    status: AtomicU64::new(0),
    answer: AtomicU64::new(0),
    _rest_of_page: [0; 254],
};

/// The affinity of each CPU by number, all ones where there is none.
#[unsafe(no_mangle)]
static SECONDARY_AFFINITIES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(NOBODY) }; MAX_CPUS];

/// No CPU's affinity.
const NOBODY: u64 = u64::MAX;

const CONDUIT_NONE: u64 = 0;
/// `secondary.S` calls PSCI by HVC.
pub const CONDUIT_HVC: u64 = 1;
/// `secondary.S` calls PSCI by SMC.
pub const CONDUIT_SMC: u64 = 2;
/// PSCI is not called: the CPU came from a spin table, and waits in `secondary.S` with its MMU off.
pub const CONDUIT_WAIT: u64 = 3;

/// The offsets of [`BootPage`]'s fields, for `secondary.S`.
pub const BOOT_ENTERED: usize = offset_of!(BootPage, entered);
/// See [`BOOT_ENTERED`].
pub const BOOT_PA_RANGE: usize = offset_of!(BootPage, pa_range);
/// See [`BOOT_ENTERED`].
pub const BOOT_CONDUIT: usize = offset_of!(BootPage, conduit);
/// See [`BOOT_ENTERED`].
pub const BOOT_CALLED: usize = offset_of!(BootPage, called);
/// See [`BOOT_ENTERED`].
pub const BOOT_STATUS: usize = offset_of!(BootPage, status);
/// See [`BOOT_ENTERED`].
pub const BOOT_ASKED: usize = offset_of!(BootPage, asked);
/// See [`BOOT_ENTERED`].
pub const BOOT_ANSWER: usize = offset_of!(BootPage, answer);
/// See [`BOOT_ENTERED`].
pub const BOOT_PEN: usize = offset_of!(BootPage, pen);
/// See [`BOOT_ENTERED`].
pub const BOOT_MARK: usize = offset_of!(BootPage, mark);
/// The lowest bit of a question's number, above all affinity fields.
pub const ASKED_NUMBER_AT: u32 = 40;

const _: () = assert!(Affinity::MASK >> ASKED_NUMBER_AT == 0);

/// `secondary.S`: another exception level than the boot CPU's.
pub const REFUSED_LEVEL: u64 = 1;
/// `secondary.S`: no 4K granule.
pub const REFUSED_GRANULE: u64 = 2;
/// `secondary.S`: too few bits of physical address.
pub const REFUSED_PA_RANGE: u64 = 3;

/// `secondary.S`: it heard the call and comes.
pub const COMING: u64 = 0x80;

/// Why a CPU went off before its MMU was on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Unfit {
    /// It was entered at another exception level, or has VHE where the boot CPU has not.
    #[error("it was not entered at the boot CPU's exception level, or only one of the two has VHE")]
    Level,
    /// It lacks the granule of the tables.
    #[error("ID_AA64MMFR0_EL1.TGran4: it has no 4K granule")]
    Granule,
    /// It lacks bits of physical address that are in use.
    #[error("ID_AA64MMFR0_EL1.PARange: physical addresses in use are beyond its reach")]
    PaRange,
}

unsafe extern "C" {
    fn secondary_entry();
    fn secondary_again() -> !;
}

/// Where CPUs are entered, for an image at `image`: a physical address.
pub fn entry(image: Pa) -> Pa {
    Pa(secondary_entry as *const () as u64 - IMAGE.0 + image.0)
}

/// Writes down what every CPU that comes needs: how the boot CPU was `entered`, the encoding of the least PARange, and
/// what TTBR0 holds while it translates nothing.
pub fn publish(entered: Entered, pa_range: u64, ttbr0: u64) {
    let page = &SECONDARY_BOOT;
    page.entered.store(entered.code(), Ordering::Relaxed);
    page.pa_range.store(pa_range, Ordering::Relaxed);
    page.ttbr0.store(ttbr0, Ordering::Relaxed);
    // To memory, where a CPU without MMU reads it; and no line of the status stays, which such a CPU writes.
    cpu::clean_and_invalidate(address(), size_of::<BootPage>() as u64);
}

/// How a CPU that is started by `method` goes off: a `CONDUIT_`.
pub fn way_off(method: Method, psci: Option<Psci>) -> u64 {
    match method {
        Method::SpinTable { .. } => CONDUIT_WAIT,
        Method::Psci | Method::Unknown => conduit(psci),
    }
}

/// How assembly calls `psci`: a `CONDUIT_`.
pub fn conduit(psci: Option<Psci>) -> u64 {
    match psci {
        None => CONDUIT_NONE,
        Some(Psci(Conduit::Hvc)) => CONDUIT_HVC,
        Some(Psci(Conduit::Smc)) => CONDUIT_SMC,
    }
}

fn address() -> Va {
    Va((&raw const SECONDARY_BOOT).expose_provenance() as u64)
}

/// Gives the number `number` to the CPU at `affinity`. The boot CPU's is known to it.
pub fn name(number: usize, affinity: Affinity) {
    SECONDARY_AFFINITIES[number].store(affinity.bits(), Ordering::Release);
    percpu::introduce(number);
}

/// The affinity of the CPU `number`.
pub fn affinity_of(number: usize) -> Affinity {
    Affinity::of_mpidr(SECONDARY_AFFINITIES[number].load(Ordering::Acquire))
}

/// Whether PSCI says that the CPU `number` is off; `true` for one that goes elsewhere.
pub fn is_off(number: usize) -> bool {
    let psci = match percpu::of(number).conduit.load(Ordering::Acquire) {
        CONDUIT_HVC => Psci(Conduit::Hvc),
        CONDUIT_SMC => Psci(Conduit::Smc),
        _ => return true,
    };
    psci.affinity_info(affinity_of(number)) == Ok(AffinityState::Off)
}

/// Lets the CPU at `affinity` come, and no other; `conduit` says how it goes off if it can't stay. Why the last one went
/// off before its MMU was on is forgotten.
pub fn call(affinity: Affinity, conduit: u64) {
    SECONDARY_BOOT.conduit.store(conduit, Ordering::Relaxed);
    call_to(affinity, 0, 0);
}

/// Sends the CPU at `affinity`, which waits to be called, to the pen that is entered at `pen`, with its mark.
pub fn send_to_pen(affinity: Affinity, pen: Pa, mark: Pa) {
    call_to(affinity, pen.0, mark.0);
}

fn call_to(affinity: Affinity, pen: u64, mark: u64) {
    let page = &SECONDARY_BOOT;
    page.pen.store(pen, Ordering::Relaxed);
    page.mark.store(mark, Ordering::Relaxed);
    cpu::clean_and_invalidate(address(), BOOT_STATUS as u64);
    // No CPU is called and none is asked at this moment, so that nobody stores to the line past the caches.
    page.status.store(0, Ordering::Relaxed);
    cpu::clean_and_invalidate(Va(address().0 + BOOT_STATUS as u64), size_of::<u64>() as u64);
    set_called(affinity.bits());
}

/// Whether the CPU at `affinity` waits to be called, where its MMU is off and it runs no code but a few instructions of the
/// image's. What it does otherwise it has to have ended within [`PATIENCE`].
pub fn is_waiting(affinity: Affinity) -> bool {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
    let question = number << ASKED_NUMBER_AT | affinity.bits();
    set_asked(question);
    let answered = wait_until(PATIENCE, || {
        cpu::invalidate_word(Va(address().0 + BOOT_ANSWER as u64));
        SECONDARY_BOOT.answer.load(Ordering::Relaxed) == question
    });
    set_asked(NOBODY);
    answered
}

fn set_asked(asked: u64) {
    SECONDARY_BOOT.asked.store(asked, Ordering::Relaxed);
    cpu::clean_and_invalidate(Va(address().0 + BOOT_ASKED as u64), size_of::<u64>() as u64);
    cpu::send_event();
}

/// Lets no CPU come from now on. One that has passed already still comes.
pub fn call_nobody() {
    set_called(NOBODY);
}

fn set_called(called: u64) {
    SECONDARY_BOOT.called.store(called, Ordering::Relaxed);
    // To memory, where CPUs without MMU look, and then the event that makes them look.
    cpu::clean_and_invalidate(Va(address().0 + BOOT_CALLED as u64), size_of::<u64>() as u64);
    cpu::send_event();
}

/// Why the CPU at `affinity` went off before its MMU was on, if it was the last that did.
pub fn unfit(affinity: Affinity) -> Option<Unfit> {
    cpu::invalidate_word(Va(address().0 + BOOT_STATUS as u64));
    let status = SECONDARY_BOOT.status.load(Ordering::Relaxed);
    if Affinity::of_mpidr(status) != affinity {
        return None;
    }
    match status >> 56 {
        REFUSED_LEVEL => Some(Unfit::Level),
        REFUSED_GRANULE => Some(Unfit::Granule),
        REFUSED_PA_RANGE => Some(Unfit::PaRange),
        _ => None,
    }
}

/// Whether the CPU at `affinity` heard the last call before it was taken back by [`call_nobody`]. If not, it waits for the next one
/// without a table.
pub fn is_coming(affinity: Affinity) -> bool {
    cpu::invalidate_word(Va(address().0 + BOOT_STATUS as u64));
    let status = SECONDARY_BOOT.status.load(Ordering::Relaxed);
    status != 0 && Affinity::of_mpidr(status) == affinity
}

/// Entered from `secondary.S`, MMU and caches on, at the link address, on this CPU's own stacks.
#[unsafe(no_mangle)]
extern "C" fn secondary_main() -> ! {
    // T0SZ is the kernel's already; the PA size is this CPU's own.
    let reserved = Reserved { ttbr0: SECONDARY_BOOT.ttbr0.load(Ordering::Acquire), tcr: cpu::tcr() };
    reserved.restore(&mut ThisCpu);
    let me = percpu::of(percpu::this_cpu());
    for (word, value) in me.id.iter().zip([cpu::midr(), cpu::mmfr0(), cpu::mmfr2(), cpu::isar0()]) {
        word.store(value, Ordering::Relaxed);
    }
    if !me.change_state(State::Starting, State::Arrived) {
        // It was given up: its state is not its own any more.
        off();
    }
    loop {
        match me.state() {
            State::Arrived => core::hint::spin_loop(),
            State::Admitted => break,
            _ => leave_early(),
        }
        fatal::stop_if_elsewhere();
    }
    if !gic::start_this_cpu() {
        leave_early();
    }
    if !me.change_state(State::Admitted, State::Online) {
        off();
    }
    // One that met its end just before has told those that were online.
    fence(Ordering::SeqCst);
    fatal::stop_if_elsewhere();
    loop {
        // An interrupt that comes between the look and the wait is pending and ends the wait.
        if me.working.load(Ordering::Acquire) == 0 {
            cpu::wait_for_interrupt();
            cpu::take_interrupts();
            continue;
        }
        cpu::unmask_interrupts();
        me.work.run();
        cpu::mask_interrupts();
        me.working.store(0, Ordering::Release);
    }
}

/// Switches this CPU off, which takes interrupts, and says before that it does.
pub fn leave() -> ! {
    fatal::leave_others();
    off()
}

/// The same before this CPU takes interrupts: its interface of the GIC may not even be there.
fn leave_early() -> ! {
    percpu::of(percpu::this_cpu()).set_state(State::Leaving);
    off()
}

/// Leaves the live tables and switches this CPU off, or waits with its MMU off if it came from a spin table, or stops it
/// where nobody can do either. Interrupts are masked.
pub fn off() -> ! {
    let way = match percpu::of(percpu::this_cpu()).conduit.load(Ordering::Acquire) {
        CONDUIT_HVC => WayOff::PsciHvc,
        CONDUIT_SMC => WayOff::PsciSmc,
        CONDUIT_WAIT => WayOff::Code(secondary_again),
        _ => WayOff::Stay,
    };
    parking::for_good(way)
}
