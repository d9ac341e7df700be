//! EL3.

use core::ptr::NonNull;

use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_vmsa::{Descriptor, Va};

use crate::memory::{instruct, memory_methods, write_register};

/// The CPU this code runs on at EL3, for the tables of EL3.
#[derive(Clone, Copy, Debug, Default)]
pub struct El3;

// SAFETY: each function is the instruction that it is named for.
unsafe impl Cpu for El3 {
    memory_methods!();

    /// VAE3IS, VALE3IS, RVAE3IS, RVALE3IS, ALLE3IS, ALLE3. EL3 has no ASIDs.
    #[inline(always)]
    fn tlbi(&mut self, tlbi: Tlbi) {
        match tlbi {
            Tlbi::ByVa(operand) | Tlbi::ByVaInAsid(operand) => {
                instruct!("tlbi vae3is", operand.without_asid().0);
            }
            Tlbi::LastLevelByVa(operand) | Tlbi::LastLevelByVaInAsid(operand) => {
                instruct!("tlbi vale3is", operand.without_asid().0);
            }
            // The assembler knows the range forms only with FEAT_TLBIRANGE on (Arm ARM C5.5).
            Tlbi::ByRange(operand) | Tlbi::ByRangeInAsid(operand) => {
                instruct!("sys #6, c8, c2, #1", operand.without_asid().0);
            }
            Tlbi::LastLevelByRange(operand) | Tlbi::LastLevelByRangeInAsid(operand) => {
                instruct!("sys #6, c8, c2, #5", operand.without_asid().0);
            }
            Tlbi::All | Tlbi::Asid(_) | Tlbi::Stage1 => instruct!("tlbi alle3is"),
            Tlbi::AllLocal => instruct!("tlbi alle3"),
        }
    }

    /// TTBR0_EL3.
    #[inline(always)]
    unsafe fn write_ttbr0(&mut self, value: u64) {
        write_register!("ttbr0_el3", value);
    }

    /// Does nothing: EL3 has no TTBR1, so no caller can make the promise of this function.
    #[inline(always)]
    unsafe fn write_ttbr1(&mut self, _value: u64) {}

    /// TCR_EL3.
    #[inline(always)]
    unsafe fn write_tcr(&mut self, value: u64) {
        write_register!("tcr_el3", value);
    }
}
