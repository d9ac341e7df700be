// Copies blocks of 256 bytes by pairs of vector registers. Neither address has to be aligned: the
// MMU is on, the memory is Normal, and SCTLR_EL1.A is 0.
//
// x0 destination        x1 source        x2 number of blocks, at least 1
//
// x0-x2, v0-v7 and v16-v23 change: a call may change all of them. Floating point must not trap.

.section .text.bulk, "ax"
.arch_extension simd
.balign 16
.global linmap_copy_blocks
linmap_copy_blocks:
    ldp     q0, q1, [x1]
    ldp     q2, q3, [x1, #32]
    ldp     q4, q5, [x1, #64]
    ldp     q6, q7, [x1, #96]
    ldp     q16, q17, [x1, #128]
    ldp     q18, q19, [x1, #160]
    ldp     q20, q21, [x1, #192]
    ldp     q22, q23, [x1, #224]
    add     x1, x1, #256
    stp     q0, q1, [x0]
    stp     q2, q3, [x0, #32]
    stp     q4, q5, [x0, #64]
    stp     q6, q7, [x0, #96]
    stp     q16, q17, [x0, #128]
    stp     q18, q19, [x0, #160]
    stp     q20, q21, [x0, #192]
    stp     q22, q23, [x0, #224]
    add     x0, x0, #256
    subs    x2, x2, #1
    b.ne    linmap_copy_blocks
    ret
.arch_extension nosimd

// The memcpy that compiled code calls to move values. The one that comes with the compiler is made
// for CPUs that may not access memory unaligned, and copies less than half as much with an
// instruction.
//
// x0 destination, returned        x1 source        x2 bytes
//
// x1-x11 change.
.section .text.memcpy, "ax"
.balign 16
.global memcpy
memcpy:
    mov     x3, x0
    subs    x2, x2, #64
    b.lo    1f
0:  ldp     x4, x5, [x1]
    ldp     x6, x7, [x1, #16]
    ldp     x8, x9, [x1, #32]
    ldp     x10, x11, [x1, #48]
    add     x1, x1, #64
    stp     x4, x5, [x3]
    stp     x6, x7, [x3, #16]
    stp     x8, x9, [x3, #32]
    stp     x10, x11, [x3, #48]
    add     x3, x3, #64
    subs    x2, x2, #64
    b.hs    0b
    // The low bits of x2 are still those of the length.
1:  tst     x2, #63
    b.eq    7f
    tbz     x2, #5, 2f
    ldp     x4, x5, [x1], #16
    ldp     x6, x7, [x1], #16
    stp     x4, x5, [x3], #16
    stp     x6, x7, [x3], #16
2:  tbz     x2, #4, 3f
    ldp     x4, x5, [x1], #16
    stp     x4, x5, [x3], #16
3:  tbz     x2, #3, 4f
    ldr     x4, [x1], #8
    str     x4, [x3], #8
4:  tbz     x2, #2, 5f
    ldr     w4, [x1], #4
    str     w4, [x3], #4
5:  tbz     x2, #1, 6f
    ldrh    w4, [x1], #2
    strh    w4, [x3], #2
6:  tbz     x2, #0, 7f
    ldrb    w4, [x1]
    strb    w4, [x3]
7:  ret
