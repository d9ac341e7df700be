// SHA-256 (FIPS 180-4) of whole blocks, with the CPU's SHA-256 instructions where
// ID_AA64ISAR0_EL1.SHA2 says that it has them. Position independent, without a stack: it is part of
// the relocation code, and runs with the MMU on or off.
//
// linmap_sha256_by_instructions and linmap_sha256_by_words are its two ways, for callers that
// compare them.
//
// x0 state, eight words of 32 bits        x2 number of blocks of 64 bytes, at least 1
// x1 data, aligned to 16 bytes            x3 room for 128 bytes, aligned to 16
//
// x0-x17, v0-v7 and v16-v18 change. Floating point must not trap.

.section .text.relocate, "ax"
.arch_extension crypto
.balign 4
.global linmap_sha256_blocks
linmap_sha256_blocks:
    mrs     x5, id_aa64isar0_el1
    tst     x5, #(0xf << 12)
    b.eq    linmap_sha256_by_words

.global linmap_sha256_by_instructions
linmap_sha256_by_instructions:
    adr     x4, sha256_constants
    // Four rounds with the words in w0, which the four words 16 later replace.
.macro four_rounds w0, w1, w2, w3
    four_last_rounds \w0, "sha256su0 \w0\().4s, \w1\().4s"
    sha256su1 \w0\().4s, \w2\().4s, \w3\().4s
.endm
.macro four_last_rounds w0, between=""
    ldr     q16, [x5], #16
    add     v17.4s, v16.4s, \w0\().4s
    \between
    mov     v18.16b, v0.16b
    sha256h q0, q1, v17.4s
    sha256h2 q1, q18, v17.4s
.endm
    ldp     q0, q1, [x0]
0:  ldp     q4, q5, [x1], #32
    ldp     q6, q7, [x1], #32
    mov     x5, x4
    rev32   v4.16b, v4.16b
    rev32   v5.16b, v5.16b
    rev32   v6.16b, v6.16b
    rev32   v7.16b, v7.16b
    mov     v2.16b, v0.16b
    mov     v3.16b, v1.16b
    .rept 3
    four_rounds v4, v5, v6, v7
    four_rounds v5, v6, v7, v4
    four_rounds v6, v7, v4, v5
    four_rounds v7, v4, v5, v6
    .endr
    four_last_rounds v4
    four_last_rounds v5
    four_last_rounds v6
    four_last_rounds v7
    add     v0.4s, v0.4s, v2.4s
    add     v1.4s, v1.4s, v3.4s
    subs    x2, x2, #1
    b.ne    0b
    stp     q0, q1, [x0]
    ret

    // Round by round: a to h in w6 to w13, the last 16 words in the room at x3.
.global linmap_sha256_by_words
linmap_sha256_by_words:
    adr     x4, sha256_constants
    stp     x19, x20, [x3, #64]
    stp     x21, x22, [x3, #80]
0:  ldp     w6, w7, [x0]
    ldp     w8, w9, [x0, #8]
    ldp     w10, w11, [x0, #16]
    ldp     w12, w13, [x0, #24]
    mov     x5, xzr
1:  ldr     w14, [x1], #4
    rev     w14, w14
    str     w14, [x3, x5, lsl #2]
    add     x5, x5, #1
    cmp     x5, #16
    b.ne    1b
    mov     x5, xzr
2:  and     x15, x5, #15
    ldr     w16, [x3, x15, lsl #2]
    ldr     w17, [x4, x5, lsl #2]
    add     w17, w17, w16
    add     w17, w17, w13
    ror     w14, w10, #6
    eor     w14, w14, w10, ror #11
    eor     w14, w14, w10, ror #25
    add     w17, w17, w14
    and     w14, w10, w11
    bic     w19, w12, w10
    eor     w14, w14, w19
    add     w17, w17, w14               // T1
    ror     w14, w6, #2
    eor     w14, w14, w6, ror #13
    eor     w14, w14, w6, ror #22
    and     w19, w6, w7
    eor     w20, w6, w7
    and     w20, w20, w8
    eor     w19, w19, w20
    add     w14, w14, w19               // T2
    mov     w13, w12
    mov     w12, w11
    mov     w11, w10
    add     w10, w9, w17
    mov     w9, w8
    mov     w8, w7
    mov     w7, w6
    add     w6, w14, w17
    // The word 16 later replaces this one.
    add     x14, x5, #1
    and     x14, x14, #15
    ldr     w19, [x3, x14, lsl #2]
    ror     w20, w19, #7
    eor     w20, w20, w19, ror #18
    eor     w20, w20, w19, lsr #3
    add     w16, w16, w20
    add     x14, x5, #9
    and     x14, x14, #15
    ldr     w19, [x3, x14, lsl #2]
    add     w16, w16, w19
    add     x14, x5, #14
    and     x14, x14, #15
    ldr     w19, [x3, x14, lsl #2]
    ror     w20, w19, #17
    eor     w20, w20, w19, ror #19
    eor     w20, w20, w19, lsr #10
    add     w16, w16, w20
    str     w16, [x3, x15, lsl #2]
    add     x5, x5, #1
    cmp     x5, #64
    b.ne    2b
    ldp     w14, w15, [x0]
    add     w6, w6, w14
    add     w7, w7, w15
    stp     w6, w7, [x0]
    ldp     w14, w15, [x0, #8]
    add     w8, w8, w14
    add     w9, w9, w15
    stp     w8, w9, [x0, #8]
    ldp     w14, w15, [x0, #16]
    add     w10, w10, w14
    add     w11, w11, w15
    stp     w10, w11, [x0, #16]
    ldp     w14, w15, [x0, #24]
    add     w12, w12, w14
    add     w13, w13, w15
    stp     w12, w13, [x0, #24]
    subs    x2, x2, #1
    b.ne    0b
    ldp     x19, x20, [x3, #64]
    ldp     x21, x22, [x3, #80]
    ret

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
.balign 16
sha256_constants:
    .long   0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5
    .long   0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174
    .long   0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da
    .long   0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967
    .long   0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85
    .long   0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070
    .long   0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3
    .long   0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
// Of the square roots of the first 8: the state before the first block.
.global linmap_sha256_initial
linmap_sha256_initial:
    .long   0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
.arch_extension nocrypto
