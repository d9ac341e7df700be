//! The instructions that are the same in every regime: stores, barriers, cache maintenance.

use core::arch::asm;

use linmap_table::cpu::Dsb;
use linmap_vmsa::Va;

// The asm blocks of this crate are compiler barriers too (no `nomem`): the compiler moves no store
// to a table across them.

/// Executes one instruction without operands that changes neither memory nor registers of Rust
/// code: a barrier or an invalidation.
macro_rules! instruct {
    ($text:literal) => {{
        // SAFETY: barriers order, and invalidating cached translations changes no translation.
        unsafe { core::arch::asm!($text, options(nostack, preserves_flags)) }
    }};
    ($text:literal, $operand:expr) => {{
        let operand: u64 = $operand;
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(concat!($text, ", {}"), in(reg) operand,
                options(nostack, preserves_flags));
        }
    }};
}

/// Writes a system register. A caller of the macro stands in an `unsafe fn` whose contract covers
/// it.
macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the caller's: what the register's new value translates may be relied on.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value,
                options(nostack, preserves_flags));
        }
    }};
}

/// The methods of [`Cpu`](linmap_table::cpu::Cpu) that are the same in every regime.
macro_rules! memory_methods {
    () => {
        type Frames = linmap_table::OffsetWindow;

        /// STR: one volatile store of an aligned word is single-copy atomic (Arm ARM B2.2.1).
        #[inline(always)]
        unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
            // SAFETY: the caller's.
            unsafe { entry.write_volatile(descriptor.0) };
        }

        /// STR or STP: an aligned pair is two single-copy atomic words (Arm ARM B2.2.1).
        #[inline(always)]
        unsafe fn store_run(&mut self, entries: NonNull<u64>, count: usize, first: Descriptor, step: u64) {
            // SAFETY: the caller promises that these are `count` entries, to which no Rust
            // reference leads. `fill` stores each once, as a word or as half of a pair.
            let entries = unsafe {
                core::slice::from_raw_parts_mut(entries.cast::<core::mem::MaybeUninit<u64>>().as_ptr(), count)
            };
            linmap_table::fill(entries, first.0, step);
        }

        /// CAS, or LDAXR and STLXR.
        #[inline(always)]
        unsafe fn compare_exchange(
            &mut self,
            entry: NonNull<u64>,
            expected: Descriptor,
            new: Descriptor,
        ) -> Result<(), Descriptor> {
            // SAFETY: the caller's.
            unsafe { linmap_table::cpu::exchange_entry(entry, expected, new) }
        }

        #[inline(always)]
        unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
            // SAFETY: the caller promises that the address is not 0.
            unsafe { NonNull::new_unchecked(core::ptr::with_exposed_provenance_mut(va.0 as usize)) }
        }

        #[inline(always)]
        unsafe fn frames_at(&mut self, offset: u64) -> linmap_table::OffsetWindow {
            // SAFETY: the caller's contract is the same.
            unsafe { linmap_table::OffsetWindow::new(offset) }
        }

        /// DSB ISHST, DSB ISH or DSB NSH.
        #[inline(always)]
        fn dsb(&mut self, dsb: Dsb) {
            $crate::memory::dsb(dsb);
        }

        /// ISB.
        #[inline(always)]
        fn isb(&mut self) {
            instruct!("isb");
        }

        /// DC CIVAC for each line, then DSB SY.
        unsafe fn clean_and_invalidate(&mut self, va: Va, len: u64) {
            // SAFETY: the caller's contract is the same.
            unsafe { $crate::memory::clean_and_invalidate(va, len) };
        }
    };
}

pub(crate) use {instruct, memory_methods, write_register};

#[inline(always)]
pub(crate) fn dsb(dsb: Dsb) {
    match dsb {
        Dsb::Ishst => instruct!("dsb ishst"),
        Dsb::Ish => instruct!("dsb ish"),
        Dsb::Nsh => instruct!("dsb nsh"),
    }
}

/// Cleans and invalidates the data cache lines of `len` bytes from `va` on, to the point of
/// coherency (DC CIVAC), and waits for completion (DSB SY).
///
/// # Safety
/// The range is mapped. No dirty line holds memory that another agent writes past the caches.
pub unsafe fn clean_and_invalidate(va: Va, len: u64) {
    let ctr: u64;
    // SAFETY: reading this register has no effect besides its value.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    // DminLine: log2 of the words in the smallest line.
    let line = 4u64 << (ctr >> 16 & 0xf);
    let within = va.0 & (line - 1);
    let lines = len.saturating_add(within).div_ceil(line);
    for nth in 0..lines {
        let address = (va.0 - within).wrapping_add(nth.wrapping_mul(line));
        // SAFETY: cleaning and invalidating a line of mapped memory changes no memory.
        unsafe { asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) };
    }
    instruct!("dsb sy");
}
