// Leaving the live root for good: a second part for linmap_park, with the registers that its head
// names. x7 goes to the CPU's own word when it has left. x0 says where the CPU goes: 0 nowhere,
// {off_hvc} off by PSCI through HVC, {off_smc} off by PSCI through SMC, or else to the code at that
// physical address, with the MMU on.

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
    cmp     x9, #{off_smc}
    b.hi    1f
    movz    x0, #0x8400, lsl #16        // PSCI CPU_OFF
    movk    x0, #0x0002
    cmp     x9, #{off_hvc}
    b.ne    2f
    hvc     #0
2:  cmp     x9, #{off_smc}
    b.ne    3f
    smc     #0
3:  wfi
    b       3b
1:  br      x9
