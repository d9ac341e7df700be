//! EL2, and EL2&0 of a hypervisor.

use core::ptr::NonNull;

use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_vmsa::{Descriptor, Va};

use crate::memory::{instruct, memory_methods, write_register};

/// The CPU this code runs on at EL2, for the tables of EL2. With `HCR_EL2.{E2H, TGE}` = {1, 0} it
/// is for the tables of EL2&0; the instructions of EL1&0 act on the guest then.
///
/// EL2&0 has no TLBI by address for every ASID: VAE2IS removes entries of the operand's ASID and
/// global entries. So a tree of EL2&0 must have global leaves only, or be edited in its ASID.
#[derive(Clone, Copy, Debug, Default)]
pub struct El2;

// SAFETY: each function is the instruction that it is named for.
unsafe impl Cpu for El2 {
    memory_methods!();

    /// VAE2IS, VALE2IS, RVAE2IS, RVALE2IS, ALLE2IS, ALLE2. No form removes one ASID: ALLE2IS is
    /// issued instead.
    #[inline(always)]
    fn tlbi(&mut self, tlbi: Tlbi) {
        match tlbi {
            Tlbi::ByVa(operand) | Tlbi::ByVaInAsid(operand) => instruct!("tlbi vae2is", operand.0),
            Tlbi::LastLevelByVa(operand) | Tlbi::LastLevelByVaInAsid(operand) => {
                instruct!("tlbi vale2is", operand.0);
            }
            // The assembler knows the range forms only with FEAT_TLBIRANGE on (Arm ARM C5.5).
            Tlbi::ByRange(operand) | Tlbi::ByRangeInAsid(operand) => {
                instruct!("sys #4, c8, c2, #1", operand.0);
            }
            Tlbi::LastLevelByRange(operand) | Tlbi::LastLevelByRangeInAsid(operand) => {
                instruct!("sys #4, c8, c2, #5", operand.0);
            }
            Tlbi::All | Tlbi::Asid(_) | Tlbi::Stage1 => instruct!("tlbi alle2is"),
            Tlbi::AllLocal => instruct!("tlbi alle2"),
        }
    }

    /// TTBR0_EL2.
    #[inline(always)]
    unsafe fn write_ttbr0(&mut self, value: u64) {
        write_register!("ttbr0_el2", value);
    }

    /// TTBR1_EL2, which exists with FEAT_VHE.
    #[inline(always)]
    unsafe fn write_ttbr1(&mut self, value: u64) {
        // The assembler knows the name only with FEAT_VHE on.
        write_register!("s3_4_c2_c0_1", value);
    }

    /// TCR_EL2.
    #[inline(always)]
    unsafe fn write_tcr(&mut self, value: u64) {
        write_register!("tcr_el2", value);
    }
}
