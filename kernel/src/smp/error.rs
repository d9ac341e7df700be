//! Why a CPU can't be started or switched off.

use linmap::features::{Lacks, Overclaimed};
use linmap_vmsa::Pa;
use thiserror::Error;

use crate::arch::wait::PATIENCE;
use crate::gic::error::GicError;
use crate::smp::boot_page::Unfit;
use crate::smp::stacks::StackError;

/// Why a CPU can't be started or switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("CPU {number}: {why}")]
pub struct CpuError {
    /// Its number.
    pub number: usize,
    /// Why.
    pub why: Why,
}

/// The reason of a [`CpuError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Why {
    /// It is not in the device tree.
    #[error("there is no such CPU")]
    Nobody,
    /// It is the boot CPU, which asks.
    #[error("it is the boot CPU")]
    BootCpu,
    /// It is online.
    #[error("it is online already")]
    Online,
    /// It runs other code.
    #[error("the firmware says that it is on, and we never started it: whatever it runs may be overwritten")]
    NotOurs,
    /// It is not online.
    #[error("it is not online")]
    NotOnline,
    /// It has work.
    #[error("it has not finished its work")]
    Busy,
    /// It timed out earlier.
    #[error("it timed out earlier, and may still arrive")]
    Lost,
    /// The device tree names no way to start it.
    #[error(
        "the device tree names no way to start it: enable-method is neither psci nor spin-table, or its \
         mailbox can't be used"
    )]
    NoMethod,
    /// It is started by a PSCI that can't be called.
    #[error("it is started by PSCI, and the device tree names none that can be called from here")]
    NoPsci,
    /// The firmware refuses to start it.
    #[error("PSCI CPU_ON: {0}")]
    Firmware(smccc::psci::Error),
    /// Its mailbox can't be reached.
    #[error("cpu-release-addr {release} lies beyond {pa_bits} bits of physical address")]
    MailboxOutOfReach {
        /// The mailbox.
        release: Pa,
        /// The bits in reach.
        pa_bits: u8,
    },
    /// It can't be interrupted.
    #[error("it can't be interrupted: {0}")]
    NoInterrupts(GicError),
    /// The GICv3 has no redistributor for it.
    #[error("the GIC has no working redistributor for it")]
    NoRedistributor,
    /// It can't use the interrupt controller.
    #[error("it has no working CPU interface of the GIC")]
    NoCpuInterface,
    /// It has no stacks.
    #[error("{0}")]
    NoStacks(StackError),
    /// It timed out while it started.
    #[error("it did not start within {PATIENCE} ms")]
    DidNotStart,
    /// It left before its MMU was on.
    #[error("{0}")]
    Unfit(Unfit),
    /// It lacks a feature that is in use.
    #[error("{0}")]
    Lacks(Lacks),
    /// The command line claims too much of it.
    #[error("{0}")]
    Overclaimed(Overclaimed),
    /// It timed out while it left.
    #[error("it did not leave within {PATIENCE} ms")]
    DidNotLeave,
    /// It may have left the firmware's spin table.
    #[error(
        "its mailbox was written, and it does not wait where that led it: the payload may overwrite the \
         code that it runs (linmap.cpus=1 leaves it with the firmware)"
    )]
    Astray,
    /// The payload's device tree does not have it in the pen.
    #[error(
        "it left the firmware's spin table after the payload was loaded: `kexec unload`, and load it again"
    )]
    NotInPen,
    /// It timed out on its way to the pen.
    #[error("it did not reach the pen within {PATIENCE} ms")]
    NotPenned,
}
