//! Stage 2 of a guest.

use core::ptr::NonNull;

use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_vmsa::{Descriptor, Va};

use crate::memory::{instruct, memory_methods, write_register};

/// The CPU this code runs on at EL2, for the stage 2 tables of a guest.
///
/// Invalidations act on the current VMID, so VTTBR_EL2 must hold the guest's, synchronized by an
/// ISB. `HCR_EL2.TGE` must be 0: with E2H and TGE set, VMALLE1IS would act on the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stage2;

impl Stage2 {
    /// Removes all entries of EL1&0 and stage 2 from this CPU's TLB, of every VMID: ALLE1, DSB ISH,
    /// ISB. [`Tlbi::AllLocal`] removes the current VMID only.
    ///
    /// It is what `linmap-asid` asks for in a rollover of VMIDs, with the DSB that it asks for
    /// before the guest runs.
    #[inline(always)]
    pub fn invalidate_every_vmid(&mut self) {
        instruct!("tlbi alle1");
        self.dsb(Dsb::Ish);
        self.isb();
    }
}

// SAFETY: each function is the instruction that it is named for.
unsafe impl Cpu for Stage2 {
    memory_methods!();

    /// IPAS2E1IS, IPAS2LE1IS, RIPAS2E1IS, RIPAS2LE1IS, VMALLS12E1IS, VMALLS12E1, VMALLE1IS. Stage 2
    /// has no ASIDs.
    #[inline(always)]
    fn tlbi(&mut self, tlbi: Tlbi) {
        match tlbi {
            Tlbi::ByVa(operand) | Tlbi::ByVaInAsid(operand) => {
                instruct!("tlbi ipas2e1is", operand.without_asid().0);
            }
            Tlbi::LastLevelByVa(operand) | Tlbi::LastLevelByVaInAsid(operand) => {
                instruct!("tlbi ipas2le1is", operand.without_asid().0);
            }
            // The assembler knows the range forms only with FEAT_TLBIRANGE on (Arm ARM C5.5).
            Tlbi::ByRange(operand) | Tlbi::ByRangeInAsid(operand) => {
                instruct!("sys #4, c8, c0, #2", operand.without_asid().0);
            }
            Tlbi::LastLevelByRange(operand) | Tlbi::LastLevelByRangeInAsid(operand) => {
                instruct!("sys #4, c8, c0, #6", operand.without_asid().0);
            }
            Tlbi::All | Tlbi::Asid(_) => instruct!("tlbi vmalls12e1is"),
            Tlbi::AllLocal => instruct!("tlbi vmalls12e1"),
            Tlbi::Stage1 => instruct!("tlbi vmalle1is"),
        }
    }

    /// VTTBR_EL2.
    #[inline(always)]
    unsafe fn write_ttbr0(&mut self, value: u64) {
        write_register!("vttbr_el2", value);
    }

    /// Does nothing: stage 2 has one base register, so no caller can make the promise of this
    /// function.
    #[inline(always)]
    unsafe fn write_ttbr1(&mut self, _value: u64) {}

    /// VTCR_EL2.
    #[inline(always)]
    unsafe fn write_tcr(&mut self, value: u64) {
        write_register!("vtcr_el2", value);
    }
}
