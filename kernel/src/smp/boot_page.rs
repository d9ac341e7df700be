//! The page through which the boot CPU and a CPU whose MMU is off exchange messages. `secondary.S`
//! is the code of the other CPU.
//!
//! The boot CPU cleans what it writes to the point of coherency. A CPU without MMU writes past the
//! caches, so the boot CPU drops its cached copy before it reads. The two directions are in
//! different cache lines.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use linmap_platform::Affinity;
use linmap_table::Reserved;
use linmap_vmsa::{Granule, MemoryType, Pa, Va};
use thiserror::Error;

use crate::arch::affinities::NOBODY;
use crate::arch::cpu;
use crate::arch::entered::Entered;
use crate::arch::layout::GRANULE;
use crate::arch::psci::CONDUIT_NONE;
use crate::arch::wait::{PATIENCE, wait_until};

/// What a CPU needs to know before its MMU is on, and the words in which it reports why it can't
/// stay. The page holds nothing else.
#[derive(Debug)]
#[repr(C, align(4096))]
struct BootPage {
    /// How the boot CPU was entered, in the codes of `entry.S`.
    entered: AtomicU64,
    /// The least ID_AA64MMFR0_EL1.PARange that is sufficient.
    pa_range: AtomicU64,
    /// How the called CPU leaves if it can't stay: a `CONDUIT_`.
    conduit: AtomicU64,
    /// The affinity of the called CPU, [`NOBODY`] for none. A CPU that arrives without a call waits
    /// until it is called.
    called: AtomicU64,
    /// The value of TTBR0 while it translates nothing. It is read with the MMU on.
    ttbr0: AtomicU64,
    /// The affinity of the CPU that is asked whether it waits to be called, below the question's
    /// number. [`NOBODY`] for none.
    asked: AtomicU64,
    /// 0, or the entry of the pen to which the called CPU goes instead of arriving here.
    pen: AtomicU64,
    /// Its mark in the pen, where it says that it is there.
    mark: AtomicU64,
    /// VA − PA of the image.
    image_offset: AtomicU64,
    /// TCR, with the most bits of physical address that any CPU uses.
    tcr: AtomicU64,
    /// The least MTE field of ID_AA64PFR1_EL1: 2 where memory has tags.
    mte: AtomicU64,
    _rest: [u64; 245],
    /// 0, or the affinity of a CPU with its message in bits 63:56: a `REFUSED_` or [`COMING`].
    /// Written with the MMU off; the boot CPU writes it with the MMU on, only while no other CPU
    /// may.
    status: AtomicU64,
    /// The last question that a CPU has answered, a copy of `asked`. Only written with the MMU off.
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
    image_offset: AtomicU64::new(0),
    tcr: AtomicU64::new(0),
    mte: AtomicU64::new(0),
    _rest: [0; 245],
    status: AtomicU64::new(0),
    answer: AtomicU64::new(0),
    _rest_of_page: [0; 254],
};

/// The offset of `entered` in the page, for `secondary.S`.
pub const ENTERED: usize = offset_of!(BootPage, entered);
/// The offset of `pa_range`.
pub const PA_RANGE: usize = offset_of!(BootPage, pa_range);
/// The offset of `conduit`.
pub const CONDUIT: usize = offset_of!(BootPage, conduit);
/// The offset of `called`.
pub const CALLED: usize = offset_of!(BootPage, called);
/// The offset of `status`.
pub const STATUS: usize = offset_of!(BootPage, status);
/// The offset of `asked`.
pub const ASKED: usize = offset_of!(BootPage, asked);
/// The offset of `answer`.
pub const ANSWER: usize = offset_of!(BootPage, answer);
/// The offset of `pen`.
pub const PEN: usize = offset_of!(BootPage, pen);
/// The offset of `mark`.
pub const MARK: usize = offset_of!(BootPage, mark);
/// The offset of `image_offset`.
pub const IMAGE_OFFSET: usize = offset_of!(BootPage, image_offset);
/// The offset of `tcr`.
pub const TCR: usize = offset_of!(BootPage, tcr);
/// The offset of `mte`.
pub const MTE: usize = offset_of!(BootPage, mte);
/// The lowest bit of a question's number, above all affinity fields.
pub const ASKED_NUMBER_AT: u32 = 40;

const _: () = assert!(Affinity::MASK >> ASKED_NUMBER_AT == 0);

/// Status: the CPU was entered at another exception level than the boot CPU.
pub const REFUSED_LEVEL: u64 = 1;
/// Status: the CPU lacks the granule.
pub const REFUSED_GRANULE: u64 = 2;
/// Status: the CPU has too few bits of physical address.
pub const REFUSED_PA_RANGE: u64 = 3;
/// Status: the CPU lacks the VA size or the descriptor format of the tables.
pub const REFUSED_VA_SIZE: u64 = 4;
/// Status: the CPU has no memory with allocation tags, and memory is mapped as such.
pub const REFUSED_MTE: u64 = 5;
/// Status: the CPU has seen the call and arrives.
pub const COMING: u64 = 0x80;

