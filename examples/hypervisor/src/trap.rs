//! What a guest CPU traps for.

use crate::cpu::{self, mrs, msr};
use crate::machine::end;
use crate::{psci, stage2};

/// Entered from `entry.S` with the registers of a guest that has trapped.
#[unsafe(no_mangle)]
extern "C" fn guest_trap(registers: &mut [u64; 31]) {
    let syndrome = mrs!("esr_el2");
    // Exception classes (Arm ARM D24.2, ESR_ELx.EC)
    match syndrome >> 26 & 0x3f {
        // HVC: nothing is offered.
        0x16 => registers[0] = psci::NOT_SUPPORTED,
        // SMC, trapped before it is executed.
        0x17 => {
            registers[0] = psci::call(registers);
            // SAFETY: the instruction after it.
            unsafe { msr!("elr_el2", mrs!("elr_el2") + 4) };
        }
        0x20 | 0x24 => stage2::fault(syndrome),
        class => {
            let at = mrs!("elr_el2");
            end(Some(format_args!("a guest's exception of class {class:#x} at {at:#x}: {syndrome:#x}")))
        }
    }
}

/// Entered from the vectors for everything else.
#[unsafe(no_mangle)]
extern "C" fn unexpected_exception(syndrome: u64, at: u64, address: u64) -> ! {
    let cpu = cpu::number();
    end(Some(format_args!(
        "CPU {cpu}: an exception at {at:#x}, syndrome {syndrome:#x}, address {address:#x}"
    )))
}
