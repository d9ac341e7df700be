// What a boot loader did wrong, said on the console that the image's command line names; then the
// CPU halts.
//
// This runs at any exception level, with the MMU off, without a stack, and from any multiple of 4
// bytes: ADR alone forms addresses, since ADRP needs the image on a page boundary, and nothing is
// loaded that is wider than its alignment.

.section .head.refuse, "ax"

.macro refusal name, what
.global \name
\name:
    adr     x8, 0f
    b       refuse
0:  .ascii  "linmap cannot continue: "
    .ascii  "\what"
    .ascii  "\r\nlinmap: error=entry what=\""
    .ascii  "\what"
    .asciz  "\"\r\n"
    .balign 4
.endm

refusal refuse_place, "the boot loader has not loaded the image text_offset above a multiple of 2 MiB"
refusal refuse_level, "the boot loader entered the image at EL3, but an image is entered at EL2 or EL1"
.if {page_shift} == 12
refusal refuse_granule, "the CPU does not have the 4K granule"
.elseif {page_shift} == 14
refusal refuse_granule, "the CPU does not have the 16K granule"
.else
refusal refuse_granule, "the CPU does not have the 64K granule"
.endif

// Prints the text at x8 on the UART of the last `earlycon=` in the image's command line, and halts.
refuse:
    adr     x9, {line} + {line_text}
    mov     x7, xzr                     // what follows the last `earlycon=`
0:  adr     x10, earlycon               // x9 is the start of a word
    bl      starts_with
    csel    x7, x11, x7, eq
1:  ldrb    w0, [x9], #1
    cbz     w0, 2f
    cmp     w0, #' '
    b.ne    1b
    b       0b

2:  cbz     x7, halt
    mov     x9, x7
    adr     x10, drivers
3:  mov     x6, x10                     // the entry of the driver
    ldrb    w0, [x6]
    cbz     w0, halt
    bl      starts_with
    b.eq    4f
    add     x10, x6, #16
    b       3b
4:  mov     x9, x11
    ldrb    w14, [x6, #13]              // the shift of a register's number
    mov     w15, w14                    // log2 of the width of an access
    ldrb    w0, [x6, #14]
    cbnz    w0, 5f
    mov     w15, #2

5:  adr     x10, accesses
6:  mov     x5, x10
    ldrb    w0, [x5]
    cbz     w0, 8f                      // the address follows
    bl      starts_with
    b.eq    7f
    add     x10, x5, #12
    b       6b
7:  mov     x9, x11
    ldrb    w0, [x6, #14]
    cbz     w0, 8f
    ldrb    w14, [x5, #8]
    mov     w15, w14

8:  adr     x10, hexadecimal
    bl      starts_with
    b.ne    halt
    mov     x16, xzr                    // the address of the registers
9:  ldrb    w0, [x11], #1
    sub     w1, w0, #'0'
    cmp     w1, #9
    b.ls    10f
    orr     w0, w0, #0x20               // lower case
    sub     w1, w0, #('a' - 10)
    sub     w2, w0, #'a'
    cmp     w2, #5
    b.hi    11f
10: add     x16, x1, x16, lsl #4
    b       9b
11: cbz     x16, halt
    mov     x0, #-1
    lsl     x0, x0, x15
    bics    xzr, x16, x0
    b.ne    halt                        // not aligned to the width

    ldrb    w0, [x6, #12]
    mov     w1, #{model_len}
    adr     x17, {models}
    madd    x17, x0, x1, x17            // its model
    ldr     w3, [x17, #{control}]
    bl      load
    ldr     w1, [x17, #{enabled_mask}]
    ldr     w2, [x17, #{enabled_value}]
    and     w0, w0, w1
    cmp     w0, w2
    b.eq    14f
    add     x4, x17, #{settings}
    mov     w5, #{setting_count}
12: ldr     w2, [x4, #{setting_set}]
    cbz     w2, 13f
    ldr     w3, [x4, #{setting_register}]
    bl      load
    ldr     w1, [x4, #{setting_clear}]
    bic     w0, w0, w1
    orr     w0, w0, w2
    bl      store
13: add     x4, x4, #{setting_len}
    subs    w5, w5, #1
    b.ne    12b

14: ldrb    w12, [x8], #1
    cbz     w12, halt
    mov     w13, #{most_polls}
15: ldr     w3, [x17, #{status}]
    bl      load
    ldr     w1, [x17, #{full_mask}]
    ldr     w2, [x17, #{full_value}]
    and     w0, w0, w1
    cmp     w0, w2
    b.ne    16f
    subs    w13, w13, #1
    b.ne    15b
    b       halt                        // it takes no byte
16: mov     w0, w12
    ldr     w3, [x17, #{transmit}]
    bl      store
    b       14b

halt:
    wfi
    b       halt

// Whether the text at x9 starts with the one at x10: Z. x11 follows it then. Clobbers x10, x12,
// x13.
starts_with:
    mov     x11, x9
0:  ldrb    w12, [x10], #1
    cmp     w12, #0
    b.eq    1f
    ldrb    w13, [x11], #1
    cmp     w12, w13
    b.eq    0b
1:  ret

// Loads register w3 into w0. Clobbers x1.
load:
    lsl     x1, x3, x14
    add     x1, x1, x16
    tbnz    w15, #1, 1f
    tbnz    w15, #0, 0f
    ldrb    w0, [x1]
    ret
0:  ldrh    w0, [x1]
    ret
1:  ldr     w0, [x1]
    ret

// Stores w0 in register w3. Clobbers x1.
store:
    lsl     x1, x3, x14
    add     x1, x1, x16
    tbnz    w15, #1, 1f
    tbnz    w15, #0, 0f
    strb    w0, [x1]
    ret
0:  strh    w0, [x1]
    ret
1:  str     w0, [x1]
    ret

// The drivers as in linmap_platform's `Uart::from_earlycon`: the name, the index of the model, the
// shift, and whether shift and width follow from the access.
.macro driver name, model, shift, by_access
0:  .ascii  "\name"
    .fill   12 - (. - 0b), 1, 0
    .byte   \model, \shift, \by_access, 0
.endm
drivers:
    driver  "pl011,", {pl011}, 0, 0
    driver  "uart8250,", {ns16550}, 0, 1
    driver  "uart,", {ns16550}, 0, 1
    driver  "ns16550,", {ns16550}, 0, 1
    driver  "ns16550a,", {ns16550}, 0, 1
    driver  "bcm2835aux,", {ns16550}, 2, 0
    driver  "cdns,", {cadence}, 0, 0
    driver  "ec_imx6q,", {imx}, 0, 0
    driver  "ec_imx21,", {imx}, 0, 0
    .byte   0

// The accesses: the word, and log2 of the width.
.macro access word, width
0:  .ascii  "\word"
    .fill   8 - (. - 0b), 1, 0
    .byte   \width, 0, 0, 0
.endm
accesses:
    access  "mmio,", 0
    access  "mmio16,", 1
    access  "mmio32,", 2
    .byte   0

earlycon:
    .asciz  "earlycon="
hexadecimal:
    .asciz  "0x"
    .balign 4
