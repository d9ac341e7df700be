// The entry of each CPU at EL2 with the MMU off, the vectors, and the way into the guest.

.section .text.entry, "ax"
.global _start
_start:                                 // the boot CPU
    msr     daifset, #0xf
    adrp    x9, __stacks_end
    mov     sp, x9
    adrp    x9, __bss_start
    adrp    x10, __bss_end
0:  stp     xzr, xzr, [x9], #16
    cmp     x9, x10
    b.lo    0b
    bl      prepare

// The entry of every CPU; x0 is its `cpu::Start`, which firmware passes on.
.global start_cpu
start_cpu:
    msr     daifset, #0xf
    ldp     x1, x2, [x0]                // hcr, mair
    ldp     x3, x4, [x0, #16]           // tcr, ttbr0
    ldp     x5, x6, [x0, #32]           // sctlr, stack
    ldp     x7, x8, [x0, #48]           // number, main
    msr     hcr_el2, x1
    isb
    msr     mair_el2, x2
    msr     tcr_el2, x3
    msr     ttbr0_el2, x4
    adr     x9, vectors
    msr     vbar_el2, x9
    msr     tpidr_el2, x7
    isb
    tlbi    alle2
    tlbi    vmalls12e1
    dsb     nsh
    ic      iallu
    dsb     nsh
    isb
    mrs     x9, sctlr_el2
    orr     x9, x9, x5
    msr     sctlr_el2, x9
    isb
    mov     sp, x6
    br      x8

// Enters the guest at EL1 with its MMU off, as booting.rst asks: x0 is its own, x1 the entry, x2
// the stack for the traps that follow.
.global enter_guest
enter_guest:
    mov     x3, #0x3c5                  // EL1h, DAIF masked
    msr     spsr_el2, x3
    msr     elr_el2, x1
    mov     sp, x2
    .irp    n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    mov     x\n, xzr
    .endr
    eret

.macro unexpected
    .balign 128
    mrs     x0, esr_el2
    mrs     x1, elr_el2
    mrs     x2, far_el2
    b       unexpected_exception
.endm

lower_el:
    sub     sp, sp, #256
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    str     x\n, [sp, #8 * \n]
    .endr
    mov     x0, sp
    bl      guest_trap
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    ldr     x\n, [sp, #8 * \n]
    .endr
    add     sp, sp, #256
    eret

.balign 2048
vectors:
    .rept   8                           // from EL2
    unexpected
    .endr
    .balign 128                         // synchronous, from EL1 and EL0
    b       lower_el
    .rept   7
    unexpected
    .endr
