// The early tables, made by code in the identity-mapped page: with the MMU off, or in the first map
// of the image.

.section .idmap.text, "ax"
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

// The identity-mapped page: one table a level, read-only and executable. Clobbers x0, x4-x9, x13,
// x15.
make_identity_map:
    mov     x9, x30
    get_lpa2_mask
    adr_l   x4, __idmap_start
    adr_l   x0, __idmap_tables
    mov     x13, xzr
    mov     x5, #{identity_shift}
    bl      link_tables
    lsr     x6, x4, #{page_shift}
    and     x6, x6, #{index_mask}
    mov_q   x8, {text_page}
    bic     x8, x8, x15
    orr     x8, x8, x4
    str     x8, [x0, x6, lsl #3]
    ret     x9

// The early tables of the kernel's half from x10 on, which are clear, in the order of
// `arch/layout.rs`: the fixmap, and the DTB's window where it has no blocks, an empty table of
// pages each; the image's three segments by pages at PA + x23, the constants with descriptor bits
// x14. x13 is VA − PA of the image where this runs. Clobbers x0-x12, x15.
make_half:
    mov     x9, x30
    get_lpa2_mask
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
    bic     x4, x4, x15
    part    __image_start, __text_end
    bl      map_pages
    bic     x4, x14, x15
    part    __text_end, __rodata_end
    bl      map_pages
    mov_q   x4, {data_page}
    bic     x4, x4, x15
    // The guards of the stacks stay unmapped.
    part    __rodata_end, __stack_guard
    bl      map_pages
    part    __stack_bottom, __exception_stack_guard
    bl      map_pages
    part    __exception_stack_bottom, __image_end
    bl      map_pages
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
