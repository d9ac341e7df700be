//! A guest CPU: its registers and its entry.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cpu::{self, field, given, mrs, msr};
use crate::machine::{EDITOR, linked};
use crate::stage2::STAGE2;

/// Where each guest CPU enters, and with what in x0.
static ENTRIES: [[AtomicU64; 2]; EDITOR] = [const { [const { AtomicU64::new(0) }; 2] }; EDITOR];

/// Guest CPU `number` is to enter at `entry` with `context` in x0.
pub fn set_entry(number: usize, entry: u64, context: u64) {
    ENTRIES[number][0].store(entry, Relaxed);
    ENTRIES[number][1].store(context, Relaxed);
}

/// Gives this CPU to the guest.
pub extern "C" fn run() -> ! {
    unsafe extern "C" {
        fn enter_guest(context: u64, entry: u64, stack: u64) -> !;
    }
    let [entry, context] = &ENTRIES[cpu::number()];
    // SAFETY: the registers say what EL1 may do, and stage 2 is in force: whatever the guest does,
    // it does with its own memory.
    unsafe {
        set_registers();
        STAGE2.lock().enable();
        enter_guest(context.load(Relaxed), entry.load(Relaxed), linked::stack_end(cpu::number()))
    }
}

/// What booting.rst asks of EL2 for an entry at EL1.
///
/// # Safety
/// The registers concern EL1 and EL0 alone, which may use what the CPU has.
unsafe fn set_registers() {
    let vhe = cpu::has_vhe();
    let (pfr0, pfr1) = (mrs!("id_aa64pfr0_el1"), mrs!("id_aa64pfr1_el1"));
    let (mmfr0, mmfr1) = (mrs!("id_aa64mmfr0_el1"), mrs!("id_aa64mmfr1_el1"));
    let (sve, sme) = (field(pfr0, 32) != 0, field(pfr1, 24) != 0);
    // ID_AA64MMFR3_EL1, ID_AA64SMFR0_EL1
    let (mmfr3, smfr0) = (mrs!("S3_0_C0_C7_3"), mrs!("S3_0_C0_C4_5"));
    // SAFETY: the caller's.
    unsafe {
        msr!("vpidr_el2", mrs!("midr_el1"));
        msr!("vmpidr_el2", mrs!("mpidr_el1"));
        msr!("hstr_el2", 0u64);
        // Counters and timers: the physical ones too, at their own time.
        msr!("cnthctl_el2", if vhe { 0b11u64 << 10 } else { 0b11 });
        msr!("cntvoff_el2", 0u64);
        // All event counters (PMCR_EL0.N) are EL1's.
        let counters = match field(mrs!("id_aa64dfr0_el1"), 8) {
            0 | 0xf => 0,
            _ => mrs!("pmcr_el0") >> 11 & 0x1f,
        };
        msr!("mdcr_el2", counters);
        // Nothing of floating point, SVE and SME traps.
        let cptr = match vhe {
            true => 0b11 << 20 | given(sve, 0b11 << 16) | given(sme, 0b11 << 24),
            false => 0x22ff | given(!sve, 1 << 8) | given(!sme, 1 << 12),
        };
        msr!("cptr_el2", cptr);
        cpu::synchronize();
        if sve {
            msr!("S3_4_C1_C2_0", 0xfu64); // ZCR_EL2: all lengths
        }
        if sme {
            // SMCR_EL2: all lengths, FA64, EZT0
            msr!(
                "S3_4_C1_C2_6",
                0xf | given(smfr0 >> 63 != 0, 1 << 31) | given(field(smfr0, 56) != 0, 1 << 30)
            );
        }
        if field(mmfr1, 40) != 0 {
            // HCRX_EL2: SMPME, MSCEn, TCR2En, SCTLR2En
            let mops = field(mrs!("id_aa64isar2_el1"), 16) != 0;
            let (tcr2, sctlr2) = (field(mmfr3, 0) != 0, field(mmfr3, 4) != 0);
            msr!(
                "S3_4_C1_C2_2",
                given(sme, 1 << 5) | given(mops, 1 << 11) | given(tcr2, 1 << 14) | given(sctlr2, 1 << 15)
            );
        }
        if field(mmfr0, 56) != 0 {
            // HFGRTR_EL2 and HFGWTR_EL2: SMPRI_EL1, TPIDR2_EL0, PIRE0_EL1, PIR_EL1, POR_EL0,
            // POR_EL1 don't trap. HFGITR_EL2, HDFGRTR_EL2, HDFGWTR_EL2: nothing traps.
            let (pie, poe) = (field(mmfr3, 8) != 0, field(mmfr3, 16) != 0);
            let free = given(sme, 0b11 << 54) | given(pie, 0b11 << 57) | given(poe, 0b11 << 59);
            msr!("S3_4_C1_C1_4", free);
            msr!("S3_4_C1_C1_5", free);
            msr!("S3_4_C1_C1_6", 0u64);
            msr!("S3_4_C3_C1_4", 0u64);
            msr!("S3_4_C3_C1_5", 0u64);
        }
        if field(pfr0, 24) != 0 {
            // ICC_SRE_EL2: SRE and Enable; ICH_HCR_EL2: no virtual interrupts.
            msr!("S3_4_C12_C9_5", mrs!("S3_4_C12_C9_5") | 0b1001);
            cpu::synchronize();
            msr!("S3_4_C12_C11_0", 0u64);
        }
        // SCTLR_EL1: MMU and caches off. With E2H its own name is that of EL2's.
        const SCTLR: u64 = 0x30d0_0800;
        match vhe {
            true => msr!("S3_5_C1_C0_0", SCTLR),
            false => msr!("sctlr_el1", SCTLR),
        }
    }
}
