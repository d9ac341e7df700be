// From the boot loader to Rust. Entered with the MMU off, at EL2 or EL1, x0 = DTB, at any multiple
// of 2 MiB. `refuse.S` names whatever else a boot loader does.
//
// The image is mapped twice, one after the other. First where it is linked, so that Rust can read
// the device tree and choose where it is mapped for good; text and constants are as they were
// linked then. Then the words that hold addresses are relocated, still there, and the CPU goes to
// the second root by way of the identity-mapped page.
//
// Until the MMU and the caches are on every access is Device-nGnRnE: aligned, no exclusives, no DC
// ZVA. Stores go past the caches, so their lines are invalidated twice: before the stores, because
// a dirty line of the loader could be written back over them, and after them, because a clean line
// that was fetched in between would hide them.
//
// Registers preserved throughout: x19 DTB, x20 the code of the entry (ENTERED_*), x21 the image's
// physical start, x22 the time of the entry (CNTVCT), x23 VA − PA of the image in the tables that
// are made or used.

.macro adr_l reg, symbol
    adrp    \reg, \symbol
    add     \reg, \reg, :lo12:\symbol
.endm

// Loads a 64-bit constant.
.macro mov_q reg, value
    movz    \reg, :abs_g3:\value
    movk    \reg, :abs_g2_nc:\value
    movk    \reg, :abs_g1_nc:\value
    movk    \reg, :abs_g0_nc:\value
.endm

// Maps the part of the image from one symbol to another, in whole pages, with descriptor bits x4.
// x13 is VA − PA of the image where this runs. Clobbers x1-x3, x5-x8.
.macro map_part from, to
    adr_l   x2, \from
    sub     x2, x2, x13
    adr_l   x3, \to
    sub     x3, x3, x13
    bl      map_pages
.endm

// Sets every byte from one symbol to another to 0, a multiple of 16 bytes. Clobbers x0, x1.
.macro clear from, to
    adr_l   x0, \from
    adr_l   x1, \to
0:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    0b
.endm

// Sets the vectors, and both stack pointers to the boot CPU's stacks. Rust runs on SP_EL0.
// Exceptions use SP_ELx, a stack of their own, so that they work after an overflow of the first.
// Clobbers x0.
.macro set_vectors_and_stacks vectors
    adr_l   x0, \vectors
    msr     vbar_el1, x0
    adr_l   x0, __exception_stack_top
    msr     spsel, #1
    mov     sp, x0
    adr_l   x0, __stack_top
    msr     spsel, #0
    mov     sp, x0
    isb
    mov     x29, xzr
    mov     x30, xzr
.endm

// Branches to a label unless ID_AA64MMFR0_EL1, in x0, has the granule of this image. TGran4 and
// TGran64 are signed, and 0b1111 means no; TGran16 is not, and 0 means no. Clobbers x1.
.macro require_granule otherwise
    .if     {tgran_at} == 20
    ubfx    x1, x0, #{tgran_at}, #4
    cbz     x1, \otherwise
    .else
    sbfx    x1, x0, #{tgran_at}, #4
    cmp     x1, #0
    b.lt    \otherwise
    .endif
.endm

// ---- The header of a Linux arm64 Image (booting.rst) ----
.section .head.text, "ax"
.global _start
_start:
    b       primary_entry
    .long   0                           // code1
    .quad   0                           // text_offset
    .quad   __image_len                 // image_size, the zeroed part included
    .quad   {image_flags}               // little-endian, the page size, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

