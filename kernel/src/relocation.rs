//! Entering the payload: the code of `relocate.S` and the jump into it.

use core::arch::{asm, global_asm};
use core::{ptr, slice};

use linmap_kexec::MoveList;
use linmap_table::cpu::{Cpu, Dsb};
use linmap_table::{DetachedTree, Reserved};
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
#[derive(Debug)]
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
    /// The 1:1 map of the code, for TTBR0.
    pub code_map: DetachedTree,
    /// TTBR1 value of the transitional linear map.
    pub ttbr1: u64,
    /// What TTBR0 and TCR hold until then. The empty table serves TTBR1 as well.
    pub reserved: Reserved,
    /// How we were entered, and so how the payload will be.
    pub entered: Entered,
}

impl HandOver {
    /// Leaves this kernel for the payload.
    ///
    /// # Safety
    /// `code_map` must have the code page at VA = PA, executable; the tree of `ttbr1` must have the move list, all sources
    /// and all destinations at `offset`, writable; the code must be cleaned to the point of coherency. Destinations may
    /// hold nothing that is still needed. TTBR0 and TCR hold what `reserved` says, and no TLB holds a translation of
    /// TTBR0. Interrupts are masked and no other CPU runs.
    pub unsafe fn go(self) -> ! {
        let mut cpu = ThisCpu;
        // Both transitional trees' stores, before the walks that TTBR0 starts here and TTBR1 in the routine.
        cpu.dsb(Dsb::Ishst);
        // SAFETY: TTBR0 and TCR are as `reserved` says, with nothing cached (the caller's contract); the stores have just
        // been ordered; the tree maps a page of memory by the type that the linear map has it. The map is never removed.
        let _walked = unsafe { self.reserved.install(self.code_map, &mut cpu) };
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
                in("x5") self.reserved.ttbr0,
                in("x6") restart,
                in("x7") SCTLR_OFF,
                options(noreturn));
        }
    }
}
