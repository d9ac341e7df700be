//! The first map, made with the MMU off.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use linmap_table::{BumpFrames, DetachedTree, FirstMap, FirstMapError};
use linmap_vmsa::registers::Registers;
use linmap_vmsa::{Attributes, Pa, PaRange, Regime, Va};

use crate::machine::{RAM, UART, end, linked};
use crate::page;

/// What each CPU loads before its MMU is on: MAIR, TCR, TTBR0, bits of SCTLR. In cache lines of its
/// own.
#[repr(C, align(2048))]
struct BootRegisters([AtomicU64; 256]);

#[unsafe(no_mangle)]
static REGISTERS: BootRegisters = BootRegisters([const { AtomicU64::new(0) }; 256]);

/// Called by `entry.S` with the MMU off.
#[unsafe(no_mangle)]
extern "C" fn first_map() {
    let registers = build_map().map(|tree| tree.registers());
    let Ok(Ok(Registers { mair, tcr, ttbr0: Some(ttbr0), sctlr, .. })) = registers else { end(2) };
    let tcr = tcr | page::updates().tcr(Regime::El1And0);
    for (register, value) in REGISTERS.0.iter().zip([mair, tcr, ttbr0, sctlr]) {
        register.store(value, Ordering::Relaxed);
    }
    invalidate(linked::tables());
    let start = Pa(&raw const REGISTERS as u64);
    invalidate(PaRange { start, end: Pa(start.0 + size_of::<BootRegisters>() as u64) });
}

/// All of memory where it is, and one page at [`page::VA`].
fn build_map() -> Result<DetachedTree, FirstMapError> {
    let geometry = page::geometry();
    let mut map = FirstMap::<16>::new(geometry);
    map.identity(RAM, Attributes::KERNEL_DATA)?;
    map.identity(linked::text(), Attributes::KERNEL_TEXT)?;
    // By themselves, so that each is a block and none a contiguous run.
    map.identity(linked::stack(), Attributes::KERNEL_DATA)?;
    map.identity(linked::spare(), Attributes::KERNEL_DATA)?;
    map.identity(UART, Attributes::DEVICE)?;
    map.at(Va(page::VA), page::first_frame(), Attributes::KERNEL_DATA)?;
    // SAFETY: the linker script sets the memory aside, and the MMU is off.
    unsafe { map.build(0, &mut BumpFrames::new(linked::tables(), geometry)) }
}

/// Drops what caches hold of `range`, which was written with the MMU off.
fn invalidate(range: PaRange) {
    let ctr: u64;
    // SAFETY: reading the register has no effect.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    let line = 4 << (ctr >> 16 & 0xf);
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
