//! Edits that were found wrong in kernels, each with the same edit done right. Each is a function
//! by itself, so that a verdict can name it.

use core::arch::asm;

use linmap_vmsa::Level;

use crate::clean::{clean_by_cas, clean_by_exclusives, clean_by_store};
use crate::machine::linked;
use crate::page::{self, Page, VA};
use crate::publish::{
    publish_copied, publish_copied_before_dsb, publish_set, publish_set_before_dsb, publish_zeroed,
    publish_zeroed_before_dsb, publish_zeroed_bytes, publish_zeroed_bytes_before_dsb,
};

/// An edit.
pub struct Edit {
    /// The word of the command line that chooses it: the name of its function.
    pub name: &'static str,
    /// The edit.
    pub run: fn(&Page),
}

macro_rules! edits {
    ($($name:ident,)*) => {
        /// All of them.
        pub const EDITS: &[Edit] = &[$(Edit { name: stringify!($name), run: $name },)*];
    };
}

edits! {
    remap,
    remap_by_local_tlbi,
    remap_by_shifted_operand,
    remap_by_level,
    remap_by_wrong_level,
    split_another_block,
    split_own_stack,
    reuse_table,
    reuse_table_before_dsb,
    publish_zeroed,
    publish_zeroed_before_dsb,
    publish_set,
    publish_set_before_dsb,
    publish_copied,
    publish_copied_before_dsb,
    publish_zeroed_bytes,
    publish_zeroed_bytes_before_dsb,
    clean_by_exclusives,
    clean_by_cas,
    clean_by_store,
}

/// Stores to a table.
fn store(entry: *mut u64, value: u64) {
    // SAFETY: the entries of `Page` lie in memory that is mapped where it is.
    unsafe { entry.write_volatile(value) };
}

/// An instruction without operands.
macro_rules! execute {
    ($instruction:literal) => {
        // SAFETY: barriers and invalidations that do too much have no effect on what is mapped.
        unsafe { asm!($instruction, options(nostack, preserves_flags)) }
    };
}

/// TLBI by address.
macro_rules! tlbi {
    ($name:literal, $operand:expr) => {
        // SAFETY: as above.
        unsafe { asm!(concat!("tlbi ", $name, ", {}"), in(reg) $operand, options(nostack, preserves_flags)) }
    };
}

/// Break-before-make (Arm ARM D8.16.1) of the page, which leads to its other frame then.
macro_rules! break_before_make {
    ($page:ident, $name:literal, $operand:expr) => {
        store($page.leaf, 0);
        execute!("dsb ishst");
        tlbi!($name, $operand);
        execute!("dsb ish");
        store($page.leaf, $page.other);
        execute!("dsb ishst");
        execute!("isb");
    };
}

/// The operand of a TLBI by address: bits 55 to 12 of the address, whatever the granule is.
const OPERAND: u64 = VA >> 12;

/// The other frame for the page.
#[inline(never)]
fn remap(page: &Page) {
    break_before_make!(page, "vale1is", OPERAND);
}

/// Invalidates on this CPU alone.
#[inline(never)]
fn remap_by_local_tlbi(page: &Page) {
    break_before_make!(page, "vale1", OPERAND);
}

/// Takes the number of the page for the operand, which it is with pages of 4 KiB alone.
#[inline(never)]
fn remap_by_shifted_operand(page: &Page) {
    break_before_make!(page, "vale1is", VA >> page::geometry().page_shift());
}

/// Says by TTL (FEAT_TTL) that the leaf is at level 3, with the granule 4K.
#[inline(never)]
fn remap_by_level(page: &Page) {
    break_before_make!(page, "vale1is", OPERAND | 0b0111 << 44);
}

/// Says that it is at level 2: entries of level 3 may stay.
#[inline(never)]
fn remap_by_wrong_level(page: &Page) {
    break_before_make!(page, "vale1is", OPERAND | 0b0110 << 44);
}

/// Pages for the block at `va`. Between break and make nothing uses this CPU's stack.
#[inline(always)]
fn split(va: u64) {
    let entry = page::entry(va, Level::L2);
    let table = page::table_frame();
    // SAFETY: the entry is in memory that is mapped.
    let block = unsafe { entry.read_volatile() };
    for nth in 0..512 {
        // Bit 1 makes it a page.
        store((table as *mut u64).wrapping_add(nth), (block | 1 << 1) + ((nth as u64) << 12));
    }
    // SAFETY: afterwards the same is mapped as before.
    unsafe {
        asm!(
            "dsb ishst",
            "str xzr, [{entry}]",
            "dsb ishst",
            "tlbi vae1is, {operand}",
            "dsb ish",
            "str {table}, [{entry}]",
            "dsb ishst",
            "isb",
            entry = in(reg) entry, operand = in(reg) va >> 12, table = in(reg) table | 0b11,
            options(nostack, preserves_flags)
        );
    }
}

/// Splits a block that nobody uses.
#[inline(never)]
fn split_another_block(_: &Page) {
    split(linked::spare().start.0);
}

/// Splits the block that this CPU has its stack in: an interrupt would find it unmapped.
#[inline(never)]
fn split_own_stack(_: &Page) {
    split(linked::stack().start.0);
}

/// Takes the table away, and gives its frame to another use.
#[inline(never)]
fn reuse_table(page: &Page) {
    store(page.above, 0);
    execute!("dsb ishst");
    tlbi!("vae1is", OPERAND);
    execute!("dsb ish");
    fill(page);
}

/// Does not wait until the invalidation is complete: a walk may still read the table.
#[inline(never)]
fn reuse_table_before_dsb(page: &Page) {
    store(page.above, 0);
    execute!("dsb ishst");
    tlbi!("vae1is", OPERAND);
    fill(page);
}

/// What another owner stores to the frame, which as descriptors are pages of somewhere.
#[inline(always)]
fn fill(page: &Page) {
    for nth in 0..page.entries {
        store(page.table.wrapping_add(nth), 0x0765_4321_0fed_cba7);
    }
}
