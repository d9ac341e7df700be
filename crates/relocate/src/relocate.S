// The last code that runs: moves the payload to where it belongs, checks it, turns MMU and caches
// off, and enters it. It runs from a copy in a frame of its own, without a stack. It accesses its
// orders, the move lists and what they name, and the marks of the pen. After the first few
// instructions it uses neither the vectors nor the old tables.
//
// With the MMU on it is mapped 1:1 by TTBR0, and goes to the transitional tables in TTBR1 first.
// With the MMU off it needs no table, and cleans the caches itself: an offset of 0 makes the same
// code work on physical addresses.
//
// x0 the orders (physical), laid out as in orders.rs
// x1 VA - PA of the linear map, 0 with the MMU off
// x2 the number of the list to work off: 0 on the boot CPU, which enters the payload
//
// The lists' format is in record.rs: records of source, destination, length and kind.
//
// Fixed registers: x19 the orders, x20 the offset, x21 the number of the first list, x22 the size
// of a cache line, x26 the number of the current list, x27 the conduit of PSCI, x28 when the check
// began.

.section .text.relocate, "ax"
.arch_extension simd
.balign 16
.global linmap_relocate_start
linmap_relocate_start:
    msr     spsel, #1
    mov     x20, x1
    add     x19, x0, x1
    mov     x21, x2
    ldr     x27, [x19, #{conduit}]
    mrs     x8, ctr_el0
    ubfx    x8, x8, #16, #4             // DminLine
    mov     x22, #4
    lsl     x22, x22, x8
    // The vector registers may be used.
    mrs     x8, cpacr_el1
    orr     x8, x8, #(0b11 << 20)       // FPEN
    msr     cpacr_el1, x8
    isb
    // The stub at EL2 moves to a frame that nothing is moved to.
    ldr     x1, [x19, #{vectors}]
    cbz     x1, 0f
    ldr     x0, [x19, #{set_vectors}]
    hvc     #0
0:  ldr     x5, [x19, #{nothing}]
    ldr     x4, [x19, #{ttbr1}]
    cbz     x4, clean_before
    // Break-before-make of the root: one that translates nothing, nothing cached, then the
    // transitional tables.
    msr     ttbr1_el1, x5
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    msr     ttbr1_el1, x4
    isb
    cbz     x21, move
    // Another CPU says that it has arrived, and waits for go or leave.
    mov     x4, #{state_here}
    bl      say
    add     x5, x19, #{go}
0:  ldar    x4, [x5]
    cbnz    x4, 1f
    wfe
    b       0b
1:  ldr     x2, [x19, #{back}]
    cmp     x4, #{go_leave}
    b.eq    switch_off

move:
    mov     x26, x21
next_list:
    add     x9, x19, #{lists}
    ldr     x9, [x9, x26, lsl #3]
    add     x9, x9, x20
next:
    ldp     x10, x11, [x9]
    ldr     x12, [x9, #16]
    add     x9, x9, #24
    and     x13, x12, #0xfff            // the kind
    sub     x12, x12, x13               // the length, whole pages
    add     x11, x11, x20
    add     x14, x11, x12
    cbnz    x13, other_kind
    cbz     x12, moved
    // Copy upwards. Every line is cleaned, because the payload is entered with caches off, and
    // invalidated, because the payload may map the memory with other attributes. Lines larger than
    // 64 bytes are cleaned more than once, smaller ones in a pass of their own.
    add     x10, x10, x20
.macro load_512
    ldp     q0, q1, [x10, #0]
    ldp     q2, q3, [x10, #32]
    ldp     q4, q5, [x10, #64]
    ldp     q6, q7, [x10, #96]
    ldp     q8, q9, [x10, #128]
    ldp     q10, q11, [x10, #160]
    ldp     q12, q13, [x10, #192]
    ldp     q14, q15, [x10, #224]
    ldp     q16, q17, [x10, #256]
    ldp     q18, q19, [x10, #288]
    ldp     q20, q21, [x10, #320]
    ldp     q22, q23, [x10, #352]
    ldp     q24, q25, [x10, #384]
    ldp     q26, q27, [x10, #416]
    ldp     q28, q29, [x10, #448]
    ldp     q30, q31, [x10, #480]
.endm
.macro clean_512
    dc      civac, x11
    add     x11, x11, #64
    dc      civac, x11
    add     x11, x11, #64
    dc      civac, x11
    add     x11, x11, #64
    dc      civac, x11
    add     x11, x11, #64
    dc      civac, x11
    add     x11, x11, #64
    dc      civac, x11
    add     x11, x11, #64
    dc      civac, x11
    add     x11, x11, #64
    dc      civac, x11
    add     x11, x11, #64
.endm
.macro store_512
    stp     q0, q1, [x11, #0]
    stp     q2, q3, [x11, #32]
    stp     q4, q5, [x11, #64]
    stp     q6, q7, [x11, #96]
    stp     q8, q9, [x11, #128]
    stp     q10, q11, [x11, #160]
    stp     q12, q13, [x11, #192]
    stp     q14, q15, [x11, #224]
    stp     q16, q17, [x11, #256]
    stp     q18, q19, [x11, #288]
    stp     q20, q21, [x11, #320]
    stp     q22, q23, [x11, #352]
    stp     q24, q25, [x11, #384]
    stp     q26, q27, [x11, #416]
    stp     q28, q29, [x11, #448]
    stp     q30, q31, [x11, #480]
.endm
0:  load_512
    add     x10, x10, #512
    store_512
    clean_512
    cmp     x11, x14
    b.lo    0b
    cmp     x22, #64
    b.hs    next
small_lines:
    sub     x11, x14, x12
0:  dc      civac, x11
    add     x11, x11, x22
    cmp     x11, x14
    b.lo    0b
    b       next

other_kind:
    cmp     x13, #{kind_down}
    b.eq    down
    cmp     x13, #{kind_clear}
    b.eq    clear
    cmp     x13, #{kind_link}
    b.eq    link
    // Moves that have to be made in order are done: the other CPUs may start.
    mov     x4, #{go_move}
    add     x5, x19, #{go}
    stlr    x4, [x5]
    dsb     ish
    sev
    b       next
link:
    add     x9, x10, x20
    b       next
    // Copy downwards, for a destination above its own source.
down:
    add     x10, x10, x20
    add     x10, x10, x12
    mov     x15, x11
    mov     x11, x14
0:  sub     x10, x10, #512
    sub     x11, x11, #512
    load_512
    store_512
    clean_512
    sub     x11, x11, #512
    cmp     x11, x15
    b.hi    0b
    cmp     x22, #64
    b.lo    small_lines
    b       next
clear:
    movi    v0.2d, #0
    movi    v1.2d, #0
    movi    v2.2d, #0
    movi    v3.2d, #0
    movi    v4.2d, #0
    movi    v5.2d, #0
    movi    v6.2d, #0
    movi    v7.2d, #0
    movi    v8.2d, #0
    movi    v9.2d, #0
    movi    v10.2d, #0
    movi    v11.2d, #0
    movi    v12.2d, #0
    movi    v13.2d, #0
    movi    v14.2d, #0
    movi    v15.2d, #0
    movi    v16.2d, #0
    movi    v17.2d, #0
    movi    v18.2d, #0
    movi    v19.2d, #0
    movi    v20.2d, #0
    movi    v21.2d, #0
    movi    v22.2d, #0
    movi    v23.2d, #0
    movi    v24.2d, #0
    movi    v25.2d, #0
    movi    v26.2d, #0
    movi    v27.2d, #0
    movi    v28.2d, #0
    movi    v29.2d, #0
    movi    v30.2d, #0
    movi    v31.2d, #0
0:  store_512
    clean_512
    cmp     x11, x14
    b.lo    0b
    cmp     x22, #64
    b.lo    small_lines
    b       next

moved:
    // The next list of this CPU, if there are more lists than CPUs.
    ldr     x4, [x19, #{others}]
    ldr     x5, [x19, #{list_count}]
    add     x26, x26, x4
    add     x26, x26, #1
    cmp     x26, x5
    b.lo    next_list
    dsb     sy
    cbz     x21, join
    mov     x4, #{state_done}
    bl      say
    ldr     x2, [x19, #{pen}]
    // Switches this CPU off. A CPU from a spin table has a mark, and goes to x2 instead.
switch_off:
    add     x5, x19, #{marks}
    ldr     x0, [x5, x21, lsl #3]
    cbnz    x0, enter_at
    movz    x0, #0x8400, lsl #16        // PSCI CPU_OFF
    movk    x0, #0x0002
    bl      firmware
0:  wfi
    b       0b

    // The boot CPU waits until all others are done, and are off or in the pen.
join:
    ldr     x23, [x19, #{others}]
0:  cbz     x23, 3f
    add     x5, x19, #{states}
    add     x5, x5, x23, lsl #3
1:  ldar    x4, [x5]
    cmp     x4, #{state_done}
    b.eq    2f
    wfe
    b       1b
2:  add     x5, x19, #{marks}
    ldr     x5, [x5, x23, lsl #3]
    cbz     x5, 4f
    // The mark is stored past the caches.
    add     x5, x5, x20
1:  dc      ivac, x5
    dsb     sy
    ldr     w4, [x5]
    cbz     w4, 1b
    b       5f
4:  movz    x0, #0xc400, lsl #16        // PSCI AFFINITY_INFO, the 64-bit form
    movk    x0, #0x0004
    add     x5, x19, #{affinities}
    ldr     x1, [x5, x23, lsl #3]
    mov     x2, xzr
    bl      firmware
    cmp     x0, #1                      // OFF
    b.ne    4b
5:  sub     x23, x23, #1
    b       0b

    // Compares what lies at the destinations with what was loaded.
3:  ldr     x23, [x19, #{checks}]
    cbz     x23, enter
    isb
    mrs     x28, cntvct_el0
    add     x24, x19, #{check}
    mov     x25, xzr
0:  cmp     x25, x23
    b.eq    as_loaded
    add     x26, x19, #{scratch}
    adr     x4, linmap_sha256_initial
    ldp     q0, q1, [x4]
    stp     q0, q1, [x26]
    // The last block: a one, zeros, the length in bits.
    movi    v0.2d, #0
    stp     q0, q0, [x26, #32]
    stp     q0, q0, [x26, #64]
    mov     w4, #0x80
    str     w4, [x26, #32]
    ldr     x2, [x24, #8]
    lsl     x4, x2, #9
    rev     x4, x4
    str     x4, [x26, #88]
    mov     x0, x26
    ldr     x1, [x24]
    add     x1, x1, x20
    add     x3, x26, #96
    bl      linmap_sha256_blocks
    mov     x0, x26
    add     x1, x26, #32
    mov     x2, #1
    add     x3, x26, #96
    bl      linmap_sha256_blocks
    ldp     x4, x5, [x26]
    ldp     x6, x7, [x26, #16]
    ldp     x8, x9, [x24, #16]
    ldp     x10, x11, [x24, #32]
    cmp     x4, x8
    ccmp    x5, x9, #0, eq
    ccmp    x6, x10, #0, eq
    ccmp    x7, x11, #0, eq
    b.ne    differs
    add     x24, x24, #{check_len}
    add     x25, x25, #1
    b       0b

    // Prints on the console how long that took.
as_loaded:
    isb
    mrs     x4, cntvct_el0
    sub     x28, x4, x28
    bl      mmu_off
    adr     x4, as_loaded_line
    bl      print

enter:
    ldr     x2, [x19, #{entry}]
    ldr     x0, [x19, #{dtb}]
    // Turns the MMU off and goes to x2, at the exception level at which this CPU was entered, with
    // x0 as it is. EL2 is left without VHE, where the CPU can be.
enter_at:
    ldr     x6, [x19, #{restart}]
    bl      mmu_off
    cbnz    x6, 0f
1:  mov     x4, x2
    mov     x1, xzr
    mov     x2, xzr
    mov     x3, xzr
    br      x4
0:  cmp     x6, #{leave_vhe}
    b.ne    0f
    bl      linmap_leave_vhe
    cbz     x3, 1b
    cbnz    x21, 1b
    // All CPUs do the same; the boot CPU reports it.
    adr     x4, vhe_stays_line
    bl      print
    b       1b
0:  mov     x1, x2
    mov     x2, x0
    mov     x0, x6
    hvc     #0

    // The payload differs from what was loaded. Reports this on the console, and switches the
    // machine off.
differs:
    mov     x28, x25
    bl      mmu_off
    adr     x4, differs_line
    bl      print
    movz    x0, #0x8400, lsl #16        // PSCI SYSTEM_OFF
    movk    x0, #0x0008
    bl      firmware
0:  wfi
    b       0b
as_loaded_line:
    .asciz  "\r\nlinmap: phase=kexec-verify when=after ticks=0x#\r\n"
differs_line:
    .asciz  "\r\nlinmap: error=verify when=after segment=#\r\n"
vhe_stays_line:
    .asciz  "\r\nlinmap: warning=vhe what=\"this CPU has no EL2 without VHE: the payload finds E2H set\"\r\n"
    .balign 4

    // Devices are in none of the transitional maps: from here on addresses are physical. The orders
    // that are read then have not changed since they were cleaned. x7 changes.
mmu_off:
    ldr     x7, [x19, #{sctlr_off}]
    dsb     sy
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x7
    isb
    sub     x19, x19, x20
    mov     x20, xzr
    ret

    // Prints the line at x4 on the console, if there is one, with x28 in hexadecimal in place of
    // '#'. The MMU is off. x3-x8, x28 change.
print:
    ldr     x3, [x19, #{uart}]
    cbz     x3, 4f
    mov     x8, xzr                     // how many bits of x28 are left to print
0:  cbnz    x8, 1f
    ldrb    w5, [x4], #1
    cbz     w5, 4f
    cmp     w5, #'#'
    b.ne    2f
    orr     x7, x28, #1
    clz     x7, x7
    and     x7, x7, #0x3c               // the zeros in front
    lsl     x28, x28, x7
    mov     x8, #64
    sub     x8, x8, x7
1:  sub     x8, x8, #4
    ror     x28, x28, #60
    and     w5, w28, #0xf
    add     w5, w5, #'0'
    cmp     w5, #'9'
    b.ls    2f
    add     w5, w5, #('a' - '9' - 1)
    // A full FIFO has room after one character's time. One that stays full for a million polls is
    // stuck: the line ends there, and the move goes on.
2:  mov     w7, #(1 << 20)
3:  ldr     w6, [x3, #0x18]             // UARTFR
    tbz     w6, #5, 5f                  // TXFF
    sub     w7, w7, #1
    cbnz    w7, 3b
    b       4f
5:  str     w5, [x3]                    // UARTDR
    b       0b
4:  ret

    // Stores x4 in this CPU's word, and sends an event. x5 changes.
say:
    add     x5, x19, #{states}
    add     x5, x5, x21, lsl #3
    stlr    x4, [x5]
    dsb     ish
    sev
    ret

    // Calls PSCI by its conduit. x0-x17 change.
firmware:
    cmp     x27, #{conduit_hvc}
    b.eq    0f
    cmp     x27, #{conduit_smc}
    b.ne    1f
    smc     #0
1:  ret
0:  hvc     #0
    ret

    // The MMU is off: what caches hold of sources and destinations goes to memory before anything
    // is moved past them. Then no cache has lines of the destinations, and nothing brings them
    // back.
clean_before:
    mov     x26, xzr
6:  add     x9, x19, #{lists}
    ldr     x9, [x9, x26, lsl #3]
0:  ldp     x10, x11, [x9]
    ldr     x12, [x9, #16]
    add     x9, x9, #24
    and     x13, x12, #0xfff
    sub     x12, x12, x13
    cmp     x13, #{kind_link}
    b.ne    1f
    mov     x9, x10
    b       0b
1:  cbz     x12, 5f
    add     x14, x11, x12
2:  dc      civac, x11
    add     x11, x11, x22
    cmp     x11, x14
    b.lo    2b
    cmp     x13, #{kind_clear}
    b.eq    0b
    add     x14, x10, x12
3:  dc      civac, x10
    add     x10, x10, x22
    cmp     x10, x14
    b.lo    3b
    b       0b
5:  cbnz    x13, 0b
    add     x26, x26, #1
    ldr     x5, [x19, #{list_count}]
    cmp     x26, x5
    b.lo    6b
    dsb     sy
    b       move
.arch_extension nosimd
