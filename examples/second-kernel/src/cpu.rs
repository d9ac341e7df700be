//! The CPU's instructions.

use core::arch::asm;
use core::ptr::{self, NonNull};

use linmap_table::OffsetWindow;
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_vmsa::{Descriptor, Va};

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
