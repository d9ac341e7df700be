// The last code that runs: moves the payload where it belongs, turns MMU and caches off, and enters it. It runs from a
// copy in a frame of its own, mapped 1:1 by TTBR0, uses no stack and no memory but what the move list names, and
// touches neither vectors nor the old tables after the first few instructions.
//
// x0 first frame of the move list (physical)    x4 TTBR1 value of the transitional linear map
// x1 VA - PA of the linear map                  x5 TTBR1 value that translates nothing
// x2 entry point (physical)                     x6 0, or the HVC number of the EL2 stub's restart
// x3 DTB (physical)                             x7 SCTLR_EL1 value, MMU and caches off
//
// The move list's form is linmap_kexec::MoveList's: records of source, destination, length; length 0 ends the list,
// all ones links to the frame in `source`. Lengths are whole pages.

.section .rodata.relocate, "a"
.balign 8
.global relocate_start
relocate_start:
    msr     spsel, #1
    mrs     x8, ctr_el0
    ubfx    x8, x8, #16, #4             // DminLine
    mov     x9, #4
    lsl     x8, x9, x8
    // The root changes by break-before-make: nothing, nothing cached, then the transitional tables.
    msr     ttbr1_el1, x5
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    msr     ttbr1_el1, x4
    isb
    add     x9, x0, x1
0:  ldp     x10, x11, [x9]
    ldr     x12, [x9, #16]
    cbz     x12, 4f
    add     x10, x10, x1
    cmn     x12, #1
    b.eq    3f
    add     x9, x9, #24
    add     x11, x11, x1
    add     x14, x11, x12
    mov     x13, x11
1:  ldp     x15, x16, [x10]
    ldp     x17, x18, [x10, #16]
    ldp     x19, x20, [x10, #32]
    ldp     x21, x22, [x10, #48]
    add     x10, x10, #64
    stp     x15, x16, [x13]
    stp     x17, x18, [x13, #16]
    stp     x19, x20, [x13, #32]
    stp     x21, x22, [x13, #48]
    add     x13, x13, #64
    cmp     x13, x14
    b.lo    1b
    // Cleaned, because the payload is entered with caches off; invalidated, because it may map the memory otherwise.
2:  dc      civac, x11
    add     x11, x11, x8
    cmp     x11, x14
    b.lo    2b
    b       0b
3:  mov     x9, x10
    b       0b
4:  dsb     sy
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x7
    isb
    cbnz    x6, 5f
    mov     x4, x2
    mov     x0, x3
    mov     x1, xzr
    mov     x2, xzr
    mov     x3, xzr
    br      x4
5:  mov     x0, x6
    mov     x1, x2
    mov     x2, x3
    hvc     #0
.global relocate_end
relocate_end:
