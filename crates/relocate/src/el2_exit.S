// How a CPU that runs at EL2 with VHE is left to an owner that may have none. A hypervisor without
// VHE does not touch HCR_EL2.E2H: it would write EL2's registers in the wrong layout, and EL1's by
// the names that E2H redirects to EL2.
//
// Entered with the MMU off. Position independent. x30 is where it returns to; x3 is 0 then, or the
// bit of HCR_EL2.E2H if the CPU keeps it set. x3-x5 change.
//
// At EL1 there is nothing to do.

.global linmap_leave_vhe
linmap_leave_vhe:
    mrs     x3, currentel
    cmp     x3, #(2 << 2)
    mov     x3, xzr
    b.ne    8f
    // FEAT_E2H0 is missing if ID_AA64MMFR4_EL1.E2H0 is negative: E2H is RES1. Some CPUs have E2H
    // fixed without saying so. On these the write does not stick, and nothing has changed but TGE.
    mrs     x3, S3_0_C0_C7_4            // ID_AA64MMFR4_EL1
    tbnz    x3, #27, 9f
    // Nothing of the EL2&0 regime stays cached. TLBs may also cache the fields of HCR_EL2 that
    // choose the regime (Arm ARM D8.17), so they are emptied again once the owner's regime is on.
    tlbi    vmalle1
    tlbi    alle2
    dsb     nsh
    isb
    mrs     x4, hcr_el2
    mov     x5, #(1 << 31)              // RW
    orr     x5, x5, #(0b11 << 40)       // API, APK
    msr     hcr_el2, x5
    isb
    mrs     x3, hcr_el2
    tbz     x3, #34, 1f
    msr     hcr_el2, x4
    isb
    b       9f
    // EL2 without VHE from here on: what has another layout then, or another meaning, gets a value
    // for that. SCTLR_EL2 comes first: its fields outside the EL2&0 regime are others, and the MMU
    // stays off in both.
1:  movz    x3, #0x0830
    movk    x3, #0x30c5, lsl #16        // the RES1 bits
    msr     sctlr_el2, x3
    isb
    mov     x3, #0x33ff                 // FPEN's bit 20 is TTA now: the RES1 bits, as firmware sets
    msr     cptr_el2, x3
    mov     x3, #3                      // EL1PCTEN, EL1PCEN: bits 10 and 11 with VHE
    msr     cnthctl_el2, x3
    msr     cntvoff_el2, xzr
    // MDCR_EL2: no traps, and all event counters are EL1's (HPMN), if there is a PMU.
    mov     x3, xzr
    mrs     x4, id_aa64dfr0_el1
    ubfx    x4, x4, #8, #4              // PMUVer
    cbz     x4, 2f
    cmp     x4, #0xf
    b.eq    2f
    mrs     x3, pmcr_el0
    ubfx    x3, x3, #11, #5             // N
2:  msr     mdcr_el2, x3
    msr     hstr_el2, xzr
    msr     vttbr_el2, xzr
    mrs     x3, midr_el1
    msr     vpidr_el2, x3
    mrs     x3, mpidr_el1
    msr     vmpidr_el2, x3
    // The GICv3's system registers, if there are any and the firmware allows them, without virtual
    // interrupts.
    mrs     x3, id_aa64pfr0_el1
    tst     x3, #(0xf << 24)
    b.eq    3f
    mrs     x3, S3_4_C12_C9_5           // ICC_SRE_EL2
    orr     x3, x3, #1                  // SRE
    orr     x3, x3, #(1 << 3)           // Enable
    msr     S3_4_C12_C9_5, x3
    isb
    mrs     x3, S3_4_C12_C9_5
    tbz     x3, #0, 3f
    msr     S3_4_C12_C11_0, xzr         // ICH_HCR_EL2
3:  isb
    tlbi    alle2
    tlbi    alle1
    dsb     nsh
    isb
    mov     x3, xzr
8:  ret
9:  mov     x3, #(1 << 34)
    ret
