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
