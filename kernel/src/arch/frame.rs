//! The registers of interrupted code, and the vectors that store them. `vectors.S` calls the
//! function `exception`, which handles the exception.

use core::arch::global_asm;
use core::mem::{MaybeUninit, offset_of};

use linmap_kexec::CpuRegisters;

/// The registers of interrupted code, as `vectors.S` stores them.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Where the interrupted code continues.
    pub elr: u64,
    /// Its PSTATE.
    pub spsr: u64,
    /// The syndrome.
    pub esr: u64,
    /// The faulting address.
    pub far: u64,
    /// The stack pointer.
    pub sp: u64,
}

const _: () = assert!(offset_of!(Frame, elr) == 248 && offset_of!(Frame, far) == 272);

impl Frame {
    /// The registers in the form of a core file, as those of CPU 0.
    pub fn registers(&self) -> CpuRegisters {
        CpuRegisters { cpu: 0, x: self.x, sp: self.sp, pc: self.elr, pstate: self.spsr }
    }

    /// The registers of the caller.
    // Inlined, so that the program counter is one in the caller.
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
