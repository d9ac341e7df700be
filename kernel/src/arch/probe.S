// Accesses that may fault. Each returns (value, 0), or (ESR, 1) if it faults: the exception handler
// then continues at probe_fault.

.section .text.probe, "ax"
.global probe_load
probe_load:                             // x0 = address
    ldr     x0, [x0]
    mov     x1, xzr
    ret
.global probe_load_byte
probe_load_byte:                        // x0 = address
    ldrb    w0, [x0]
    mov     x1, xzr
    ret
.global probe_load_half
probe_load_half:                        // x0 = address
    ldrh    w0, [x0]
    mov     x1, xzr
    ret
.global probe_load_word
probe_load_word:                        // x0 = address
    ldr     w0, [x0]
    mov     x1, xzr
    ret
.global probe_store
probe_store:                            // x0 = address, x1 = value
    str     x1, [x0]
    mov     x1, xzr
    ret
.global probe_execute
probe_execute:                          // x0 = address of a RET
    str     x30, [sp, #-16]!
    blr     x0
.global probe_executed
probe_executed:
    mov     x1, xzr
    ldr     x30, [sp], #16
    ret
.global probe_execute_fault
probe_execute_fault:
    ldr     x30, [sp], #16
.global probe_fault
probe_fault:
    mov     x1, #1
    ret
