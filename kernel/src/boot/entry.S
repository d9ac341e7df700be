// From the boot loader to Rust. Entered with the MMU off, at EL2 or EL1, x0 = DTB, at any multiple
// of 2 MiB. `refuse.S` names whatever else a boot loader does.
//
// Until the MMU and the caches are on every access is Device-nGnRnE: aligned, no exclusives, no DC
// ZVA. Stores go past the caches, so their lines are invalidated twice: before the stores, because
// a dirty line of the loader could be written back over them, and after them, because a clean line
// that was fetched in between would hide them.
//
// Registers preserved throughout: x19 DTB, x20 the code of the entry (ENTERED_*), x21 the image's
// physical start, x22 the time of the entry (CNTVCT), x23 VA − PA of the image, x24 TCR with the
// most bits of physical address, x25 the number of the pass.

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

// Maps the part of the image from one symbol to another, in whole pages. Clobbers x1-x8.
.macro map_part from, to, bits
    adr_l   x2, \from
    adr_l   x3, \to
    mov_q   x4, \bits
    bic     x4, x4, x13
    bl      map_pages
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

// Branches to a label unless the CPU has the 52-bit addresses that TCR, in x24, uses.
// ID_AA64MMFR0_EL1 is in x0, and the CPU has the granule. Clobbers x1.
.macro require_wide_addresses otherwise
    .if     {tgran_at} == 24
    ubfx    x1, x24, #16, #6            // T1SZ: FEAT_LVA below 16
    cmp     x1, #16
    b.hs    9f
    mrs     x1, id_aa64mmfr2_el1
    tst     x1, #(0xf << 16)            // VARange
    b.eq    \otherwise
    .else
    tbz     x24, #59, 9f                // DS: FEAT_LPA2
    ubfx    x1, x0, #{tgran_at}, #4
    cmp     x1, #{tgran_with_lpa2}
    b.lo    \otherwise
    .endif
9:
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
    mov_q   x24, {tcr}
    mov     x25, xzr
    bl      enter_el

    // The image's writable part, and with it all tables and stacks.
prepare:
    adr_l   x0, __rodata_end
    adr_l   x1, __image_end
    bl      invalidate_to_poc
    adr_l   x0, __bss_start
    adr_l   x1, __bss_end
0:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    0b
    bl      make_tables
    dsb     sy
    adr_l   x0, __rodata_end
    adr_l   x1, __image_end
    bl      invalidate_to_poc

    mrs     x0, id_aa64mmfr0_el1
    require_granule refuse_granule
    adr_l   x3, virtual_entry
    add     x3, x3, x23
    b       enable_mmu

// From Rust, at VA = PA: enters everything again from here on, with another VA − PA of the image
// and another TCR. x0-x4 are what x19, x20 and x22-x24 are to be. The image's writable part is
// clean.
.global enter_again
enter_again:
    mov_q   x5, {sctlr_off}
    msr     sctlr_el1, x5
    isb
    mov     x19, x0
    mov     x20, x1
    adr_l   x21, __image_start
    mov     x22, x2
    mov     x23, x3
    mov     x24, x4
    mov     x25, #1
    b       prepare

stop:
    wfi
    b       stop

// Turns MMU and caches on, with the early identity map in TTBR0 and the kernel's half in TTBR1, and
// branches to x3, a virtual address. x24 is TCR. Clobbers x0-x2, x5, x6, x30.
enable_mmu:
    mrs     x0, id_aa64mmfr0_el1
    mov     x1, x24
    and     x0, x0, #0xf                // PARange, at most what the tables have: IPS
    ubfx    x2, x1, #32, #3
    cmp     x0, x2
    csel    x0, x0, x2, lo
    bfi     x1, x0, #32, #3
    msr     tcr_el1, x1
    mov_q   x0, {mair}
    msr     mair_el1, x0
    adr_l   x0, __idmap_tables
    msr     ttbr0_el1, x0
    adr_l   x0, __swapper
    bl      find_root
    msr     ttbr1_el1, x0
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

// The root of the kernel's half, x0, among the tables that begin at x0 with the root of the largest
// VA size. Its entries cover 1 << x5 bytes each. x24 is TCR. Clobbers x6.
find_root:
    ubfx    x6, x24, #16, #6            // T1SZ
    neg     x6, x6
    add     x6, x6, #64                 // the bits of virtual address
    mov     x5, #{deepest_shift}
