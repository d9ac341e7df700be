//! The jump into the relocation code.

use core::arch::{asm, global_asm};

use linmap_table::Reserved;
use linmap_table::cpu::{Cpu, Dsb};
use linmap_vmsa::Pa;

// Turns MMU and caches off and goes to x3, from the identity map. x4 is SCTLR_EL1.
global_asm!(
    ".section .idmap.text, \"ax\"",
    ".global linmap_leave_mmu",
    "linmap_leave_mmu:",
    "msr sctlr_el1, x4",
    "isb",
    "br x3"
);

unsafe extern "C" {
    fn linmap_leave_mmu();
}

/// How the relocation code is reached.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// With the MMU on, mapped 1:1 by a map of its own.
    Mapped {
        /// TTBR0 value of the 1:1 map.
        ttbr0: u64,
        /// TCR value with that map's VA size.
        tcr: u64,
        /// VA − PA of the linear map.
        offset: u64,
    },
    /// With the MMU off, by way of the identity map of the section `.idmap.text`.
    Unmapped {
        /// TTBR0 value of that map.
        identity: u64,
        /// VA − PA of the image.
        image_offset: u64,
        /// SCTLR_EL1 with MMU and caches off.
        sctlr_off: u64,
    },
}

/// Where the relocation code and its orders are, and how to get there.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// The copy of [`code`](crate::code) that runs.
    pub code: Pa,
    /// The [`Orders`](crate::Orders).
    pub orders: Pa,
    /// How to reach them.
    pub way: Way,
    /// What TTBR0 and TCR hold until then.
    pub reserved: Reserved,
}

impl Departure {
    /// Leaves this kernel and works through the list `list`. The boot CPU, whose list is 0, enters
    /// the payload; every other CPU goes offline or enters the pen.
    ///
    /// TPIDR_EL0 holds the virtual counter at the jump.
    ///
    /// # Safety
    /// - The code is [`code`](crate::code), cleaned to the point of coherency, and nothing else is
    ///   cached as instructions of its addresses.
    /// - By [`Way::Mapped`], the 1:1 map has the code, executable. The tree of the orders' `ttbr1`
    ///   maps the orders, the move lists and everything that they name at `offset`, writable. Both
    ///   trees are ordered before this.
    /// - By [`Way::Unmapped`], the orders' `ttbr1` is 0. The orders and the lists are cleaned to
    ///   the point of coherency, and no other CPU runs.
    /// - Destinations hold nothing that is still needed.
    /// - TTBR0 and TCR hold what `reserved` says, and no TLB of this CPU holds a translation of
    ///   TTBR0.
    /// - Interrupts are masked. `cpu` is the CPU this runs on.
    pub unsafe fn go(self, cpu: &mut impl Cpu, list: usize) -> ! {
        cpu.dsb(Dsb::Ishst);
        match self.way {
            Way::Mapped { ttbr0, tcr, offset } => {
                // As in `Reserved::install`: the VA size while TTBR0 translates nothing, then the
                // root.
                // SAFETY: the caller's: TTBR0 translates nothing, then has a root of the new size.
                unsafe {
                    cpu.write_tcr(tcr);
                    cpu.isb();
                    cpu.write_ttbr0(ttbr0);
                }
                cpu.isb();
                // SAFETY: the caller's contract is what the routine's head asks for.
                unsafe {
                    asm!("mrs x9, cntvct_el0", "msr tpidr_el0, x9", "br {code}",
                        in("x9") 0u64,
                        code = in(reg) self.code.0,
                        in("x0") self.orders.0,
                        in("x1") offset,
                        in("x2") list,
                        options(noreturn));
                }
            }
            Way::Unmapped { identity, image_offset, sctlr_off } => {
                // SAFETY: the caller's.
                unsafe { cpu.write_ttbr0(identity) };
                cpu.isb();
                let there = (linmap_leave_mmu as *const () as u64).wrapping_sub(image_offset);
                // SAFETY: the identity map has the few instructions at their physical address; the
                // rest is the caller's.
                unsafe {
                    asm!("mrs x9, cntvct_el0", "msr tpidr_el0, x9", "br {there}",
                        in("x9") 0u64,
                        there = in(reg) there,
                        in("x0") self.orders.0,
                        in("x1") 0,
                        in("x2") list,
                        in("x3") self.code.0,
                        in("x4") sctlr_off,
                        options(noreturn));
                }
            }
        }
    }
}
