//! What `aarch64-rt` calls first on each CPU: the MMU on, and from low addresses to high ones.

use core::arch::global_asm;

use linmap_vmsa::registers::{MAIR, RegisterError, SCTLR_MMU_AND_CACHES, tcr, ttbr};

use crate::layout::{G, IDENTITY, NOTHING, OFFSET, ROOT};

/// TCR, from the first instruction with the MMU on.
pub const TCR: u64 = value(tcr(G, G, false));
/// TTBR values: the live root, the identity map, and one that translates nothing.
pub const LIVE_ROOT: u64 = value(ttbr(G, ROOT, 0));
pub const IDENTITY_MAP: u64 = value(ttbr(G, IDENTITY, 0));
pub const NOTHING_MAPPED: u64 = value(ttbr(G, NOTHING, 0));

const fn value(value: Result<u64, RegisterError>) -> u64 {
    match value {
        Ok(value) => value,
        Err(_) => panic!("a value that the register can have"),
    }
}

// It keeps x0 to x7, returns to the high alias of where it was called, and leaves TTBR0 on a root
// that translates nothing.
global_asm!(
    ".macro value, register, number",
    r"movz \register, :abs_g3:\number",
    r"movk \register, :abs_g2_nc:\number",
    r"movk \register, :abs_g1_nc:\number",
    r"movk \register, :abs_g0_nc:\number",
    ".endm",
    r#".section .init, "ax""#,
    ".global enable_mmu",
    "enable_mmu:",
    "value x8, {mair}",
    "msr mair_el1, x8",
    "value x8, {tcr}",
    "msr tcr_el1, x8",
    "value x8, {identity}",
    "msr ttbr0_el1, x8",
    "value x8, {live}",
    "msr ttbr1_el1, x8",
    "isb",
    "tlbi vmalle1",
    "dsb nsh",
    "ic iallu",
    "dsb nsh",
    "isb",
    "value x8, {sctlr}",
    "mrs x9, sctlr_el1",
    "orr x9, x9, x8",
    "msr sctlr_el1, x9",
    "isb",
    "value x8, {offset}",
    "add x30, x30, x8",
    "adr x9, 0f",
    "add x9, x9, x8",
    "br x9",
    "0: value x8, {nothing}",
    "msr ttbr0_el1, x8",
    "isb",
    "tlbi vmalle1",
    "dsb nsh",
    "isb",
    "ret",
    ".purgem value",
    mair = const MAIR,
    tcr = const TCR,
    identity = const IDENTITY_MAP,
    live = const LIVE_ROOT,
    sctlr = const SCTLR_MMU_AND_CACHES,
    offset = const OFFSET,
    nothing = const NOTHING_MAPPED,
);
