//! Parking: every CPU leaves the live root, so that its tables can be changed in ways that no CPU allows live.
//!
//! The waiters spin in the identity map with TTBR1 on the reserved table; the boot CPU, which edits, goes to the
//! [surgery root](crate::memory::surgery). The routines are
//! `park.S` and, for a CPU that goes off, `leave.S`.

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linmap::live::{ParkError, Pause};
use linmap_table::Reserved;
use linmap_table::cpu::{Cpu, Dsb, store_valid};
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Attributes, Descriptor, Level, Pa, Va};

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::image::{self, Image};
use crate::arch::layout::{GEOMETRY, IMAGE, MAX_CPUS};
use crate::arch::per_cpu::{self, State};
use crate::arch::psci::{CONDUIT_HVC, CONDUIT_SMC, CONDUIT_WAIT};
use crate::arch::wait::{PATIENCE, wait_until};
use crate::gic::interrupt::interrupt;
use crate::gic::sgi::Sgi;

global_asm!(include_str!("park.S"));
global_asm!(
    include_str!("leave.S"),
    conduit_hvc = const CONDUIT_HVC,
    conduit_smc = const CONDUIT_SMC,
    conduit_wait = const CONDUIT_WAIT
);

unsafe extern "C" {
    fn park(
        live: u64,
        nothing: u64,
        identity: u64,
        to: u64,
        vectors: u64,
        request: u64,
        own: u64,
        value: u64,
    );
    fn park_and_wait();
    fn park_and_go_on();
    fn park_for_good();
    static park_vectors: u8;
}

/// The words of the rendezvous, in a page of their own that the identity map has too.
#[repr(C, align(4096))]
struct Page {
    /// Odd while CPUs shall park. Each request has a number of its own, so that nobody takes an old one for a new one.
    request: AtomicU64,
    /// The last request that each CPU has parked for.
    parked: [AtomicU64; MAX_CPUS],
}

static PAGE: Page = Page { request: AtomicU64::new(0), parked: [const { AtomicU64::new(0) }; MAX_CPUS] };

/// What it takes to leave the live root: set once, before there is anyone to park.
struct Ways {
    live: AtomicU64,
    nothing: AtomicU64,
    identity: AtomicU64,
    /// VA − PA of the image.
    image_offset: AtomicU64,
}

static WAYS: Ways = Ways {
    live: AtomicU64::new(0),
    nothing: AtomicU64::new(0),
    identity: AtomicU64::new(0),
    image_offset: AtomicU64::new(0),
};

/// The boot CPU is on the surgery root.
static EDITING: AtomicBool = AtomicBool::new(false);

/// How long CPUs have been waited for until all had parked, in ticks of the virtual counter.
static WAITED: AtomicU64 = AtomicU64::new(0);

/// A CPU's word when it has left the live root for good.
const LEFT: u64 = u64::MAX;

/// Prepares the identity map for parking. To be called once, before other CPUs are started.
pub fn prepare(image: Image, reserved: Reserved) {
    let mut cpu = ThisCpu;
    let offset = IMAGE.0.wrapping_sub(image.range().start.0);
    let page = GEOMETRY.granule().bytes();
    let pages = [
        ((&raw const park_vectors).expose_provenance(), Attributes::KERNEL_TEXT),
        ((&raw const PAGE).expose_provenance(), Attributes::KERNEL_DATA),
    ];
    for (va, attributes) in pages {
        let pa = Pa((va as u64).wrapping_sub(offset) & !(page - 1));
        let descriptor = Descriptor::leaf(GEOMETRY, Level::L3, pa, attributes);
        // SAFETY: the identity map's table of pages has an entry for every page of the image, of which these are the vectors
        // of parked CPUs and their words; nothing else was mapped there.
        unsafe { store_valid(&mut cpu, image::identity_page(Va(pa.0)), descriptor) };
    }
    WAYS.live.store(ttbr(GEOMETRY, image.swapper(), 0), Ordering::Relaxed);
    WAYS.nothing.store(reserved.ttbr0, Ordering::Relaxed);
    WAYS.identity.store(ttbr(GEOMETRY, image.identity_map(), 0), Ordering::Relaxed);
    WAYS.image_offset.store(offset, Ordering::Release);
}

/// Leaves the live root, does what the routine `there` does, and comes back with `to` in TTBR1.
///
/// # Safety
/// Interrupts are masked; TTBR0 holds the reserved table; `to` maps this code, its stack and the vectors as they are.
unsafe fn leave(to: u64, there: unsafe extern "C" fn(), own: &AtomicU64, value: u64) {
    let offset = WAYS.image_offset.load(Ordering::Acquire);
    let physical = |va: usize| (va as u64).wrapping_sub(offset);
    // SAFETY: the identity map has the routine, the vectors and the page of words at their physical addresses; the rest is
    // the caller's.
    unsafe {
        park(
            to,
            WAYS.nothing.load(Ordering::Relaxed),
            WAYS.identity.load(Ordering::Relaxed),
            physical(there as usize),
            physical((&raw const park_vectors).expose_provenance()),
            physical((&raw const PAGE.request).expose_provenance()),
            physical((&raw const *own).expose_provenance()),
            value,
        );
    }
}

