// The entry, at EL1, EL2 or EL3 with the MMU off, and the vectors.

.section .text.entry, "ax"
.global _start
_start:
    adrp    x9, __stack_top
    mov     sp, x9
    adr     x9, vectors
    mrs     x0, currentel
    ubfx    x0, x0, #2, #2
    cmp     x0, #2
    b.gt    3f
    b.eq    2f
    msr     vbar_el1, x9
    b       4f
2:  msr     vbar_el2, x9
    mov     x10, #(1 << 31)             // RW; E2H is UNKNOWN after a reset, and the regime is EL2
    msr     hcr_el2, x10
    b       4f
3:  msr     vbar_el3, x9
4:  isb
    b       main                        // with the exception level

.balign 2048
vectors:
    .rept 16
    .balign 128
    mrs     x0, currentel
    ubfx    x0, x0, #2, #2
    b       exception
    .endr
