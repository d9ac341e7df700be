//! The CPU's instructions: barriers, invalidations, system registers, cache maintenance, address
//! translation.

use core::arch::asm;

use linmap_vmsa::{Pa, Va};

use crate::arch::layout::GRANULE;

/// Reads a system register.
macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading this register has no effect besides its value.
        unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }};
}

/// The CPU this code runs on. At EL2 the kernel sets E2H and TGE, so that the instructions of EL1&0
/// mean its own regime there too.
pub use linmap_cpu::El1And0 as ThisCpu;

/// MIDR_EL1.
pub fn midr() -> u64 {
    read_register!("midr_el1")
}

/// ID_AA64MMFR0_EL1.
pub fn mmfr0() -> u64 {
    read_register!("id_aa64mmfr0_el1")
}

/// ID_AA64PFR1_EL1.
pub fn pfr1() -> u64 {
    read_register!("id_aa64pfr1_el1")
}

/// ID_AA64MMFR2_EL1.
pub fn mmfr2() -> u64 {
    read_register!("id_aa64mmfr2_el1")
}

/// ID_AA64ISAR0_EL1.
pub fn isar0() -> u64 {
    read_register!("id_aa64isar0_el1")
}

/// ID_AA64PFR0_EL1.
pub fn pfr0() -> u64 {
    read_register!("id_aa64pfr0_el1")
}

/// Whether the CPU has vector registers (ID_AA64PFR0_EL1.AdvSIMD, signed: 0b1111 means no).
pub fn has_vectors() -> bool {
    pfr0() >> 20 & 0xf != 0xf
}

/// Lets this CPU use its vector registers: CPACR_EL1.FPEN, or CPTR_EL2.FPEN by its E2H name.
pub fn enable_vectors() {
    let value = read_register!("cpacr_el1") | 0b11 << 20;
    // SAFETY: only code that names vector registers uses them, and the exception handlers do not.
    unsafe { asm!("msr cpacr_el1, {}", "isb", in(reg) value, options(nostack, preserves_flags)) };
}

/// A random number from the CPU, if ID_AA64ISAR0_EL1.RNDR says that it has a generator. `None` also
/// when the generator has no number at the moment.
pub fn random() -> Option<u64> {
    if isar0() >> 60 == 0 {
        return None;
    }
    let (value, made): (u64, u64);
    // SAFETY: RNDR, by its encoding, is there; reading it has no effect but on the flags.
    unsafe {
        asm!("mrs {}, S3_3_C2_C4_0", "cset {}, ne", out(reg) value, out(reg) made, options(nomem, nostack));
    };
    (made != 0).then_some(value)
}

/// MPIDR_EL1.
pub fn mpidr() -> u64 {
    read_register!("mpidr_el1")
}

/// TPIDR_EL0, which the kernel itself does not use.
pub fn thread_id() -> u64 {
    read_register!("tpidr_el0")
}

/// TCR_EL1 as it is now.
pub fn tcr() -> u64 {
    read_register!("tcr_el1")
}

/// The frequency of [`counter`] in Hz.
pub fn counter_frequency() -> u64 {
    read_register!("cntfrq_el0")
}

/// The ticks of [`counter`] in `milliseconds`. Where the firmware has not set the frequency, the
/// fastest counter's is assumed, so that a wait is too long instead of too short.
pub fn ticks_of_milliseconds(milliseconds: u64) -> u64 {
    const FASTEST: u64 = 1_000_000_000;
    let frequency = match counter_frequency() {
        0 => FASTEST,
        frequency => frequency,
    };
    frequency.saturating_mul(milliseconds) / 1000
}

/// The virtual counter, read after all earlier instructions.
#[inline(always)]
pub fn counter() -> u64 {
    let value: u64;
    // SAFETY: reads a counter; the ISB keeps it from being read early.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nostack, preserves_flags)) };
    value
}

