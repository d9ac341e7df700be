//! Tables that are cleared, or copied, and linked. The frame held something else before, which as
//! descriptors are pages of somewhere: whoever links it before a DSB has ordered what replaced that
//! lets walks find it.

use core::arch::asm;

use linmap_vmsa::Level;

use crate::page::{self, Page, VA};

/// What the frame holds before: a page with the attributes of Normal memory.
const BEFORE: u64 = 0x0060_0000_4000_0703;

/// The bytes of a table of pages of 4 KiB.
const LEN: u64 = 0x1000;

/// The frame, with its content before, all of it ordered.
fn used_frame() -> u64 {
    let frame = page::table_frame();
    for nth in 0..LEN / 8 {
        // SAFETY: the frame is ours, and mapped where it is.
        unsafe { (frame as *mut u64).wrapping_add(nth as usize).write_volatile(BEFORE) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    frame
}

/// Links the frame behind the page's table, where nothing was, and then maps a page by it.
#[inline(always)]
fn link(frame: u64, page: &Page) {
    let above = page::entry(VA + 0x20_0000, Level::L2);
    let last = frame + LEN - 8;
    for (entry, value) in [(above as u64, frame | 0b11), (last, page.other)] {
        // SAFETY: nothing is mapped there, and what is mapped then is ours.
        unsafe {
            asm!(
                "str {value}, [{entry}]", "dsb ishst", "isb",
                entry = in(reg) entry, value = in(reg) value, options(nostack, preserves_flags)
            );
        }
    }
}

macro_rules! publish {
    ($(#[$about:meta])* $how:ident, $ordered:ident, $unordered:ident) => {
        $(#[$about])*
        #[inline(never)]
        pub fn $ordered(page: &Page) {
            let frame = used_frame();
            $how(frame);
            // SAFETY: a barrier.
            unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
            link(frame, page);
        }

        /// The same without the DSB.
        #[inline(never)]
        pub fn $unordered(page: &Page) {
            let frame = used_frame();
            $how(frame);
            link(frame, page);
        }
    };
}

publish! {
    /// Clears the frame by DC ZVA.
    zero_by_block, publish_zeroed, publish_zeroed_before_dsb
}
publish! {
    /// Clears it by SETP, SETM and SETE (FEAT_MOPS).
    set, publish_set, publish_set_before_dsb
}
publish! {
    /// Copies another table there by CPYFP, CPYFM and CPYFE (FEAT_MOPS).
    copy, publish_copied, publish_copied_before_dsb
}
publish! {
    /// Clears it by stores of bytes, from its end on, so that its words are descriptors for long.
    zero_by_byte, publish_zeroed_bytes, publish_zeroed_bytes_before_dsb
}

#[inline(always)]
fn zero_by_block(frame: u64) {
    let size: u64;
    // SAFETY: reading the register has no effect.
    unsafe { asm!("mrs {}, dczid_el0", out(reg) size, options(nomem, nostack, preserves_flags)) };
    for block in (frame..frame + LEN).step_by(4 << (size & 0xf)) {
        // SAFETY: the frame is ours, and mapped where it is.
        unsafe { asm!("dc zva, {}", in(reg) block, options(nostack, preserves_flags)) };
    }
}

#[inline(always)]
fn set(frame: u64) {
    // SAFETY: as above.
    unsafe {
        asm!(
            ".arch_extension mops", "setp [{to}]!, {len}!, xzr", "setm [{to}]!, {len}!, xzr",
            "sete [{to}]!, {len}!, xzr",
            to = inout(reg) frame => _, len = inout(reg) LEN => _, options(nostack)
        );
    }
}

#[inline(always)]
fn copy(frame: u64) {
    let table = page::entry(VA, Level::L3) as u64 & !(LEN - 1);
    // SAFETY: as above; the other table is mapped as well.
    unsafe {
        asm!(
            ".arch_extension mops", "cpyfp [{to}]!, [{from}]!, {len}!", "cpyfm [{to}]!, [{from}]!, {len}!",
            "cpyfe [{to}]!, [{from}]!, {len}!",
            to = inout(reg) frame => _, from = inout(reg) table => _, len = inout(reg) LEN => _,
            options(nostack)
        );
    }
}

#[inline(always)]
fn zero_by_byte(frame: u64) {
    for byte in (frame..frame + LEN).rev() {
        // SAFETY: as above.
        unsafe { (byte as *mut u8).write_volatile(0) };
    }
}