0:  cmp     x5, x6
    b.lo    1f
    sub     x5, x5, #{index_bits}
    add     x0, x0, #{page}
    b       0b
1:  ret

// The early tables. The identity-mapped page: one table a level, read-only and executable. The
// kernel's half, in the order of `arch/layout.rs`: the fixmap, and the DTB's window where it has no
// blocks, an empty table of pages each; the image's three segments by pages. Clobbers x0-x13.
make_tables:
    mov     x9, x30
    // With LPA2 (DS) the shareability is in TCR, and its bits in descriptors are address bits.
    tst     x24, #(1 << 59)
    mov     x13, #(0b11 << 8)
    csel    x13, x13, xzr, ne
    // The identity map.
    adr_l   x4, __idmap_start
    adr_l   x0, __idmap_tables
    mov     x5, #{identity_shift}
    bl      link_tables
    lsr     x6, x4, #{page_shift}
    and     x6, x6, #{index_mask}
    mov_q   x8, {text_page}
    bic     x8, x8, x13
    orr     x8, x8, x4
    str     x8, [x0, x6, lsl #3]

    // The kernel's half: tables down to the fixmap's pages, and beside them the DTB's.
    adr_l   x10, __swapper
    mov     x0, x10
    bl      find_root
    mov_q   x4, {fixmap}
    ubfx    x6, x24, #16, #6            // T1SZ
    lsl     x4, x4, x6
    lsr     x4, x4, x6
    bl      link_tables
    sub     x11, x0, #{page}            // the table at level 2
    .if     {dtb_has_table}
    add     x0, x0, #{page}
    orr     x8, x0, #3
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
    orr     x8, x12, #3
    str     x8, [x1, x0, lsl #3]
    mov     x11, x12
    add     x12, x12, #{page}
    .endif
    map_part __image_start, __text_end, {text_page}
    map_part __text_end, __rodata_end, {rodata_page}
    // The guards of the stacks stay unmapped.
    map_part __rodata_end, __stack_guard, {data_page}
    map_part __stack_bottom, __exception_stack_guard, {data_page}
    map_part __exception_stack_bottom, __image_end, {data_page}
    ret     x9

// Maps the pages [x2, x3) of the image with descriptor bits x4. x11 is the table at level 2, x12
// the next table of pages. Clobbers x1, x2, x5-x8.
map_pages:
    cmp     x2, x3
    b.hs    2f
    add     x5, x2, x23
    lsr     x6, x5, #{shift_2}
    and     x6, x6, #{index_mask_2}
    ldr     x7, [x11, x6, lsl #3]
    cbnz    x7, 1f
    orr     x7, x12, #3
    str     x7, [x11, x6, lsl #3]
    add     x12, x12, #{page}
1:  bic     x7, x7, #3
    lsr     x6, x5, #{page_shift}
    and     x6, x6, #{index_mask}
    orr     x8, x2, x4
    str     x8, [x7, x6, lsl #3]
    add     x2, x2, #{page}
    b       map_pages
2:  ret

// Links consecutive tables from the root x0, whose entries cover 1 << x5 bytes each, on the way to
// the address x4, which has no bits above the root's reach. x0 is the table of pages then. Clobbers
// x5-x8.
link_tables:
    lsr     x6, x4, x5
    and     x6, x6, #{index_mask}
    add     x7, x0, #{page}
    orr     x8, x7, #3                  // the next table
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
.section .text.virtual_entry, "ax"
virtual_entry:
    adr_l   x0, vectors
    msr     vbar_el1, x0
    // Rust runs on SP_EL0. Exceptions use SP_ELx, a stack of their own, so that they work after an
    // overflow of the first.
    adr_l   x0, __exception_stack_top
    msr     spsel, #1
    mov     sp, x0
    adr_l   x0, __stack_top
    msr     spsel, #0
    mov     sp, x0
    isb
    mov     x0, x19
    mov     x1, x21
    mov     x2, x20
    mov     x3, x22
    mov     x4, x25
    mov     x29, xzr
    mov     x30, xzr
    b       kernel_main
