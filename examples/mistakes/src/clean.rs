//! Pages whose writes hardware tracks (TCR.HD, DBM) are made clean again. The command line says
//! `updates`.

use core::arch::asm;

use crate::page::{Page, VA};

/// The leaf becomes writable at a write: its read-only bit says that it is clean.
const DBM: u64 = 1 << 51;
const READ_ONLY: u64 = 1 << 7;

/// Makes the page clean and its writes tracked, then writes to it: the leaf says so.
#[inline(always)]
fn write_tracked(page: &Page) {
    // SAFETY: the entry and the page are mapped, and the page stays writable under TCR.HD.
    unsafe {
        page.leaf.write_volatile(page.leaf.read_volatile() | DBM | READ_ONLY);
        invalidate();
        (VA as *mut u64).write_volatile(3);
    }
}

/// What a TLB holds as dirty is not marked at the next write.
#[inline(always)]
fn invalidate() {
    // SAFETY: barriers, and a TLBI of what is mapped in memory.
    unsafe {
        asm!(
            "dsb ishst", "tlbi vale1is, {}", "dsb ish", "isb",
            in(reg) VA >> 12, options(nostack, preserves_flags)
        );
    }
}

/// Learns whether the page was written.
#[inline(never)]
pub fn clean_by_exclusives(page: &Page) {
    write_tracked(page);
    // SAFETY: as above.
    unsafe {
        asm!(
            "2: ldxr {old}, [{leaf}]",
            "orr {old}, {old}, #0x80",
            "stxr {failed:w}, {old}, [{leaf}]",
            "cbnz {failed:w}, 2b",
            leaf = in(reg) page.leaf, old = out(reg) _, failed = out(reg) _,
            options(nostack, preserves_flags)
        );
    }
    invalidate();
}

/// The same by one instruction (FEAT_LSE).
#[inline(never)]
pub fn clean_by_cas(page: &Page) {
    write_tracked(page);
    // SAFETY: as above.
    unsafe {
        asm!(
            ".arch_extension lse",
            "2: ldr {old}, [{leaf}]",
            "orr {new}, {old}, #0x80",
            "mov {found}, {old}",
            "cas {found}, {new}, [{leaf}]",
            "cmp {found}, {old}",
            "b.ne 2b",
            leaf = in(reg) page.leaf, old = out(reg) _, new = out(reg) _, found = out(reg) _,
            options(nostack)
        );
    }
    invalidate();
}

/// Stores what was read before: a write by another CPU in between is not known of.
#[inline(never)]
pub fn clean_by_store(page: &Page) {
    write_tracked(page);
    // SAFETY: as above.
    unsafe { page.leaf.write_volatile(page.leaf.read_volatile() | READ_ONLY) };
    invalidate();
}
