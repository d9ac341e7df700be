// From the firmware to Rust, for every CPU but the first. Entered with the MMU off, by PSCI CPU_ON
// or from a spin table.
//
// Until the MMU is on, a CPU only reads SECONDARY_BOOT, which the boot CPU has cleaned to the point
// of coherency. It only stores its status and its answer there, in cache lines of their own, which
// the boot CPU invalidates before it reads them, and its mark in the pen.
//
// Registers preserved throughout: x19 affinity, x20 the code of the entry (ENTERED_*), x22
// SECONDARY_BOOT, x23 the last question that was answered.

.section .idmap.text, "ax"
.global secondary_entry
secondary_entry:
    msr     daifset, #0xf
    bl      enter_el
    mrs     x0, mpidr_el1
    mov_q   x1, {affinity_mask}
    and     x19, x0, x1
    adr_l   x22, SECONDARY_BOOT
    mov     x23, xzr
wait_for_call:
    // A CPU that is not called waits here, where it walks no tables, and answers when it is asked.
    // It may share the mailbox of a spin-table CPU that is called. It may arrive after it timed
    // out. Or it came from a spin table and leaves, and has no other place to wait.
0:  ldr     x0, [x22, #{boot_called}]
    cmp     x0, x19
    b.eq    1f
    ldr     x0, [x22, #{boot_asked}]
    eor     x1, x0, x19                 // the affinity asked for, below the question's number
    lsl     x1, x1, #(64 - {asked_number_at})
    cbnz    x1, 3f
    cmp     x0, x23
    b.eq    3f
    mov     x23, x0
    str     x0, [x22, #{boot_answer}]
    dsb     sy
3:  wfe
    b       0b
    // The CPU says that it arrives and looks again. If the boot CPU withdraws the call in between,
    // either the boot CPU sees the status, or this CPU sees that it is not called.
1:  mov     x2, #{coming}
    lsl     x2, x2, #56
    orr     x2, x2, x19
    str     x2, [x22, #{boot_status}]
    dsb     sy
    ldr     x0, [x22, #{boot_called}]
    cmp     x0, x19
    b.eq    2f
    str     xzr, [x22, #{boot_status}]
    dsb     sy
    b       0b
2:  ldr     x2, [x22, #{boot_pen}]
    cbnz    x2, to_pen
    // The exception level has to be the boot CPU's, because its TLB maintenance reaches only that.
    ldr     x0, [x22, #{boot_entered}]
    mov     x2, #{refused_level}
    cmp     x0, x20
    b.ne    refused
    mrs     x0, id_aa64mmfr0_el1
    mov     x2, #{refused_granule}
    require_granule refused
    ldr     x24, [x22, #{boot_tcr}]
    mov     x2, #{refused_va_size}
    require_wide_addresses refused
    and     x0, x0, #0xf                // PARange
    ldr     x1, [x22, #{boot_pa_range}]
    mov     x2, #{refused_pa_range}
    cmp     x0, x1
    b.lo    refused
    mrs     x0, id_aa64pfr1_el1
    ubfx    x0, x0, #8, #4              // MTE
    ldr     x1, [x22, #{boot_mte}]
    mov     x2, #{refused_mte}
    cmp     x0, x1
    b.lo    refused
    adr_l   x3, secondary_virtual_entry
    ldr     x0, [x22, #{boot_image_offset}]
    add     x3, x3, x0
    b       enable_mmu

// To the pen at x2, at the exception level of the entry: at EL2 again, if the CPU left it. The next
// kernel gets EL2 without VHE, as on the boot CPU.
to_pen:
    cmp     x20, #{entered_el2_stub}
    b.eq    0f
    bl      linmap_leave_vhe            // x2 stays
    // The pen was written while this CPU waited, so instructions that were fetched from there
    // before are invalidated.
    ldr     x0, [x22, #{boot_mark}]
    ic      iallu
    dsb     nsh
    isb
    br      x2
0:  mov     x1, x2
    ldr     x2, [x22, #{boot_mark}]
    mov     x0, #{hvc_restart}
    hvc     #0

// From linmap_park_for_good, a CPU that came from a spin table: MMU on, at VA = PA. It waits for
// the next call.
.global secondary_again
secondary_again:
    mov_q   x0, {sctlr_off}
    dsb     sy
    msr     sctlr_el1, x0
    isb
    mrs     x0, mpidr_el1
    mov_q   x1, {affinity_mask}
    and     x19, x0, x1
    adr_l   x22, SECONDARY_BOOT
    ldr     x20, [x22, #{boot_entered}] // it was admitted, so its entry was the boot CPU's
    mov     x23, xzr
    b       wait_for_call

// x2 is the reason. It is stored in bits 63:56 of the status, above the affinity. Then the CPU
// switches itself off or waits again.
refused:
    lsl     x2, x2, #56
    orr     x2, x2, x19
    str     x2, [x22, #{boot_status}]
    dsb     sy
    ldr     x1, [x22, #{boot_conduit}]
    lsr     x0, x1, #32                 // the number of PSCI CPU_OFF
    mov     w1, w1
    cmp     x1, #{conduit_wait}
    b.eq    wait_for_call
    cmp     x1, #{conduit_hvc}
    b.ne    0f
    hvc     #0
0:  cmp     x1, #{conduit_smc}
    b.ne    1f
    smc     #0
1:  wfi
    b       1b

// ---- At the link address, MMU and caches on ----
.section .text.secondary_virtual_entry, "ax"
secondary_virtual_entry:
    adr_l   x0, vectors
    msr     vbar_el1, x0
    // The CPU's number is the index of its affinity in the boot CPU's list.
    adr_l   x0, SECONDARY_AFFINITIES
    mov     x1, xzr
0:  ldr     x2, [x0, x1, lsl #3]
    cmp     x2, x19
    b.eq    1f
    add     x1, x1, #1                  // only CPUs in the list are called
    b       0b
1:  msr     tpidr_el1, x1
    // The CPU's slot of stacks. As on the boot CPU, exceptions have a stack of their own.
    mov_q   x2, {stacks}
    mov     x3, #{stack_slot}
    madd    x2, x1, x3, x2
    add     x3, x2, #{exception_stack_top}
    msr     spsel, #1
    mov     sp, x3
    add     x3, x2, #{stack_top}
    msr     spsel, #0
    mov     sp, x3
    isb
    mov     x29, xzr
    mov     x30, xzr
    b       secondary_main
