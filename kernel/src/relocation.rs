//! Entering the payload: the code of `relocate.S` and the jump into it.

use core::arch::{asm, global_asm};
use core::{ptr, slice};

use linmap_kexec::MoveList;
use linmap_table::cpu::{Cpu, Dsb};
use linmap_vmsa::Pa;

use crate::cpu::ThisCpu;
use crate::entry::{Entered, HVC_RESTART, SCTLR_OFF};

global_asm!(include_str!("relocate.S"));

unsafe extern "C" {
    static relocate_start: u8;
    static relocate_end: u8;
}

/// The relocation code, position independent.
pub fn code() -> &'static [u8] {
    let [start, end] =
        [&raw const relocate_start, &raw const relocate_end].map(|symbol| symbol.expose_provenance());
    // SAFETY: both symbols bound one stretch of read-only data in the image.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), end - start) }
}

/// A payload that is ready to be entered; nothing can fail any more.
#[derive(Clone, Copy, Debug)]
pub struct HandOver {
    /// What has to move where.
    pub list: MoveList,
    /// Where the payload starts.
    pub entry: Pa,
    /// Its device tree.
    pub dtb: Pa,
    /// The copy of [`code`] that runs, at a physical address.
    pub code: Pa,
    /// VA − PA of the linear map.
    pub offset: u64,
    /// TCR with the T0SZ of the 1:1 map of the code.
    pub tcr: u64,
    /// TTBR0 value of that map.
    pub ttbr0: u64,
    /// TTBR1 value of the transitional linear map.
    pub ttbr1: u64,
    /// TTBR1 value that translates nothing.
    pub reserved: u64,
    /// How we were entered, and so how the payload will be.
    pub entered: Entered,
}

impl HandOver {
    /// Leaves this kernel for the payload.
    ///
    /// # Safety
    /// TTBR0's map must have the code page at VA = PA, executable; TTBR1's must have the move list, all sources and all
    /// destinations at `offset`, writable; the code must be cleaned to the point of coherency. Destinations may hold
    /// nothing that is still needed. Interrupts are masked and no other CPU runs.
    pub unsafe fn go(self) -> ! {
        let mut cpu = ThisCpu;
        // The transitional tables' stores, before the walks that TTBR0 starts.
        cpu.dsb(Dsb::Ishst);
        // TTBR0 is on the reserved table with nothing cached, so T0SZ may change, and then the root.
        cpu.write_tcr(self.tcr);
        cpu.isb();
        cpu.write_ttbr0(self.ttbr0);
        cpu.isb();
        let restart = match self.entered {
            Entered::El2Stub => HVC_RESTART,
            Entered::El1 | Entered::El2Vhe => 0,
        };
        // SAFETY: the caller's contract is what the routine's head asks for.
        unsafe {
            asm!("br {code}",
                code = in(reg) self.code.0,
                in("x0") self.list.first.0,
                in("x1") self.offset,
                in("x2") self.entry.0,
                in("x3") self.dtb.0,
                in("x4") self.ttbr1,
                in("x5") self.reserved,
                in("x6") restart,
                in("x7") SCTLR_OFF,
                options(noreturn));
        }
    }
}