/// Translates `$va` with one of the AT instructions: to its physical address, or the fault status
/// of PAR_EL1 (FST, Arm ARM D24.2).
macro_rules! address_translation {
    ($at:literal, $va:expr) => {{
        let va: Va = $va;
        let par: u64;
        // SAFETY: AT only writes PAR_EL1; the ISB makes the result readable.
        unsafe {
            asm!(concat!("at ", $at, ", {va}"), "isb", "mrs {par}, par_el1",
                va = in(reg) va.0, par = out(reg) par, options(nostack, preserves_flags));
        }
        if par & 1 != 0 {
            Err((par >> 1 & 0x3f) as u8)
        } else {
            // PA[51:12] in place.
            let in_page = GRANULE.bytes() - 1;
            Ok(Pa(par & 0x000f_ffff_ffff_f000 & !in_page | va.0 & in_page))
        }
    }};
}

/// The ticks of [`counter`] since it read `start`. The subtraction wraps, because some CPUs can
/// read the counter a little early.
#[inline(always)]
pub fn ticks_since(start: u64) -> u64 {
    counter().wrapping_sub(start)
}

/// Translates `va` for a read. Returns the physical address, or the fault status.
pub fn translate(va: Va) -> Result<Pa, u8> {
    address_translation!("s1e1r", va)
}

/// Translates `va` for a write. Returns the physical address, or the fault status.
pub fn translate_write(va: Va) -> Result<Pa, u8> {
    address_translation!("s1e1w", va)
}

/// Stores a byte at `va`. Returns the previous one.
///
/// # Safety
/// `va` is mapped, writable. No Rust code relies on the byte: the compiler does not know of the
/// store.
pub unsafe fn exchange_byte(va: Va, value: u8) -> u8 {
    let was: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("ldrb {was:w}, [{va}]", "strb {value:w}, [{va}]", was = out(reg) was, va = in(reg) va.0,
            value = in(reg) u64::from(value), options(nostack, preserves_flags));
    }
    was as u8
}

/// Cleans and invalidates the lines of `len` bytes from `va` to the point of coherency, and waits.
pub fn clean_and_invalidate(va: Va, len: u64) {
    // SAFETY: callers name memory that the kernel maps, and nothing else writes to it uncached.
    unsafe { linmap_cpu::clean_and_invalidate(va, len) };
}

/// Invalidates the line of the word at `va`, so that it is next read from memory. Only for lines
/// that this CPU never writes: a dirty line would be lost.
pub fn invalidate_word(va: Va) {
    // SAFETY: the line is never dirty.
    unsafe { asm!("dc ivac, {}", "dsb sy", in(reg) va.0, options(nostack, preserves_flags)) };
}

/// Orders all earlier stores before later signals to other CPUs: interrupts, events.
pub fn order_stores() {
    // SAFETY: a barrier only orders.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
}

/// Wakes all CPUs that wait for an event, after all earlier stores are complete.
pub fn send_event() {
    // SAFETY: an event only ends waits.
    unsafe { asm!("dsb sy", "sev", options(nostack, preserves_flags)) };
}

/// Takes all pending interrupts, with interrupts masked before and after.
pub fn take_interrupts() {
    // SAFETY: the vectors are set up wherever Rust code runs. The ISB has pending interrupts taken
    // before they are masked again.
    unsafe { asm!("msr daifclr, #2", "isb", "msr daifset, #2", options(nostack)) };
}

/// Unmasks interrupts.
pub fn unmask_interrupts() {
    // SAFETY: the vectors are set up wherever Rust code runs.
    unsafe { asm!("msr daifclr, #2", options(nostack)) };
}

/// Masks interrupts.
pub fn mask_interrupts() {
    // SAFETY: masking interrupts changes nothing else.
    unsafe { asm!("msr daifset, #2", options(nostack)) };
}

/// Waits until an interrupt is pending, masked or not.
pub fn wait_for_interrupt() {
    // SAFETY: only waits; the DSB completes earlier stores.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}

/// DSB ISH: waits until all earlier accesses are complete and visible to the other CPUs.
#[inline(always)]
pub fn barrier() {
    // SAFETY: a barrier only orders.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
}

/// Invalidates the instruction caches of all CPUs.
pub fn invalidate_instructions_everywhere() {
    // SAFETY: invalidating cached instructions changes none.
    unsafe { asm!("ic ialluis", "dsb ish", "isb", options(nostack, preserves_flags)) };
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    // SAFETY: masking interrupts changes nothing else.
    unsafe { asm!("msr daifset, #0xf", options(nostack)) };
    loop {
        wait_for_interrupt();
    }
}
