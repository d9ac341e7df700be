// The entry of each CPU, at EL1 with the MMU off, and the vectors. All is mapped where it is.

.set STACK, 0x10000

.section .text.entry, "ax"
.global _start
_start:
    adrp    x9, __stack_end
    mov     sp, x9
    bl      first_map
    mov     x0, #0
    b       mmu_on
.global secondary
secondary:                              // with the number of the CPU
    adrp    x9, __crew_stacks
    add     x10, x0, #1
    mov     x11, #STACK
    madd    x9, x10, x11, x9
    mov     sp, x9
mmu_on:
    adrp    x9, REGISTERS
    add     x9, x9, :lo12:REGISTERS
    ldp     x1, x2, [x9]
    ldp     x3, x4, [x9, #16]
    msr     mair_el1, x1
    msr     tcr_el1, x2
    msr     ttbr0_el1, x3
    isb
    tlbi    vmalle1
    dsb     nsh
    ic      iallu
    dsb     nsh
    isb
    mrs     x5, sctlr_el1
    orr     x5, x5, x4
    msr     sctlr_el1, x5
    isb
    adr     x9, vectors
    msr     vbar_el1, x9
    isb
    b       enter

.balign 2048
vectors:
    .rept 16
    .balign 128
    b       exception
    .endr
