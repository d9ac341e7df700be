// Leaving the live root and coming back. A change of root is break-before-make: a root that
// translates nothing, nothing cached, then the other root (Arm ARM D8.16). In between the code runs
// from the identity map in TTBR0, with vectors that are mapped there.
//
// x0 TTBR1 to come back with               x4 physical address of linmap_park_vectors
// x1 TTBR value that translates nothing    x5 physical address of the request
// x2 TTBR0 value of the identity map       x6 physical address of this CPU's own word
// x3 physical address of the second part   x7 the request for which to wait
//
// Interrupts are masked. TTBR0 holds x1, TTBR1 the live root, and TCR.T0SZ fits the identity map.
// x0-x11 change.

.section .text.linmap_park, "ax"
.global linmap_park
linmap_park:
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

// The second part, at VA = PA: one of these two.
.section .idmap.text, "ax"
// Stores x7 in the word at x6, and waits while the request at x5 is x7.
.global linmap_park_and_wait
linmap_park_and_wait:
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
// Switches to the other root at once.
.global linmap_park_and_go_on
linmap_park_and_go_on:
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

// Only a fault in the instructions above leads here. The CPU stays, and the rendezvous times out.
.section .vectors, "ax"
.balign 2048
.global linmap_park_vectors
linmap_park_vectors:
    .rept 16
    .balign 128
0:  wfe
    b       0b
    .endr
