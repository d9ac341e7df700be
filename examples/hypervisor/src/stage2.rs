//! Stage 2: where the guest's addresses lead.

use core::arch::asm;

use linmap_table::{BumpFrames, FirstMap};
use linmap_vmsa::id::{Mmfr0, Mmfr1, Mmfr2};
use linmap_vmsa::{Attributes, Geometry, Granule, PaReach, Stage2Registers, VmidSize};

use crate::cpu::{self, mrs, msr};
use crate::lock::Lock;
use crate::machine::{DEVICES, GUEST_RAM, end, linked};

/// Bits of the guest's addresses: PCIe's memory ends at 1 TiB.
const ADDRESS_BITS: u8 = 40;
/// The guest's VMID.
const VMID: u16 = 1;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// The guest's stage 2, once it is built.
pub static STAGE2: Lock<Option<Stage2>> = Lock::new(None);

/// A stage 2.
pub struct Stage2 {
    registers: Stage2Registers,
}

impl Stage2 {
    /// Builds the map of the machine's devices and of the guest's RAM, each where it is.
    pub fn new() -> Result<Self, &'static str> {
        let (mmfr0, mmfr1) = (Mmfr0(mrs!("id_aa64mmfr0_el1")), Mmfr1(mrs!("id_aa64mmfr1_el1")));
        let mmfr2 = Mmfr2(mrs!("id_aa64mmfr2_el1"));
        let geometry =
            Geometry::stage_2_of_cpu(Granule::K4, ADDRESS_BITS, PaReach::Bits48, mmfr0, mmfr1, mmfr2)
                .map_err(|_| "the CPU has too few bits of address")?;
        let mut map = FirstMap::<4>::new(geometry);
        let ranges = DEVICES.map(|range| (range, Attributes::GUEST_DEVICE));
        for (range, attributes) in ranges.into_iter().chain([(GUEST_RAM, Attributes::GUEST_RAM)]) {
            map.identity(range, attributes).map_err(|_| "the guest's map is too long")?;
        }
        // SAFETY: the linker script sets the memory aside, which is mapped where it is.
        let tree = unsafe { map.build(0, &mut BumpFrames::new(linked::guest_tables(), geometry)) };
        let tree = tree.map_err(|_| "no memory for stage 2")?;
        let registers = tree.stage_2_registers(VMID, VmidSize::of_cpu(mmfr1));
        Ok(Self { registers: registers.map_err(|_| "stage 2 is out of reach")? })
    }

    /// Has this CPU use it for EL1 and EL0.
    ///
    /// # Safety
    /// They may use what it maps. The stores to its tables are complete.
    pub unsafe fn enable(&self) {
        // SAFETY: the caller's. EL2 itself is not concerned.
        unsafe {
            msr!("vtcr_el2", self.registers.vtcr);
            cpu::synchronize();
            msr!("vttbr_el2", self.registers.vttbr);
            msr!("hcr_el2", mrs!("hcr_el2") | self.registers.hcr);
            asm!("isb", "tlbi vmalls12e1", "dsb nsh", "isb", options(nostack, preserves_flags));
        }
    }
}

/// A guest's access faulted at stage 2.
pub fn fault(syndrome: u64) {
    let (cpu, from) = (cpu::number(), mrs!("elr_el2"));
    let address = mrs!("hpfar_el2") << 8 & !(PAGE - 1) | mrs!("far_el2") & (PAGE - 1);
    end(Some(format_args!(
        "guest CPU {cpu} reaches outside its memory: address {address:#x}, from {from:#x}, \
         syndrome {syndrome:#x}"
    )));
}
