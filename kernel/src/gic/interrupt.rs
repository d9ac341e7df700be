//! Interrupting other CPUs.

use crate::arch::cpu_set::CpuSet;
use crate::arch::stop;
use crate::gic::controller;
use crate::gic::sgi::Sgi;

/// Interrupts each of `targets` with `sgi`. Everything that this CPU stored before is visible to
/// them when they take it.
///
/// Stops for good when another CPU ends the kernel: the targets may run the next kernel already.
pub fn interrupt(sgi: Sgi, targets: CpuSet) {
    stop::stop_if_elsewhere();
    controller::send(sgi, targets);
}
