//! Parking: what this kernel provides to `linmap_park`.
//!
//! The CPUs that wait spin in the identity map with TTBR1 on the reserved table. The boot CPU,
//! which edits, runs on the [surgery root](crate::memory::surgery).

use linmap::{ParkError, Pause};
use linmap_park::{Cpus, IdentitySwitch, Rendezvous, SwitchValues, WayOff, vectors};
use linmap_table::Reserved;
use linmap_table::cpu::store_valid;
use linmap_vmsa::{Attributes, Descriptor, Pa, Va};

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::geometry::identity;
use crate::arch::identity_map::IdentityMap;
use crate::arch::image::Image;
use crate::arch::layout::{GRANULE, MAX_CPUS};
use crate::arch::per_cpu::{self, State};
use crate::arch::wait::{patience_with, wait_until};
use crate::gic::interrupt::interrupt;
use crate::gic::sgi::Sgi;

static PARKING: Rendezvous<IdentitySwitch, MAX_CPUS> = Rendezvous::new(IdentitySwitch::new());

/// The bytes of a page of the identity map.
const PAGE: usize = GRANULE.bytes() as usize;

const _: () = {
    type Words = Rendezvous<IdentitySwitch, MAX_CPUS>;
    assert!(size_of::<Words>() == align_of::<Words>(), "the words never cross the end of a page");
    assert!(size_of::<Words>() <= PAGE, "one page has all of them");
};

/// Prepares the identity map for parking. Called once, before other CPUs are started.
pub fn prepare(image: Image, reserved: Reserved) {
    let mut cpu = ThisCpu;
    let identity_map = identity_map(image);
    for (pa, attributes) in identity_pages(image) {
        let descriptor = Descriptor::page(identity(), pa, attributes);
        // SAFETY: the boot CPU is alone, and this alone changes the identity map: to map the
        // vectors and the words of parked CPUs. A large page may hold the vectors and
        // `.idmap.text`: then the entry is the same already. Nothing else was mapped there.
        unsafe {
            let entry = identity_map.entry(Va(pa.0)).expect("both pages are in the identity map");
            if entry.read_volatile() != descriptor.0 {
                store_valid(&mut cpu, entry, descriptor);
            }
        }
    }
    let values = SwitchValues {
        live: image.ttbr(image.swapper()),
        nothing: reserved.ttbr0,
        identity: image.ttbr(image.identity_map()),
        image_offset: image.offset(),
    };
    // SAFETY: these are the kernel's own roots. The identity map has the page of `.idmap.text`, and
    // the pages of vectors and words since just now.
    unsafe { PARKING.switch().set(values) };
}

/// The early identity map with what parking needs there. The vectors share the table of the code
/// (kernel.ld), the words may lie in another one.
pub fn identity_map(image: Image) -> IdentityMap {
    let [_, (words, _)] = identity_pages(image);
    IdentityMap::new(image, words)
}

/// The pages that parking needs in the identity map, with their attributes.
pub fn identity_pages(image: Image) -> [(Pa, Attributes); 2] {
    let page = |va: Va| Pa(va.0.wrapping_sub(image.offset()) & !(PAGE as u64 - 1));
    [
        (page(vectors()), Attributes::KERNEL_TEXT),
        (page(Va(PARKING.address() as u64)), Attributes::KERNEL_DATA),
    ]
}

/// All CPUs but the boot CPU, as it sees them.
struct OtherCpus;

impl Cpus for OtherCpus {
    fn others(&self) -> impl Iterator<Item = usize> + Clone {
        per_cpu::others().iter()
    }

    fn in_transit(&self) -> impl Iterator<Item = usize> {
        let in_transit = |state| !matches!(state, State::Off | State::Uncalled | State::Online);
        per_cpu::known().filter(move |(_, cpu)| in_transit(cpu.state())).map(|(number, _)| number)
    }

    fn interrupt(&self, cpus: impl Iterator<Item = usize>) {
        let mut cpus = cpus.peekable();
        if cpus.peek().is_some() {
            interrupt(Sgi::Park, cpus.collect());
        }
    }

    fn wait_until(&self, parked: impl FnMut() -> bool) -> bool {
        wait_until(patience_with(per_cpu::known_count()), parked)
    }

    fn ticks(&self) -> u64 {
        cpu::counter()
    }
}

/// Parks this CPU, which was interrupted to do so. Interrupts are masked.
pub fn interrupted() {
    // SAFETY: an interrupt handler runs masked; TTBR0 of a CPU that runs holds the reserved table;
    // the live root has the handler's stack and code.
    unsafe { PARKING.answer(per_cpu::this_cpu()) };
}

/// Takes this CPU off the live root for good. `way` says what it does then. Interrupts are masked.
pub fn for_good(way: WayOff) -> ! {
    // SAFETY: interrupts are masked wherever a CPU decides to leave, and TTBR0 holds the reserved
    // table.
    unsafe { PARKING.leave_for_good(per_cpu::this_cpu(), way) }
}

/// Notes that the CPU `number`, which does not run yet, may come to the live root from now on.
pub fn expect(number: usize) {
    PARKING.expect(number);
}

/// Notes that the CPU `number` can't come to the live root any more.
///
/// # Safety
/// It is so, until [`expect`] says otherwise: the CPU is off, or where no table is walked.
pub unsafe fn forget(number: usize) {
    // SAFETY: the caller's.
    unsafe { PARKING.has_left(number) };
}

/// Whether the CPU `number` has left the live root for good.
pub fn is_away(number: usize) -> bool {
    PARKING.is_away(number)
}

/// Runs `edit` on the root with the TTBR1 value `surgery` while all other CPUs are parked.
///
/// # Errors
/// [`ParkError`] when a CPU does not park; `edit` is not run then.
///
/// # Safety
/// This is the boot CPU, with interrupts masked and its stack in the image; the root maps the
/// image, and all that `edit` accesses.
pub unsafe fn all<R>(surgery: u64, edit: impl FnOnce() -> R) -> Result<(R, Pause), ParkError> {
    // SAFETY: the kernel's states name every CPU that may run on the live root; the rest is the
    // caller's.
    unsafe { PARKING.edit_parked(&OtherCpus, surgery, edit) }
}

/// Returns how long it took until all had parked, in all rendezvous so far, in ticks of the virtual
/// counter.
pub fn waited() -> u64 {
    PARKING.waited()
}

/// Releases the CPUs that parked, because the boot CPU, which calls this, stops. Does nothing
/// during an edit, since no CPU can return then.
pub fn abandon() {
    // SAFETY: only the boot CPU edits, and it is the one that calls this.
    unsafe { PARKING.abandon() };
}
