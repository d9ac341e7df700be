// From the map in which the image lies where it is linked to the one in which it lies where
// `choose_place` says, and to Rust.

// ---- At the link address, MMU and caches on ----
.section .text.early_entry, "ax"
early_entry:
    clear   __bss_start, __bss_end
    clear   __swapper, __swapper_end
    adr_l   x0, choosing_vectors
    bl      set_vectors_and_stacks
    // For `choosing_failed`, on the exception stack.
    msr     spsel, #1
    mrs     x25, cntvct_el0
    stp     x19, x20, [sp, #-64]!
    stp     x21, x22, [sp, #16]
    stp     x23, x24, [sp, #32]
    str     x25, [sp, #48]
    msr     spsel, #0
    mov     x0, x19
    mov     x1, x21
    bl      choose_place
chosen:
    mrs     x2, cntvct_el0
    sub     x25, x2, x25                // what choosing took, in ticks
    mov     x28, x1                     // the seed
    // Relocation, from here to there.
    adr_l   x1, __image_start
    sub     x1, x0, x1
    mrs     x26, cntvct_el0
    bl      relocate
    isb
    mrs     x0, cntvct_el0
    sub     x26, x0, x26                // what it took, in ticks
    // The second map, at its place.
    mov     x13, x23
    add     x23, x23, x1
    adr_l   x10, __swapper
    mov_q   x14, {rodata_page}
    bl      make_half
    // Everything that was stored is visible to walkers before they walk there.
    dsb     ish
    adr_l   x3, switch_maps
    sub     x3, x3, x13
    br      x3

// An exception while the place is chosen, as when there is no memory where the DTB should be: the
// image stays where it is linked, and kernel_main, which has a console, will find the same.
choosing_failed:
    ldp     x19, x20, [sp]
    ldp     x21, x22, [sp, #16]
    ldp     x23, x24, [sp, #32]
    ldr     x25, [sp, #48]
    msr     spsel, #0
    adr_l   x0, __image_start
    mov     x1, xzr
    b       chosen

.section .vectors, "ax"
.balign 2048
choosing_vectors:
    .rept   16
    .balign 128
    b       choosing_failed
    .endr
    .balign 128

.section .text.early_entry, "ax"
// Adds x1 to every word of the image that holds an address of the image, unless it is 0. Sets x27
// to the number of the words. RELR (the ELF gABI, "Relative relocation table"): an even entry is
// the address of a word; an odd one has a bit for each of the 63 words that follow, from bit 1 on.
// Clobbers x0, x2-x6.
relocate:
    mov     x27, xzr
    cbz     x1, 4f
    adr_l   x0, __relr_start
    adr_l   x2, __relr_end
0:  cmp     x0, x2
    b.hs    4f
    ldr     x3, [x0], #8
    tbnz    x3, #0, 1f
    ldr     x5, [x3]
    add     x5, x5, x1
    str     x5, [x3], #8
    add     x27, x27, #1
    mov     x4, x3                      // the next word
    b       0b
1:  lsr     x3, x3, #1
    cbz     x3, 3f
2:  rbit    x5, x3
    clz     x5, x5                      // the lowest bit that is set
    sub     x6, x3, #1
    and     x3, x3, x6                  // without it
    ldr     x6, [x4, x5, lsl #3]
    add     x6, x6, x1
    str     x6, [x4, x5, lsl #3]
    add     x27, x27, #1
    cbnz    x3, 2b
3:  add     x4, x4, #(63 * 8)
    b       0b
4:  ret

// ---- At the place that was chosen ----
.section .text.virtual_entry, "ax"
virtual_entry:
    adr_l   x0, entry_facts
    stp     x19, x21, [x0, #{entry_dtb}]
    stp     x20, x22, [x0, #{entry_entered}]
    stp     x28, x25, [x0, #{entry_seed}]
    stp     x26, x27, [x0, #{entry_relocation}]
    b       to_rust
entry_again:
    clear   __bss_start, __bss_end
    adr_l   x0, entry_facts
    mov     x1, #1
    str     x1, [x0, #{entry_pass}]
to_rust:
    adr_l   x0, vectors
    bl      set_vectors_and_stacks
    mov     x29, xzr
    mov     x30, xzr
    adr_l   x0, entry_facts
    b       kernel_main

// What both passes know. Not in .bss, which the second pass clears.
.section .entry_facts, "aw"
.balign 16
entry_facts:
    .zero   {entry_len}

.section .text.virtual_entry, "ax"
// Sets the vectors to x0, and both stack pointers to the boot CPU's stacks. Rust runs on SP_EL0.
// Exceptions use SP_ELx, a stack of their own, so that they work after an overflow of the first.
// Clobbers x0.
set_vectors_and_stacks:
    msr     vbar_el1, x0
    adr_l   x0, __exception_stack_top
    msr     spsel, #1
    mov     sp, x0
    adr_l   x0, __stack_top
    msr     spsel, #0
    mov     sp, x0
    isb
    ret
