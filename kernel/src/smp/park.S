// Leaving the live root and coming back. The change of root is break-before-make: nothing, nothing cached, then the other
// root (Arm ARM D8.16). In between the code runs from the identity map in TTBR0, with vectors that are mapped there.
//
// x0 TTBR1 to come back with               x4 physical address of park_vectors
// x1 TTBR value that translates nothing    x5 physical address of the word that says how long to wait
// x2 TTBR0 value of the identity map       x6 physical address of this CPU's own word
// x3 physical address of what to do there  x7 the value of the word for which to wait
//
// Interrupts are masked, TTBR0 and TTBR1 are as x1 and the live root say, TCR.T0SZ is the identity map's. x0-x11 change.

.section .text.park, "ax"
.global park
park:
    mrs     x9, vbar_el1
    adrp    x10, park_back
    add     x10, x10, :lo12:park_back
    msr     ttbr0_el1, x2
    isb
    br      x3
park_back:
    msr     ttbr0_el1, x1
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    ret

// At VA = PA.
.section .idmap.text, "ax"
// Waits while the word at x5 is x7, and says so in the word at x6.
.global park_and_wait
park_and_wait:
    msr     vbar_el1, x4
    msr     ttbr1_el1, x1
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    stlr    x7, [x6]
0:  ldar    x11, [x5]
    cmp     x11, x7
    b.ne    1f
    wfe
    b       0b
// Goes on with the other root at once.
.global park_and_go_on
park_and_go_on:
    msr     vbar_el1, x4
    msr     ttbr1_el1, x1
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
1:  msr     ttbr1_el1, x0
    isb
    msr     vbar_el1, x9
    br      x10

// All that can come here is a fault in the few instructions above: the CPU stays, and is missed.
.section .vectors, "ax"
.balign 2048
.global park_vectors
park_vectors:
    .rept 16
    .balign 128
0:  wfe
    b       0b
    .endr