/// Why a CPU left before its MMU was on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Unfit {
    /// It was entered at another exception level, or only one of the two CPUs has VHE.
    #[error("it was not entered at the boot CPU's exception level, or only one of the two has VHE")]
    Level,
    /// It lacks the granule of the tables.
    #[error("ID_AA64MMFR0_EL1: it lacks the {}K granule", GRANULE.bytes() >> 10)]
    Granule,
    /// It lacks the VA size or the descriptor format of the tables.
    #[error("{}: it lacks the 52-bit addresses that the system uses", match GRANULE {
        Granule::K4 => "ID_AA64MMFR0_EL1.TGran4",
        Granule::K16 => "ID_AA64MMFR0_EL1.TGran16",
        Granule::K64 => "ID_AA64MMFR2_EL1.VARange",
    })]
    VaSize,
    /// It lacks memory with allocation tags.
    #[error("ID_AA64PFR1_EL1.MTE: memory is mapped with allocation tags, which it does not have")]
    Mte,
    /// It lacks bits of physical address that are in use.
    #[error("ID_AA64MMFR0_EL1.PARange: physical addresses in use are beyond its reach")]
    PaRange,
}

/// Writes what every CPU that starts needs: how the boot CPU was `entered`, the encoding of the
/// least PARange, the boot CPU's values of TTBR0 and TCR, VA − PA of the image, and the type of
/// memory.
pub fn publish(entered: Entered, pa_range: u64, reserved: Reserved, image_offset: u64, memory: MemoryType) {
    let page = &SECONDARY_BOOT;
    page.entered.store(entered.code(), Ordering::Relaxed);
    page.pa_range.store(pa_range, Ordering::Relaxed);
    page.ttbr0.store(reserved.ttbr0, Ordering::Relaxed);
    page.tcr.store(reserved.tcr, Ordering::Relaxed);
    page.image_offset.store(image_offset, Ordering::Relaxed);
    page.mte.store(if memory == MemoryType::NormalTagged { 2 } else { 0 }, Ordering::Relaxed);
    // This also drops the line of the status, which CPUs without MMU write.
    cpu::clean_and_invalidate(address(0), size_of::<BootPage>() as u64);
}

/// The value of TTBR0 while it translates nothing.
pub fn reserved_ttbr0() -> u64 {
    SECONDARY_BOOT.ttbr0.load(Ordering::Acquire)
}

/// Calls the CPU at `affinity`, and no other. `conduit` says how it leaves if it can't stay. Clears
/// the status of the previous CPU.
pub fn call(affinity: Affinity, conduit: u64) {
    SECONDARY_BOOT.conduit.store(conduit, Ordering::Relaxed);
    call_to(affinity, 0, 0);
}

/// Sends the CPU at `affinity`, which waits to be called, to the pen that is entered at `pen`, with
/// its mark.
pub fn call_to_pen(affinity: Affinity, pen: Pa, mark: Pa) {
    call_to(affinity, pen.0, mark.0);
}

fn call_to(affinity: Affinity, pen: u64, mark: u64) {
    let page = &SECONDARY_BOOT;
    page.pen.store(pen, Ordering::Relaxed);
    page.mark.store(mark, Ordering::Relaxed);
    cpu::clean_and_invalidate(address(0), STATUS as u64);
    // At this moment no CPU is called or asked, so no CPU writes the line past the caches.
    page.status.store(0, Ordering::Relaxed);
    cpu::clean_and_invalidate(address(STATUS), size_of::<u64>() as u64);
    set_called(affinity.bits());
}

/// Ends the call. A CPU that has heard it already still arrives.
pub fn call_nobody() {
    set_called(NOBODY);
}

fn set_called(called: u64) {
    SECONDARY_BOOT.called.store(called, Ordering::Relaxed);
    // First to memory, where CPUs without MMU look, then the event that makes them look.
    cpu::clean_and_invalidate(address(CALLED), size_of::<u64>() as u64);
    cpu::send_event();
}

/// Asks the CPU at `affinity` whether it waits to be called: with its MMU off, in a few
/// instructions of the image. Returns `false` if it does not answer within [`PATIENCE`].
pub fn is_waiting(affinity: Affinity) -> bool {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
    let question = number << ASKED_NUMBER_AT | affinity.bits();
    set_asked(question);
    let answered = wait_until(PATIENCE, || {
        cpu::invalidate_word(address(ANSWER));
        SECONDARY_BOOT.answer.load(Ordering::Relaxed) == question
    });
    set_asked(NOBODY);
    answered
}

fn set_asked(asked: u64) {
    SECONDARY_BOOT.asked.store(asked, Ordering::Relaxed);
    cpu::clean_and_invalidate(address(ASKED), size_of::<u64>() as u64);
    cpu::send_event();
}

fn status() -> u64 {
    cpu::invalidate_word(address(STATUS));
    SECONDARY_BOOT.status.load(Ordering::Relaxed)
}

/// Why the CPU at `affinity` left before its MMU was on, if it was the last CPU that did.
pub fn unfit(affinity: Affinity) -> Option<Unfit> {
    let status = status();
    if Affinity::of_mpidr(status) != affinity {
        return None;
    }
    match status >> 56 {
        REFUSED_LEVEL => Some(Unfit::Level),
        REFUSED_GRANULE => Some(Unfit::Granule),
        REFUSED_PA_RANGE => Some(Unfit::PaRange),
        REFUSED_VA_SIZE => Some(Unfit::VaSize),
        REFUSED_MTE => Some(Unfit::Mte),
        _ => None,
    }
}

/// Whether the CPU at `affinity` heard the last call before [`call_nobody`] ended it. Otherwise it
/// waits for the next call, with its MMU off.
pub fn is_coming(affinity: Affinity) -> bool {
    let status = status();
    status != 0 && Affinity::of_mpidr(status) == affinity
}

fn address(offset: usize) -> Va {
    Va((&raw const SECONDARY_BOOT).expose_provenance() as u64 + offset as u64)
}
