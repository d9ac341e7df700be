//! The two passes of a boot.
//!
//! The early tables are made before the device tree can be read, so the first pass makes them for
//! the VA size that every CPU has. If the command line or memory ask for another geometry, and the
//! CPU has it, everything is entered again: with the MMU off, `entry.S` makes the tables anew, and
//! Rust starts from its beginning. Before that the first pass writes to nothing but the image.

use core::arch::asm;

use linmap::Layout;
use linmap_platform::CommandLine;
use linmap_table::cpu::Cpu;
use linmap_vmsa::id::{Mmfr0, Mmfr2};
use linmap_vmsa::registers::{tcr, tcr_with_t0sz};
use linmap_vmsa::{Geometry, GeometryError, Pa, PaRange, PaReach};
use thiserror::Error;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::geometry::{geometry, identity_beside};
use crate::arch::image::Image;
use crate::arch::layout::GRANULE;
use crate::{report, say};

/// The word with the VA size.
pub const VA_BITS: &str = "linmap.va_bits";

unsafe extern "C" {
    fn enter_again();
}

/// `linmap.va_bits=` is not a VA size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{VA_BITS}= is one of {:?} with the {}K granule", GRANULE.va_sizes(), GRANULE.bytes() >> 10)]
pub struct NotAVaSize;

/// This pass, and how it began.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Whether `entry.S` was entered for the first time.
    pub is_first: bool,
    /// The image.
    pub image: Image,
    /// The physical address of the DTB.
    pub dtb: Pa,
    /// The code of the entry, one of `Entered`'s.
    pub entered: u64,
    /// When the image was entered.
    pub entered_at: u64,
}

/// The VA size that the command line asks for.
fn asked(line: CommandLine<'_>) -> Result<Option<u8>, NotAVaSize> {
    let Some(value) = line.get(VA_BITS) else { return Ok(None) };
    let bits = value.parse().map_err(|_| NotAVaSize)?;
    if GRANULE.va_sizes().contains(&bits) { Ok(Some(bits)) } else { Err(NotAVaSize) }
}

/// The geometry that this CPU has for `va_bits`.
fn of_this_cpu(va_bits: u8, reach: PaReach) -> Result<Geometry, GeometryError> {
    Geometry::of_cpu(GRANULE, va_bits, reach, Mmfr0(cpu::mmfr0()), Mmfr2(cpu::mmfr2()))
}

impl Pass {
    /// Goes on with the VA size that `line` asks for, if the CPU has it: by a second pass, unless
    /// the tables have it already.
    ///
    /// # Errors
    /// [`NotAVaSize`].
    pub fn use_va_size(self, line: CommandLine<'_>) -> Result<(), NotAVaSize> {
        let Some(bits) = asked(line)? else { return Ok(()) };
        self.use_geometry(bits, PaReach::Bits48);
        let taken = geometry().va_bits();
        // A second pass for the sake of memory may have chosen more.
        if taken < bits {
            say!("the CPU does not have {bits} bits of virtual address with this granule: {taken} are used");
            report!("warning=va-bits asked={bits} taken={taken}");
        }
        Ok(())
    }

    /// Goes on with tables that reach all of `memory` and have room for it, as far as the CPU has
    /// them and `line` does not ask for less: by a second pass, unless the tables do already.
    pub fn reach(self, line: CommandLine<'_>, memory: PaRange) {
        let now = geometry();
        let in_reach = memory.is_empty() || now.holds(Pa(memory.end.0 - 1));
        match (asked(line), Layout::new(now, memory)) {
            (_, Ok(_)) if in_reach => {}
            (Ok(None), _) => self.use_geometry(52, PaReach::Whole),
            _ => self.use_geometry(now.va_bits(), PaReach::Whole),
        }
    }

    fn use_geometry(self, va_bits: u8, reach: PaReach) {
        let Ok(wanted) = of_this_cpu(va_bits, reach) else { return };
        if self.is_first && wanted != geometry() {
            self.enter_again(wanted);
        }
    }

    /// Enters everything again, with the geometry `wanted`.
    fn enter_again(self, wanted: Geometry) {
        let tcr = identity_beside(wanted).ok().zip(tcr(wanted, wanted, false).ok());
        let Some(tcr) = tcr.and_then(|(identity, tcr)| tcr_with_t0sz(tcr, identity).ok()) else { return };
        let Self { image, dtb, entered, entered_at, .. } = self;
        // `entry.S` invalidates this memory before it stores there with the MMU off. What is dirty
        // until then may or may not reach memory, so that nothing here may matter but what is
        // cleaned now: `.data`.
        let data = PaRange::new(image.read_only().end, image.range().end);
        cpu::clean_and_invalidate(image.virtual_address(data.start), data.len());
        let there = image.physical(enter_again as *const u8);
        // SAFETY: T0SZ is the identity map's, which has the code at `there`. TTBR0 translates
        // nothing, and nothing of it is cached.
        unsafe { ThisCpu.write_ttbr0(image.ttbr(image.identity_map())) };
        ThisCpu.isb();
        // SAFETY: interrupts are masked, no other CPU runs, and no Rust code goes on after this.
        unsafe {
            asm!("br {there}",
                there = in(reg) there.0,
                in("x0") dtb.0,
                in("x1") entered,
                in("x2") entered_at,
                in("x3") image.offset(),
                in("x4") tcr,
                options(noreturn));
        }
    }
}
