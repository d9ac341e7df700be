//! A program for Linux that makes it change its tables: `workload PHASE TIMES` does the phase so
//! many times and ends with 0 if every page held what it should.
//!
//! The phases are what makes a kernel change tables of user space: `pages`, `folios` (contiguous
//! entries), `huge` (blocks), `reserved` (hugetlb), `shared` (dirty pages of a file), `sharers`
//! (several CPUs in one address space) and `processes` (more than 256, so that 8 bits of ASID roll
//! over); and its own: `secret` (pages out of its linear map) and `filter` (text that it compiles).

#![no_std]
#![no_main]

mod area;
mod phases;
mod system;

use core::ffi::CStr;
use core::panic::PanicInfo;

use phases::Phase;
use system::{Refused, exit, say};

/// What Linux put on the stack.
struct Start {
    arguments: [Option<&'static str>; 2],
    page: usize,
}

impl Start {
    /// Reads the stack.
    ///
    /// # Safety
    /// `stack` is as Linux made it: the number of arguments, the arguments, a null, the
    /// environment, a null, and pairs, of which the first of 0 is the last.
    unsafe fn read(stack: *const usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let count = stack.read();
            let argument = |nth: usize| {
                let text = (nth < count).then(|| stack.add(1 + nth).read() as *const core::ffi::c_char)?;
                CStr::from_ptr(text).to_str().ok()
            };
            let arguments = [argument(1), argument(2)];
            let mut at = stack.add(count + 2);
            while at.read() != 0 {
                at = at.add(1);
            }
            at = at.add(1);
            let mut page = 4096;
            while at.read() != 0 {
                // AT_PAGESZ.
                if at.read() == 6 {
                    page = at.add(1).read();
                }
                at = at.add(2);
            }
            Self { arguments, page }
        }
    }
}

/// Entered from `entry.S`.
///
/// # Safety
/// `stack` is as Linux made it.
#[unsafe(no_mangle)]
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the caller's promise.
    let Start { arguments: [name, times], page } = unsafe { Start::read(stack) };
    let phase = name.and_then(Phase::named);
    let times = times.map_or(Some(1), |times| times.parse().ok());
    let (Some(phase), Some(times)) = (phase, times) else {
        say(format_args!("workload PHASE [TIMES], with PHASE one of:"));
        Phase::ALL.iter().for_each(|(name, _)| say(format_args!(" {name}")));
        say(format_args!("\n"));
        exit(Err(Refused { what: "the arguments", errno: 0 }));
    };
    for _ in 0..times {
        if let Err(refused) = phase.run(page) {
            if refused.is_absent() {
                say(format_args!("workload: this kernel has no {}\n", refused.what));
                exit(Ok(()));
            }
            exit(Err(refused));
        }
    }
    exit(Ok(()))
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(Err(Refused { what: "panic", errno: 0 }))
}
