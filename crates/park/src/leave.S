// Leaving the live root for good: a second part for linmap_park, with the registers that its head
// names. x7 goes to the CPU's own word when it has left. x0 says where the CPU goes: 0 nowhere;
// with bit {psci_bit} set off by PSCI, whose CPU_OFF has the number in bits 31:0, through SMC if
// bit {smc_bit} is set and HVC if not; or else to the code at that physical address, with the MMU
// on.

.section .idmap.text, "ax"
.global linmap_park_for_good
linmap_park_for_good:
    msr     vbar_el1, x4
    msr     ttbr1_el1, x1
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    stlr    x7, [x6]
    mov     x9, x0
    tbz     x9, #{psci_bit}, 1f
    mov     w0, w9
    tbnz    x9, #{smc_bit}, 2f
    hvc     #0
    b       3f
2:  smc     #0
3:  wfi
    b       3b
1:  cbz     x9, 3b
    br      x9
