//! Dispatching the interrupts that CPUs send each other.

use crate::arch::frame::Frame;
use crate::end::stopping;
use crate::gic::controller;
use crate::gic::sgi::Sgi;
use crate::memory::parking;
use crate::smp::cross_call;
use crate::smp::leave;

/// Takes and handles the interrupt of the code whose registers are in `frame`. Returns `false` if
/// nothing can have interrupted it.
pub fn dispatch(frame: &Frame) -> bool {
    let Some(number) = controller::take() else {
        // Either the interrupt is not pending any more, or no interrupt controller is in use.
        return controller::is_in_use();
    };
    match Sgi::from_number(number) {
        Some(Sgi::Call) => cross_call::answer_call(),
        // The CPU looks for work when this returns.
        Some(Sgi::Work) => {}
        Some(Sgi::Park) => parking::interrupted(),
        Some(Sgi::Stop) => stopping::told_to_stop(frame),
        Some(Sgi::Off) => leave::leave(),
        // All other interrupts are off. One that was pending before is taken once and never again.
        None => {}
    }
    true
}
