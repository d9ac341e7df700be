//! The third CPU.

use crate::machine::{end, say};

/// The guest has asked to be switched off.
pub fn guest_is_done() -> ! {
    say!("the guest is done");
    end(None)
}

/// Stays at EL2.
pub extern "C" fn edit() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
