//! The CPU at EL2: its registers, and how it starts.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use linmap_vmsa::registers::Registers;
use linmap_vmsa::{Pa, PaRange};

use crate::machine::linked;

global_asm!(include_str!("entry.S"));

/// Reads a system register.
macro_rules! mrs {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reading the register has no effect.
        #[allow(unused_unsafe, reason = "some callers are unsafe")]
        unsafe { core::arch::asm!(concat!("mrs {}, ", $register), out(reg) value,
            options(nomem, nostack, preserves_flags)) };
        value
    }};
}
/// Writes a system register, which is unsafe.
macro_rules! msr {
    ($register:literal, $value:expr) => {
        core::arch::asm!(concat!("msr ", $register, ", {}"), in(reg) $value,
            options(nostack, preserves_flags))
    };
}
pub(crate) use {mrs, msr};

/// A field of four bits of an ID register.
pub fn field(register: u64, at: u32) -> u64 {
    register >> at & 0xf
}

/// `bits` if the CPU has what they are for.
pub const fn given(feature: bool, bits: u64) -> u64 {
    if feature { bits } else { 0 }
}

/// Whether EL2 has a user space of its own (FEAT_VHE): this program then runs in EL2&0.
pub fn has_vhe() -> bool {
    field(mrs!("id_aa64mmfr1_el1"), 8) != 0
}

/// The number of this CPU, once it has started.
pub fn number() -> usize {
    mrs!("tpidr_el2") as usize
}

/// HCR_EL2 but for stage 2: EL1 is AArch64 (RW), and its SMC is trapped (TSC). It has the CPU's
/// pointer authentication (APK, API) and allocation tags (ATA). Interrupts are its own: IMO, FMO
/// and AMO stay 0. With VHE, E2H is 1 for good, and TGE, which would take EL1 away, never.
fn hcr() -> u64 {
    let isar1 = mrs!("id_aa64isar1_el1");
    let pointer_authentication = isar1 & 0xff00_0ff0 != 0 || field(mrs!("id_aa64isar2_el1"), 12) != 0;
    let tags = field(mrs!("id_aa64pfr1_el1"), 8) >= 2;
    1 << 31
        | 1 << 19
        | given(pointer_authentication, 0b11 << 40)
        | given(tags, 1 << 56)
        | given(has_vhe(), 1 << 34)
}

/// The time, in ticks.
pub fn now() -> u64 {
    mrs!("cntpct_el0")
}

/// Has what was written to registers in force for the instructions that follow.
pub fn synchronize() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// What `start_cpu` loads, MMU off.
#[repr(C, align(64))]
pub struct Start([AtomicU64; 8]);

impl Start {
    /// Nothing to load yet.
    pub const fn none() -> Self {
        Self([const { AtomicU64::new(0) }; 8])
    }

    /// CPU `number` is to load `registers` and call `main`.
    pub fn set(&self, number: usize, registers: &Registers, main: extern "C" fn() -> !) {
        let values = [
            hcr(),
            registers.mair,
            registers.tcr,
            registers.ttbr0.unwrap_or_default(),
            registers.sctlr,
            linked::stack_end(number),
            number as u64,
            main as usize as u64,
        ];
        for (place, value) in self.0.iter().zip(values) {
            place.store(value, Relaxed);
        }
    }

    /// The same for another CPU, which reads it from memory.
    pub fn set_for(&self, number: usize, of: &Self, main: extern "C" fn() -> !) -> Pa {
        for (place, value) in self.0.iter().zip(&of.0) {
            place.store(value.load(Relaxed), Relaxed);
        }
        self.0[5].store(linked::stack_end(number), Relaxed);
        self.0[6].store(number as u64, Relaxed);
        self.0[7].store(main as usize as u64, Relaxed);
        let at = Pa(&raw const *self as u64);
        clean_and_invalidate(PaRange { start: at, end: Pa(at.0 + 64) });
        at
    }
}

/// Where firmware starts a CPU, with its [`Start`] in x0.
pub fn entry() -> Pa {
    unsafe extern "C" {
        static start_cpu: u8;
    }
    Pa(&raw const start_cpu as u64)
}

/// Writes back and drops what caches hold of `range`, for readers and writers with their MMU off.
pub fn clean_and_invalidate(range: PaRange) {
    let line = 4 << (mrs!("ctr_el0") >> 16 & 0xf);
    for address in (range.start.0..range.end.0).step_by(line) {
        // SAFETY: memory keeps its content.
        unsafe { asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Drops what caches hold of `range`, which was written with the MMU off.
pub fn invalidate(range: PaRange) {
    let line = 4 << (mrs!("ctr_el0") >> 16 & 0xf);
    // Stores with the MMU off are to Device memory, against which DC is not ordered (Arm ARM D7.5).
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    for address in (range.start.0..range.end.0).step_by(line) {
        // SAFETY: memory holds what was stored: no store since the reset went through a cache.
        unsafe { asm!("dc ivac, {}", in(reg) address, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}
