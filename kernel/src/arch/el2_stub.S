// The stub at EL2 below which the kernel runs at EL1: vectors that handle two calls.
//
// HVC with x0 = {hvc_set_vectors}, x1 = the physical address of a copy of this stub: EL2 takes its
// exceptions there from now on. HVC with x0 = {hvc_restart}, x1 = entry point, x2 = DTB: enters it
// at EL2 with x0 = DTB, x1-x3 = 0, DAIF masked, EL2's MMU off as it always was. The caller has
// turned EL1's MMU off and cleaned the payload to the point of coherency. Any other HVC returns -1
// in x0, the value of SMCCC for unknown calls. Any other exception spins here, because no code
// could handle it.

.macro spin_vector
    .balign 128
0:  wfi
    b       0b
.endm

.section .vectors, "ax"
.balign 2048
.global el2_stub_vectors
el2_stub_vectors:
    .rept 8
    spin_vector
    .endr
    .balign 128                         // synchronous, from a lower EL in AArch64
    mrs     x9, esr_el2
    lsr     x9, x9, #26
    cmp     x9, #0x16                   // HVC from AArch64
    b.ne    1f
    cmp     x0, #{hvc_set_vectors}
    b.ne    2f
    msr     vbar_el2, x1
    eret
2:  cmp     x0, #{hvc_restart}
    b.ne    0f
    mov     x4, x1
    mov     x0, x2
    mov     x1, xzr
    mov     x2, xzr
    mov     x3, xzr
    ic      iallu
    dsb     nsh
    isb
    br      x4
0:  mov     x0, #-1
    eret
1:  wfi
    b       1b
    .rept 7
    spin_vector
    .endr
