// Exception vectors. Every exception saves all registers in a frame on the exception stack and
// calls Rust. Rust returns if the interrupted code continues, at the ELR in the frame.

.macro vector source
    .balign 128
    sub     sp, sp, #{frame_len}
    stp     x0, x1, [sp]
    mov     x0, #\source
    b       exception_entry
.endm

.macro store_x2_to_x29 frame
    stp     x2, x3, [\frame, #16]
    stp     x4, x5, [\frame, #32]
    stp     x6, x7, [\frame, #48]
    stp     x8, x9, [\frame, #64]
    stp     x10, x11, [\frame, #80]
    stp     x12, x13, [\frame, #96]
    stp     x14, x15, [\frame, #112]
    stp     x16, x17, [\frame, #128]
    stp     x18, x19, [\frame, #144]
    stp     x20, x21, [\frame, #160]
    stp     x22, x23, [\frame, #176]
    stp     x24, x25, [\frame, #192]
    stp     x26, x27, [\frame, #208]
    stp     x28, x29, [\frame, #224]
.endm

.section .vectors, "ax"
.balign 2048
.global vectors
vectors:
    .set source, 0
    .rept 16
    vector  source
    .set source, source + 1
    .endr

.section .text.exception_entry, "ax"
exception_entry:
    store_x2_to_x29 sp
    mrs     x2, elr_el1
    stp     x30, x2, [sp, #240]
    mrs     x2, spsr_el1
    mrs     x3, esr_el1
    stp     x2, x3, [sp, #256]
    mrs     x2, far_el1
    mrs     x3, sp_el0
    tbz     x0, #2, 0f
    add     x3, sp, #{frame_len}        // a handler was interrupted, on this stack
0:  stp     x2, x3, [sp, #272]
    mov     x1, sp
    bl      exception
    ldp     x30, x2, [sp, #240]
    msr     elr_el1, x2
    ldr     x2, [sp, #256]
    msr     spsr_el1, x2
    ldp     x28, x29, [sp, #224]
    ldp     x26, x27, [sp, #208]
    ldp     x24, x25, [sp, #192]
    ldp     x22, x23, [sp, #176]
    ldp     x20, x21, [sp, #160]
    ldp     x18, x19, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    add     sp, sp, #{frame_len}
    eret

// Stores the registers of the caller in the frame at x0, as if it was interrupted at the return
// address. Clobbers x1, x2.
.section .text.store_registers, "ax"
.global store_registers
store_registers:
    stp     x0, x1, [x0]
    store_x2_to_x29 x0
    stp     x30, x30, [x0, #240]
    mrs     x1, nzcv
    mrs     x2, daif
    orr     x1, x1, x2
    mrs     x2, currentel
    orr     x1, x1, x2
    mrs     x2, spsel
    orr     x1, x1, x2
    stp     x1, xzr, [x0, #256]
    mov     x2, sp
    stp     xzr, x2, [x0, #272]
    ret
