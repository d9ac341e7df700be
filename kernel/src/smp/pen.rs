//! The pen: a page in which CPUs from a spin table wait for the next kernel, when they have left the firmware's.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};
use core::{ptr, slice};

use linmap::Layout;
use linmap_kexec::{MAX_PENNED, SpinTable};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::cpu;
use crate::memory::layout::MAX_CPUS;

/// Bytes of the page.
pub const LEN: u64 = 4096;
/// Where the marks are, a word of 32 bits for each CPU by its number: 0, or 1 once it waits. They are stored to with the MMU
/// off alone.
const MARKS: u64 = 1024;
/// Where the word is that they watch. A cache line, and what is written back with it (CTR_EL0.CWG), has at most 2 KiB, so
/// that the next kernel can write it through a cache.
const RELEASE: u64 = 2048;

const _: () = assert!(MARKS + 4 * MAX_CPUS as u64 <= RELEASE && MAX_CPUS <= MAX_PENNED);

global_asm!(include_str!("pen.S"), release = const RELEASE);

unsafe extern "C" {
    static pen_start: u8;
    static pen_end: u8;
}

/// What CPUs execute in a pen, position independent.
pub fn code() -> &'static [u8] {
    let [start, end] = [&raw const pen_start, &raw const pen_end].map(|symbol| symbol.expose_provenance());
    // SAFETY: both symbols bound one stretch of the image's read-only data.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), end - start) }
}

/// Whether `page` is a pen as it is written: nobody waits there, and nobody is let go.
pub fn is_empty(page: &[u8; LEN as usize]) -> bool {
    page.strip_prefix(code()).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

/// A pen that is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pen(Pa);

impl Pen {
    /// Writes the pen to `page`, the bytes of the frame at `at`, all of which are 0. Cleaning it, and dropping what was
    /// fetched from there before, is the caller's.
    pub fn write(at: Pa, page: &mut [u8]) -> Self {
        let code = code();
        page[..MARKS as usize][..code.len()].copy_from_slice(code);
        Self(at)
    }

    /// Where CPUs enter it, each with its mark in x0.
    pub fn entry(self) -> Pa {
        self.0
    }

    /// Where the CPU `number` says that it waits.
    pub fn mark(self, number: usize) -> Pa {
        Pa(self.0.0 + MARKS + 4 * number as u64)
    }

    /// Whether the CPU `number` waits here.
    pub fn has(self, layout: &Layout, number: usize) -> bool {
        let va = layout.linear(self.mark(number));
        cpu::invalidate_word(va);
        // SAFETY: the linear map has the page, the word is aligned, and whoever has a pen refers to its page by this alone.
        let mark = unsafe { &*ptr::with_exposed_provenance::<AtomicU32>(va.0 as usize) };
        mark.load(Ordering::Acquire) != 0
    }

    /// What the next kernel's device tree says of it, with `cpus` in it.
    pub fn spin_table(at: Pa, cpus: &[u64]) -> SpinTable<'_> {
        let pen = PaRange::new(at, Pa(at.0 + LEN));
        SpinTable { pen, release: Pa(at.0 + RELEASE), cpus }
    }
}
