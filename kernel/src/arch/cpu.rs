//! The CPU's instructions: barriers, invalidations, system registers, cache maintenance, address
//! translation.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::slice;

use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{OffsetWindow, fill};
use linmap_vmsa::{Descriptor, Pa, Va};

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

/// The CPU this code runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisCpu;

// The asm blocks of this impl are compiler barriers too (no `nomem`): the compiler moves no store
// to a table across them.
// SAFETY: each function is the instruction that it is named for.
unsafe impl Cpu for ThisCpu {
    type Frames = OffsetWindow;

    #[inline(always)]
    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        // SAFETY: the caller's promise; one volatile store of an aligned word is one single-copy
        // atomic store.
        unsafe { entry.write_volatile(descriptor.0) };
    }

    #[inline(always)]
    unsafe fn store_run(&mut self, entries: NonNull<u64>, count: usize, first: Descriptor, step: u64) {
        // SAFETY: the caller promises that these are `count` entries, to which no Rust reference
        // leads. `fill` stores each once, as an aligned word or as half of a pair; both are
        // single-copy atomic (Arm ARM B2.2.1).
        let entries =
            unsafe { slice::from_raw_parts_mut(entries.cast::<MaybeUninit<u64>>().as_ptr(), count) };
        fill(entries, first.0, step);
    }

    #[inline(always)]
    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        // SAFETY: the kernel's half of the address space is far from address 0, and so is what
        // callers map elsewhere.
        unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(va.0 as usize)) }
    }

    #[inline(always)]
    unsafe fn frames_at(&mut self, offset: u64) -> OffsetWindow {
        // SAFETY: the caller's contract is the same.
        unsafe { OffsetWindow::new(offset) }
    }

    #[inline(always)]
    fn dsb(&mut self, dsb: Dsb) {
        // SAFETY: a barrier only orders.
        unsafe {
            match dsb {
                Dsb::Ishst => asm!("dsb ishst", options(nostack, preserves_flags)),
                Dsb::Ish => asm!("dsb ish", options(nostack, preserves_flags)),
                Dsb::Nsh => asm!("dsb nsh", options(nostack, preserves_flags)),
            }
        }
    }

    #[inline(always)]
    fn isb(&mut self) {
        // SAFETY: a barrier only orders.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    fn tlbi(&mut self, tlbi: Tlbi) {
        // SAFETY: invalidating cached translations changes no translation.
        unsafe {
            match tlbi {
                Tlbi::ByVa(operand) => {
                    asm!("tlbi vaae1is, {}", in(reg) operand.0, options(nostack, preserves_flags));
                }
                Tlbi::LastLevelByVa(operand) => {
                    asm!("tlbi vaale1is, {}", in(reg) operand.0, options(nostack, preserves_flags));
                }
                // The assembler knows the range forms only with FEAT_TLBIRANGE on: these are
                // RVAAE1IS and RVAALE1IS (Arm ARM C5.5).
                Tlbi::ByRange(operand) => {
                    asm!("sys #0, c8, c2, #3, {}", in(reg) operand.0, options(nostack, preserves_flags));
                }
                Tlbi::LastLevelByRange(operand) => {
                    asm!("sys #0, c8, c2, #7, {}", in(reg) operand.0, options(nostack, preserves_flags));
                }
                Tlbi::All => asm!("tlbi vmalle1is", options(nostack, preserves_flags)),
                Tlbi::AllLocal => asm!("tlbi vmalle1", options(nostack, preserves_flags)),
            }
        }
    }

    #[inline(always)]
    unsafe fn write_ttbr0(&mut self, value: u64) {
        // SAFETY: the kernel reaches none of its code and data through TTBR0. The caller that
        // installs a map there promises for it.
        unsafe { asm!("msr ttbr0_el1, {}", in(reg) value, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn write_ttbr1(&mut self, value: u64) {
        // SAFETY: the caller that installs a root promises that it maps the code that runs.
        unsafe { asm!("msr ttbr1_el1, {}", in(reg) value, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn write_tcr(&mut self, value: u64) {
        // SAFETY: the callers change T0SZ alone, which concerns TTBR0's half only.
        unsafe { asm!("msr tcr_el1, {}", in(reg) value, options(nostack, preserves_flags)) };
    }
}

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
    let line = 4u64 << (read_register!("ctr_el0") >> 16 & 0xf);
    let mut address = va.0 & !(line - 1);
    while address < va.0 + len {
        // SAFETY: cleaning and invalidating a line changes no memory.
        unsafe { asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) };
        address += line;
    }
    // SAFETY: a barrier only orders.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
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
