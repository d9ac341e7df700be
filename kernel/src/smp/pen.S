// Where a CPU from a spin table waits for the next kernel: the first bytes of the pen's page,
// position independent. Entered with MMU and caches off, at the exception level that the firmware
// entered the CPU at.
//
// x0 the CPU's mark (physical): it says that it is here, and from then on touches nothing but this
// page
//
// What it reads and stores is Device memory, past all caches. What it fetches is this page.

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
    // Nothing that was fetched before is left: another kernel is there now.
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
