// The entry of each CPU, at EL1 with the MMU off; the vectors; the way to EL0 and back.

.set STACK, 0x10000

.section .text.entry, "ax"
.global _start
_start:
    adrp    x9, __stacks + STACK
    mov     sp, x9
    bl      first_maps                  // at its physical address
    mov     x0, #0
.global secondary
secondary:                              // with the number of the CPU
    adrp    x9, REGISTERS
    add     x9, x9, :lo12:REGISTERS
    ldp     x1, x2, [x9]
    ldp     x3, x4, [x9, #16]
    ldr     x5, [x9, #32]
    msr     mair_el1, x1
    msr     tcr_el1, x2
    msr     ttbr0_el1, x3
    msr     ttbr1_el1, x4
    isb
    tlbi    vmalle1
    dsb     nsh
    ic      iallu
    dsb     nsh
    isb
    mrs     x6, sctlr_el1
    orr     x6, x6, x5
    msr     sctlr_el1, x6
    isb
    ldr     x9, =vectors                // from here on in the upper half
    msr     vbar_el1, x9
    ldr     x9, =__stacks
    add     x10, x0, #1
    mov     x11, #STACK
    madd    x9, x10, x11, x9
    mov     sp, x9
    ldr     x9, =kernel_main
    br      x9

.balign 2048
vectors:
    .rept 8
    .balign 128
    b       exception
    .endr
    .balign 128                         // synchronous, from EL0
    b       leave_user
    .rept 7
    .balign 128
    b       exception
    .endr

// Runs at EL0 by the registers that x0 points to, until an exception: x0 to x30, PC, PSTATE.
.global enter_user
enter_user:
    stp     x29, x30, [sp, #-112]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    str     x0, [sp, #96]
    ldp     x1, x2, [x0, #248]
    msr     elr_el1, x1
    msr     spsr_el1, x2
    .irp    n, 30,29,28,27,26,25,24,23,22,21,20,19,18,17,16,15,14,13,12,11,10,9,8,7,6,5,4,3,2,1,0
    ldr     x\n, [x0, #8 * \n]
    .endr
    eret

leave_user:
    str     x0, [sp, #104]
    ldr     x0, [sp, #96]
    .irp    n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    str     x\n, [x0, #8 * \n]
    .endr
    ldr     x1, [sp, #104]
    str     x1, [x0]
    mrs     x1, elr_el1
    mrs     x2, spsr_el1
    stp     x1, x2, [x0, #248]
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #112
    ret

// The page of code that all processes share. Each routine ends with a system call.
.section .user, "ax"
.balign 4096
.global user_code
user_code:
user_fill:                              // x0 to each word from x1 to x2
    str     x0, [x1], #8
    cmp     x1, x2
    b.lo    user_fill
    svc     #0
.global user_check
user_check:                             // x0: the first word from x1 to x2 that is not x0, or x0
    ldr     x3, [x1], #8
    cmp     x3, x0
    b.ne    1f
    cmp     x1, x2
    b.lo    user_check
1:  mov     x0, x3
    svc     #0
.global user_jump
user_jump:
    br      x1
.balign 4096
