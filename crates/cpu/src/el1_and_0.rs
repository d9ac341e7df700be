//! EL1&0, and EL2&0 of a host.

use core::ptr::NonNull;

use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_vmsa::{Descriptor, Va};

use crate::memory::{instruct, memory_methods, write_register};

/// The CPU this code runs on, for the tables of EL1&0. At EL2 with `HCR_EL2.{E2H, TGE}` = {1, 1}
/// the same instructions act on EL2&0, so there it is for the tables of EL2&0.
#[derive(Clone, Copy, Debug, Default)]
pub struct El1And0;

// SAFETY: each function is the instruction that it is named for.
unsafe impl Cpu for El1And0 {
    memory_methods!();

    /// VAAE1IS, VAALE1IS, RVAAE1IS, RVAALE1IS, VMALLE1IS, VMALLE1; in one ASID VAE1IS, VALE1IS,
    /// RVAE1IS, RVALE1IS, ASIDE1IS.
    #[inline(always)]
    fn tlbi(&mut self, tlbi: Tlbi) {
        match tlbi {
            Tlbi::ByVa(operand) => instruct!("tlbi vaae1is", operand.0),
            Tlbi::LastLevelByVa(operand) => instruct!("tlbi vaale1is", operand.0),
            // The assembler knows the range forms only with FEAT_TLBIRANGE on (Arm ARM C5.5).
            Tlbi::ByRange(operand) => instruct!("sys #0, c8, c2, #3", operand.0),
            Tlbi::LastLevelByRange(operand) => instruct!("sys #0, c8, c2, #7", operand.0),
            Tlbi::All | Tlbi::Stage1 => instruct!("tlbi vmalle1is"),
            Tlbi::AllLocal => instruct!("tlbi vmalle1"),
            Tlbi::ByVaInAsid(operand) => instruct!("tlbi vae1is", operand.0),
            Tlbi::LastLevelByVaInAsid(operand) => instruct!("tlbi vale1is", operand.0),
            Tlbi::ByRangeInAsid(operand) => instruct!("sys #0, c8, c2, #1", operand.0),
            Tlbi::LastLevelByRangeInAsid(operand) => instruct!("sys #0, c8, c2, #5", operand.0),
            Tlbi::Asid(asid) => instruct!("tlbi aside1is", u64::from(asid) << 48),
        }
    }

    /// TTBR0_EL1.
    #[inline(always)]
    unsafe fn write_ttbr0(&mut self, value: u64) {
        write_register!("ttbr0_el1", value);
    }

    /// TTBR1_EL1.
    #[inline(always)]
    unsafe fn write_ttbr1(&mut self, value: u64) {
        write_register!("ttbr1_el1", value);
    }

    /// TCR_EL1.
    #[inline(always)]
    unsafe fn write_tcr(&mut self, value: u64) {
        write_register!("tcr_el1", value);
    }
}
