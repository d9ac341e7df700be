// Leaving the live root for good, as park.S does it for a while: from the identity map, with the registers that its head
// names. x0 says how the CPU goes off (CONDUIT_*). x7 goes to the CPU's own word when it has left.

.section .idmap.text, "ax"
.global park_for_good
park_for_good:
    msr     vbar_el1, x4
    msr     ttbr1_el1, x1
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    stlr    x7, [x6]
    mov     x9, x0
    cmp     x9, #{conduit_wait}
    b.eq    secondary_again
    movz    x0, #0x8400, lsl #16        // PSCI CPU_OFF
    movk    x0, #0x0002
    cmp     x9, #{conduit_hvc}
    b.ne    2f
    hvc     #0
2:  cmp     x9, #{conduit_smc}
    b.ne    3f
    smc     #0
3:  wfi
    b       3b
