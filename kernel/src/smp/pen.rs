//! The pen: a page in which CPUs that have left the firmware's spin table wait for the next kernel.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};
use core::{ptr, slice};

use linmap::Layout;
use linmap_kexec::{MAX_PENNED, SEGMENT_ALIGN, SpinTable};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::cpu;
use crate::arch::layout::MAX_CPUS;

/// The length of the pen in bytes: a page of 4 KiB, since the next kernel may have any granule.
pub const LEN: u64 = SEGMENT_ALIGN;
/// The offset of the marks, a word of 32 bits for each CPU by its number: 0, or 1 once it waits.
/// Only written with the MMU off.
const MARKS: u64 = 1024;
/// The offset of the word that the CPUs watch. A cache line, and what is written back with it
/// (CTR_EL0.CWG), has at most 2 KiB, so that the next kernel can write the word through a cache
/// without touching the marks.
const RELEASE: u64 = 2048;

const _: () = assert!(MARKS + 4 * MAX_CPUS as u64 <= RELEASE && MAX_CPUS <= MAX_PENNED);

global_asm!(include_str!("pen.S"), release = const RELEASE);

unsafe extern "C" {
    static pen_start: u8;
    static pen_end: u8;
}

/// The code that CPUs run in a pen, position independent.
pub fn code() -> &'static [u8] {
    let [start, end] = [&raw const pen_start, &raw const pen_end].map(|symbol| symbol.expose_provenance());
    // SAFETY: both symbols bound one stretch of the image's read-only data.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), end - start) }
}

/// Whether `page` is a pen as [`Pen::write`] left it: no CPU waits there, and none is released.
pub fn is_empty(page: &[u8; LEN as usize]) -> bool {
    page.strip_prefix(code()).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

/// A pen in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pen(Pa);

impl Pen {
    /// Writes the pen to `page`, the bytes of the frame at `at`, which are all 0. The caller cleans
    /// the frame, and invalidates instructions that were fetched from it before.
    pub fn write(at: Pa, page: &mut [u8]) -> Self {
        let code = code();
        page[..MARKS as usize][..code.len()].copy_from_slice(code);
        Self(at)
    }

    /// Where CPUs enter it, each with the address of its mark in x0.
    pub fn entry(self) -> Pa {
        self.0
    }

    /// The address of the mark of the CPU `number`.
    pub fn mark(self, number: usize) -> Pa {
        Pa(self.0.0 + MARKS + 4 * number as u64)
    }

    /// Whether the CPU `number` waits here.
    pub fn has(self, layout: &Layout, number: usize) -> bool {
        let va = layout.linear(self.mark(number));
        cpu::invalidate_word(va);
        // SAFETY: the linear map has the page, the word is aligned, and only this refers to the
        // page of a pen.
        let mark = unsafe { &*ptr::with_exposed_provenance::<AtomicU32>(va.0 as usize) };
        mark.load(Ordering::Acquire) != 0
    }

    /// The pen with `cpus` in it, in the form for the next kernel's device tree.
    pub fn spin_table(at: Pa, cpus: &[u64]) -> SpinTable<'_> {
        let pen = PaRange::new(at, Pa(at.0 + LEN));
        SpinTable { pen, release: Pa(at.0 + RELEASE), cpus }
    }
}
