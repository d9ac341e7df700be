//! Exceptions: a probe's fault is recovered; every other exception is printed and ends the kernel.

use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, Ordering};

use linmap_vmsa::Va;

use crate::{cpu, report, say};

/// The registers of interrupted code, as `vectors.S` stores them.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Frame {
    x: [u64; 31],
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
    sp: u64,
}

const _: () = assert!(offset_of!(Frame, elr) == 248 && offset_of!(Frame, far) == 272);

global_asm!(include_str!("vectors.S"), frame_len = const size_of::<Frame>());

// A load that may fault: returns (byte, 0), or (ESR, 1) after the fault was recovered.
global_asm!(
    ".section .text.probe_load, \"ax\"",
    ".global probe_load",
    ".global probe_fault",
    "probe_load: ldrb w0, [x0]",
    "mov x1, xzr",
    "ret",
    "probe_fault: mov x1, #1",
    "ret",
);

#[repr(C)]
struct ProbeResult {
    value: u64,
    faulted: u64,
}

unsafe extern "C" {
    fn probe_load(va: u64) -> ProbeResult;
    fn probe_fault();
}

/// A fault that a probe met, from ESR_ELx.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The syndrome.
    pub esr: u64,
}

impl Fault {
    /// Whether the fault is a data abort from a translation fault, at any level: EC 0x25 and DFSC 0b0001xx, or level −1's
    /// 0b101011 (Arm ARM D24.2, ESR_EL1).
    pub fn is_translation(self) -> bool {
        let dfsc = self.esr & 0x3f;
        self.esr >> 26 & 0x3f == 0x25 && (dfsc & 0x3c == 0b00_0100 || dfsc == 0b10_1011)
    }
}

/// Loads the byte at `va`, through the MMU and the vectors.
pub fn probe(va: Va) -> Result<u8, Fault> {
    // SAFETY: the routine only loads; a fault at its one load is recovered by `exception`. Addresses that map devices,
    // where a load could have an effect, are never asked for: the callers probe memory, holes and guards.
    let result = unsafe { probe_load(va.0) };
    if result.faulted == 0 { Ok(result.value as u8) } else { Err(Fault { esr: result.value }) }
}

/// Whether an exception that ends the kernel is being printed.
static FATAL: AtomicBool = AtomicBool::new(false);

const NAMES: [&str; 4] = ["synchronous", "IRQ", "FIQ", "SError"];

/// Called by `vectors.S` with the number of the vector, 0 to 15.
#[unsafe(no_mangle)]
extern "C" fn exception(vector: u64, frame: &mut Frame) {
    if vector == 0 && frame.elr == probe_load as *const () as u64 {
        frame.x[0] = frame.esr;
        frame.elr = probe_fault as *const () as u64;
        return;
    }
    // A fault while one is being printed is the console's own: there is nothing left to say it with.
    if FATAL.swap(true, Ordering::Relaxed) {
        cpu::halt();
    }
    let name = NAMES[vector as usize % 4];
    let class = frame.esr >> 26 & 0x3f;
    say!(
        "{name} exception (vector {vector}), class {class:#x}, at {:#018x}, address {:#018x}",
        frame.elr,
        frame.far
    );
    for (i, pair) in frame.x.chunks(2).enumerate() {
        match *pair {
            [a, b] => say!("  x{:<2} {a:#018x}  x{:<2} {b:#018x}", 2 * i, 2 * i + 1),
            _ => say!("  x30 {:#018x}  sp  {:#018x}", frame.x[30], frame.sp),
        }
    }
    report!(
        "error=exception vector={vector} esr={:#x} far={:#x} elr={:#x} spsr={:#x}",
        frame.esr,
        frame.far,
        frame.elr,
        frame.spsr
    );
    cpu::halt()
}
