//! Exceptions: interrupts of other CPUs are handled and a probe's fault is recovered; every other exception is printed and
//! ends the kernel.

use core::arch::global_asm;
use core::mem::{MaybeUninit, offset_of};

use linmap_kexec::CpuRegisters;

use crate::arch::percpu;
use crate::arch::probe;
use crate::end::fatal;
use crate::smp::cross_call;
use crate::{report, say};

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

impl Frame {
    /// The registers as a core file has them, of CPU 0.
    pub fn registers(&self) -> CpuRegisters {
        CpuRegisters { cpu: 0, x: self.x, sp: self.sp, pc: self.elr, pstate: self.spsr }
    }

    /// The registers of who calls this.
    // In the caller: the program counter is to be there.
    #[inline(always)]
    pub fn here() -> Self {
        let mut frame = MaybeUninit::uninit();
        // SAFETY: the routine stores every word of the frame.
        unsafe {
            store_registers(frame.as_mut_ptr());
            frame.assume_init()
        }
    }
}

unsafe extern "C" {
    fn store_registers(frame: *mut Frame);
}

global_asm!(include_str!("vectors.S"), frame_len = const size_of::<Frame>());

const NAMES: [&str; 4] = ["synchronous", "IRQ", "FIQ", "SError"];

/// Called by `vectors.S` with the number of the vector, 0 to 15. Those from 8 on are from lower exception levels.
#[unsafe(no_mangle)]
extern "C" fn exception(vector: u64, frame: &mut Frame) {
    let class = frame.esr >> 26 & 0x3f;
    match vector {
        // Outside interrupts and in their handlers.
        0 | 4 => {
            if let Some(elr) = probe::recovered(frame.esr, frame.elr, frame.x[30]) {
                frame.x[0] = frame.esr;
                frame.elr = elr;
                return;
            }
        }
        1 | 5 if cross_call::interrupted(frame) => return,
        _ => {}
    }
    // A fault while one is being printed is the console's own: there is nothing left to say it with.
    fatal::begin(frame);
    let cpu = percpu::this_cpu();
    let name = NAMES[vector as usize % 4];
    say!(
        "CPU {cpu}: {name} exception (vector {vector}), class {class:#x}, at {:#018x}, address {:#018x}",
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
        "error=exception cpu={cpu} vector={vector} esr={:#x} far={:#x} elr={:#x} spsr={:#x}",
        frame.esr,
        frame.far,
        frame.elr,
        frame.spsr
    );
    fatal::stop(frame)
}
