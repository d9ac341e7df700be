// Where a CPU from a spin table waits for the next kernel: the first bytes of the pen's page,
// position independent. Entered with MMU and caches off, at the exception level at which the
// firmware entered the CPU. x0 = the CPU's mark (physical), which it sets; after that it only
// accesses this page.
//
// Loads and stores are Device accesses, past all caches. Instructions are only fetched from this
// page.

.section .rodata.pen, "a"
.balign 16
.global pen_start
pen_start:
    msr     daifset, #0xf
    mov     w1, #1
    str     w1, [x0]
    dsb     sy
    sev
    adr     x2, pen_start + {release}
0:  ldr     x4, [x2]
    cbnz    x4, 1f
    wfe
    b       0b
    // Another kernel is in memory now: invalidate instructions that were fetched before.
1:  ic      iallu
    dsb     nsh
    isb
    mov     x0, xzr
    mov     x1, xzr
    mov     x2, xzr
    mov     x3, xzr
    br      x4
.global pen_end
pen_end:
