// Compares entries of a table with first, first + step, first + 2 × step and so on.
//
// x0 = entries, x1 = how many turns of 64 entries, not 0, x2 = first, x3 = step. Returns in x0 how
// many turns, from the first on, are right. Changes x1 to x5, v0 to v4 and v16 to v21, and nothing
// else.

.arch_extension simd

.section .text.compare, "ax"
.global compare_entries
compare_entries:
    // v0 to v3: the next eight values that are expected. v4: from eight to the next eight.
    dup     v0.2d, x2
    add     x4, x2, x3
    ins     v0.d[1], x4
    lsl     x4, x3, #1
    dup     v4.2d, x4
    add     v1.2d, v0.2d, v4.2d
    add     v2.2d, v1.2d, v4.2d
    add     v3.2d, v2.2d, v4.2d
    shl     v4.2d, v4.2d, #2
    mov     x5, x1
0:  // v20 and v21: all bits that differ.
    movi    v20.2d, #0
    movi    v21.2d, #0
.irp at, 0, 64, 128, 192, 256, 320, 384, 448
    ldp     q16, q17, [x0, #\at]
    ldp     q18, q19, [x0, #\at + 32]
    eor     v16.16b, v16.16b, v0.16b
    eor     v17.16b, v17.16b, v1.16b
    eor     v18.16b, v18.16b, v2.16b
    eor     v19.16b, v19.16b, v3.16b
    orr     v20.16b, v20.16b, v16.16b
    orr     v21.16b, v21.16b, v17.16b
    orr     v20.16b, v20.16b, v18.16b
    orr     v21.16b, v21.16b, v19.16b
    add     v0.2d, v0.2d, v4.2d
    add     v1.2d, v1.2d, v4.2d
    add     v2.2d, v2.2d, v4.2d
    add     v3.2d, v3.2d, v4.2d
.endr
    orr     v20.16b, v20.16b, v21.16b
    umaxp   v20.4s, v20.4s, v20.4s
    fmov    x4, d20
    cbnz    x4, 1f
    add     x0, x0, #512
    subs    x5, x5, #1
    b.ne    0b
1:  sub     x0, x1, x5
    ret

.arch_extension nosimd