// ---- Everything until the MMU is on runs from the identity-mapped page ----
.section .idmap.text, "ax"
primary_entry:
    mrs     x22, cntvct_el0
    msr     daifset, #0xf
    mov     x19, x0
    // ADRP works on page boundaries only, so the place comes first.
    adr     x0, _start
    ldr     w1, [x0, #8]                // text_offset, below 2 MiB
    sub     x0, x0, x1
    tst     x0, #((2 << 20) - 1)
    b.ne    refuse_place
    mrs     x0, currentel
    cmp     x0, #(2 << 2)
    b.hi    refuse_level
    adr_l   x21, __image_start
    mov_q   x23, {image}
    sub     x23, x23, x21
    bl      enter_el

    // What is stored to with the MMU off: the tables.
    adr_l   x0, __idmap_tables
    adr_l   x1, __early_tables_end
    bl      invalidate_to_poc
    clear   __idmap_tables, __early_tables_end
    bl      make_identity_map
    // The first map of the image. Its constants are writable, for the relocation.
    adr_l   x10, __early_tables
    mov     x13, xzr
    mov_q   x14, {data_page}
    bl      make_half
    dsb     sy
    adr_l   x0, __idmap_tables
    adr_l   x1, __early_tables_end
    bl      invalidate_to_poc

    mrs     x0, id_aa64mmfr0_el1
    require_granule refuse_granule
    adr_l   x4, __early_tables
    adr_l   x3, early_entry
    add     x3, x3, x23
    b       enable_mmu

stop:
    wfi
    b       stop

// Turns MMU and caches on, with the early identity map in TTBR0 and the root x4 in TTBR1, and
// branches to x3, a virtual address. Clobbers x0-x2.
enable_mmu:
    mrs     x0, id_aa64mmfr0_el1
    mov_q   x1, {tcr}
    and     x0, x0, #0xf                // PARange, at most 48 bits: IPS
    mov     x2, #5
    cmp     x0, x2
    csel    x0, x0, x2, lo
    bfi     x1, x0, #32, #3
    msr     tcr_el1, x1
    mov_q   x0, {mair}
    msr     mair_el1, x0
    adr_l   x0, __idmap_tables
    msr     ttbr0_el1, x0
    msr     ttbr1_el1, x4
    // Later features have more state that earlier software may have set: TCR2_EL1, whose permission
    // indirection would change the meaning of the tables, and SCTLR2_EL1. ID_AA64MMFR3_EL1 says
    // whether they exist.
    mrs     x0, S3_0_C0_C7_3
    tst     x0, #0xf
    b.eq    0f
    msr     S3_0_C2_C0_3, xzr           // TCR2_EL1
0:  tst     x0, #0xf0
    b.eq    0f
    msr     S3_0_C1_C0_3, xzr           // SCTLR2_EL1
    // After all of these registers: a TLB may cache fields of most of them.
0:  isb
    tlbi    vmalle1
    dsb     nsh
    ic      iallu
    dsb     nsh
    isb
    mov_q   x0, {sctlr_on}
    msr     sctlr_el1, x0
    isb
    br      x3

// Invalidates the lines of [x0, x1) to the point of coherency. Both ends are page boundaries, so no
// line is shared.
invalidate_to_poc:
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4             // DminLine: log2 of words
    mov     x3, #4
    lsl     x2, x3, x2
0:  dc      ivac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    0b
    dsb     sy
    ret

// Goes from the first map of the image to the second, which may translate the same addresses to
// something else: the walks of the first end before those of the second begin. Entered at VA = PA.
switch_maps:
    adr_l   x0, __reserved_table
    msr     ttbr1_el1, x0
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    adr_l   x0, __swapper
    msr     ttbr1_el1, x0
    isb
    adr_l   x3, virtual_entry
    add     x3, x3, x23
    br      x3

// The identity-mapped page: one table a level, read-only and executable. Clobbers x0, x4-x9.
make_identity_map:
    mov     x9, x30
    adr_l   x4, __idmap_start
    adr_l   x0, __idmap_tables
    mov     x13, xzr
    mov     x5, #{identity_shift}
    bl      link_tables
    lsr     x6, x4, #{page_shift}
    and     x6, x6, #{index_mask}
    mov_q   x8, {text_page}
    orr     x8, x8, x4
    str     x8, [x0, x6, lsl #3]
    ret     x9

// The early tables of the kernel's half from x10 on, which are clear, in the order of
// `arch/layout.rs`: the fixmap, and the DTB's window where it has no blocks, an empty table of
// pages each; the image's three segments by pages at PA + x23, the constants with descriptor bits
// x14. x13 is VA − PA of the image where this runs. Clobbers x0-x12.
make_half:
    mov     x9, x30
    mov     x0, x10
    mov_q   x4, {fixmap_in_half}
    mov     x5, #{root_shift}
    bl      link_tables
    sub     x11, x0, #{page}            // the table at level 2
    .if     {dtb_has_table}
    add     x0, x0, #{page}
    sub     x8, x0, x13
    orr     x8, x8, #3
    mov     x1, #{dtb_index_2}
    str     x8, [x11, x1, lsl #3]
    .endif
    // The image, in a table of its own at level 2 unless it shares the fixmap's.
    add     x12, x0, #{page}            // the next table
    .if     {image_has_level_2}
    add     x0, x21, x23
    lsr     x0, x0, #{shift_1}
    and     x0, x0, #{index_mask_1}
    add     x1, x10, #{level_1_frame} * {page}
    sub     x8, x12, x13
    orr     x8, x8, #3
    str     x8, [x1, x0, lsl #3]
    mov     x11, x12
    add     x12, x12, #{page}
    .endif
    mov_q   x4, {text_page}
    map_part __image_start, __text_end
    mov     x4, x14
    map_part __text_end, __rodata_end
    mov_q   x4, {data_page}
    // The guards of the stacks stay unmapped.
    map_part __rodata_end, __stack_guard
    map_part __stack_bottom, __exception_stack_guard
    map_part __exception_stack_bottom, __image_end
    ret     x9

// Maps the pages [x2, x3) of the image, physical addresses, at PA + x23 with descriptor bits x4.
// x11 is the table at level 2, x12 the next table of pages, x13 VA − PA of the image where this
// runs. Clobbers x2, x5-x8.
map_pages:
    cmp     x2, x3
    b.hs    2f
    add     x5, x2, x23
    lsr     x6, x5, #{shift_2}
    and     x6, x6, #{index_mask_2}
    ldr     x7, [x11, x6, lsl #3]
    cbnz    x7, 1f
    sub     x7, x12, x13
    orr     x7, x7, #3
    str     x7, [x11, x6, lsl #3]
    add     x12, x12, #{page}
1:  bic     x7, x7, #3
    add     x7, x7, x13
    lsr     x6, x5, #{page_shift}
    and     x6, x6, #{index_mask}
    orr     x8, x2, x4
    str     x8, [x7, x6, lsl #3]
    add     x2, x2, #{page}
    b       map_pages
2:  ret

// Links consecutive tables from the root x0, whose entries cover 1 << x5 bytes each, on the way to
// the address x4, which has no bits above the root's reach. x0 is the table of pages then. x13 is
// VA − PA of the image where this runs. Clobbers x5-x8.
link_tables:
    lsr     x6, x4, x5
    and     x6, x6, #{index_mask}
    add     x7, x0, #{page}
    sub     x8, x7, x13
    orr     x8, x8, #3                  // the next table
    str     x8, [x0, x6, lsl #3]
    mov     x0, x7
    sub     x5, x5, #{index_bits}
    cmp     x5, #{page_shift}
    b.ne    link_tables
    ret

// Settles the exception level. With VHE the kernel stays at EL2 with E2H and TGE set, so that the
// _EL1 names mean EL2's registers. Without VHE it drops to EL1 and leaves a stub at EL2. Sets x20.
// Clobbers x0-x2.
enter_el:
    mov     x2, x30
    mov_q   x0, {sctlr_off}
    mrs     x1, currentel
    cmp     x1, #(2 << 2)
    b.eq    0f
    cmp     x1, #(1 << 2)
    b.ne    stop                        // EL3: the firmware starts no CPU there
    mov     x20, #{entered_el1}
    msr     sctlr_el1, x0
    isb
    ret     x2
0:  msr     cntvoff_el2, xzr
    msr     vttbr_el2, xzr
    msr     hstr_el2, xzr
    // If ID_AA64PFR0_EL1.GIC says that a GICv3's system registers exist, enable them here and at
    // EL1 (ICC_SRE_EL2), as far as the firmware allows it, and turn virtual interrupts off.
    mrs     x1, id_aa64pfr0_el1
    tst     x1, #(0xf << 24)
    b.eq    2f
    mrs     x1, S3_4_C12_C9_5           // ICC_SRE_EL2
    orr     x1, x1, #1                  // SRE
    orr     x1, x1, #(1 << 3)           // Enable
    msr     S3_4_C12_C9_5, x1
    isb
    mrs     x1, S3_4_C12_C9_5
    tbz     x1, #0, 2f
    msr     S3_4_C12_C11_0, xzr         // ICH_HCR_EL2
2:  mrs     x1, id_aa64mmfr1_el1
    ubfx    x1, x1, #8, #4              // VH
    cbz     x1, 1f
    mov_q   x1, {hcr_vhe}
    msr     hcr_el2, x1
    isb
    msr     sctlr_el1, x0               // SCTLR_EL2 by its E2H name
    mov     x1, #(0b11 << 20)           // CPTR_EL2.FPEN: floating point does not trap
    msr     cpacr_el1, x1
    isb
    mov     x20, #{entered_el2_vhe}
    ret     x2
1:  mov_q   x1, {sctlr_el2_off}
    msr     sctlr_el2, x1
    mov_q   x1, {hcr_nvhe}
    msr     hcr_el2, x1
    mrs     x1, midr_el1
    msr     vpidr_el2, x1
    mrs     x1, mpidr_el1
    msr     vmpidr_el2, x1
    mov     x1, #3                      // EL1PCTEN, EL1PCEN: EL1 may read the physical counter and timer
    msr     cnthctl_el2, x1
    mov     x1, #0x33ff                 // the RES1 bits: floating point does not trap
    msr     cptr_el2, x1
    adr_l   x1, el2_stub_vectors
    msr     vbar_el2, x1
    msr     sctlr_el1, x0
    mov     x20, #{entered_el2_stub}
    mov     x1, #0x3c5                  // EL1h, DAIF masked
    msr     spsr_el2, x1
    msr     elr_el2, x2
    isb
    eret

// ---- At the link address, MMU and caches on ----
.section .text.early_entry, "ax"
early_entry:
    clear   __bss_start, __bss_end
    clear   __swapper, __swapper_end
    set_vectors_and_stacks choosing_vectors
    // For `choosing_failed`, on the exception stack.
    msr     spsel, #1
    mrs     x25, cntvct_el0
    stp     x19, x20, [sp, #-64]!
    stp     x21, x22, [sp, #16]
    stp     x23, x25, [sp, #32]
    msr     spsel, #0
    mov     x0, x19
    mov     x1, x21
    bl      choose_place
chosen:
    mrs     x2, cntvct_el0
    sub     x25, x2, x25                // what choosing took, in ticks
    mov     x24, x1                     // the seed
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
    ldp     x23, x25, [sp, #32]
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
    set_vectors_and_stacks vectors
    sub     sp, sp, #{entry_len}
    mov     x0, sp
    stp     x19, x21, [x0, #{entry_dtb}]
    stp     x20, x22, [x0, #{entry_entered}]
    stp     x24, x25, [x0, #{entry_seed}]
    stp     x26, x27, [x0, #{entry_relocation}]
    b       kernel_main