/// This CPU was called to park: does so, unless the call was taken back meanwhile. Interrupts are masked.
pub fn interrupted() {
    let request = PAGE.request.load(Ordering::Acquire);
    if request.is_multiple_of(2) {
        return;
    }
    let own = &PAGE.parked[per_cpu::this_cpu()];
    // SAFETY: an interrupt handler runs masked; TTBR0 of a CPU that runs holds the reserved table; the live root has the
    // handler's stack and code, as before.
    unsafe { leave(WAYS.live.load(Ordering::Relaxed), park_and_wait, own, request) };
}

/// Leaves the live root for good and goes off by PSCI, called as `conduit` says, or to where CPUs from a spin table wait.
/// Interrupts are masked.
pub fn for_good(conduit: u64) -> ! {
    let own = &PAGE.parked[per_cpu::this_cpu()];
    // SAFETY: interrupts are masked wherever a CPU decides to go, and TTBR0 holds the reserved table. The routine takes the
    // conduit in place of a root to come back with, because it does not come back.
    unsafe { leave(conduit, park_for_good, own, LEFT) };
    cpu::halt()
}

/// From here on the CPU `number`, which does not run yet, may come to the live root.
pub fn expect(number: usize) {
    PAGE.parked[number].store(0, Ordering::Release);
}

/// The CPU `number` can't come to the live root any more.
pub fn forget(number: usize) {
    PAGE.parked[number].store(LEFT, Ordering::Release);
}

/// A CPU that is not online, and that may all the same be on the live root: on its way in or out, or lost there.
fn astray() -> Option<usize> {
    let on_its_way = |state| !matches!(state, State::Off | State::Uncalled | State::Online);
    per_cpu::known()
        .filter(|(_, cpu)| on_its_way(cpu.state()))
        .map(|(number, _)| number)
        .find(|&number| PAGE.parked[number].load(Ordering::Acquire) != LEFT)
}

/// Runs `edit` on the root `surgery` while all other CPUs are parked.
///
/// # Errors
/// [`ParkError`] when a CPU does not park; `edit` is not run then.
///
/// # Safety
/// This is the boot CPU, with interrupts masked and its stack in the image; `surgery` is the TTBR1 value of a root that maps
/// the image, and all that `edit` touches.
pub unsafe fn all<R>(surgery: u64, edit: impl FnOnce() -> R) -> Result<(R, Pause), ParkError> {
    let started = cpu::counter();
    if let Some(cpu) = astray() {
        return Err(ParkError { cpu, ticks: 0 });
    }
    let request = PAGE.request.load(Ordering::Relaxed) + 1;
    PAGE.request.store(request, Ordering::Release);
    let mut missing = per_cpu::others();
    interrupt(Sgi::Park, missing);
    let parked = wait_until(PATIENCE, || {
        for cpu in missing.iter() {
            if PAGE.parked[cpu].load(Ordering::Acquire) == request {
                missing.remove(cpu);
            }
        }
        missing.is_empty()
    });
    if !parked {
        release(request);
        let cpu = missing.iter().next().unwrap_or_default();
        return Err(ParkError { cpu, ticks: cpu::ticks_since(started) });
    }
    WAITED.fetch_add(cpu::ticks_since(started), Ordering::Relaxed);
    EDITING.store(true, Ordering::Relaxed);
    // SAFETY: the surgery root maps the image as the live one does; the caller vouches for the rest.
    unsafe { leave(surgery, park_and_go_on, &PAGE.request, 0) };
    let result = edit();
    // SAFETY: the live root maps the image.
    unsafe { leave(WAYS.live.load(Ordering::Relaxed), park_and_go_on, &PAGE.request, 0) };
    EDITING.store(false, Ordering::Relaxed);
    release(request);
    Ok((result, Pause { ticks: cpu::ticks_since(started) }))
}

/// How long it took until all had parked, in all rendezvous so far, in ticks of the virtual counter.
pub fn waited() -> u64 {
    WAITED.load(Ordering::Relaxed)
}

/// Another CPU has met its end while this one, the boot CPU, waited for all to park: those that have come back, and stop. While
/// the map is being changed nobody can.
pub fn abandon() {
    let request = PAGE.request.load(Ordering::Relaxed);
    if !request.is_multiple_of(2) && !EDITING.load(Ordering::Relaxed) {
        release(request);
    }
}

/// Lets the waiters go.
fn release(request: u64) {
    PAGE.request.store(request + 1, Ordering::Release);
    // The store, before the event that makes them look.
    ThisCpu.dsb(Dsb::Ish);
    cpu::send_event();
}
