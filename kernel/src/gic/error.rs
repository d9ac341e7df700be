//! Why CPUs can't interrupt each other.

use linmap_platform::gic::RegistersError;
use linmap_vmsa::PaRange;
use thiserror::Error;

/// Why CPUs can't interrupt each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum GicError {
    /// The device tree has no GIC of a known version.
    #[error("the device tree has no GICv2 or GICv3 that linmap knows")]
    Unknown,
    /// Its registers can't be where the device tree says.
    #[error(transparent)]
    Registers(#[from] RegistersError),
    /// Its registers overlap memory.
    #[error("the GIC's registers at {registers} lie in what the device tree calls memory")]
    InMemory {
        /// Where.
        registers: PaRange,
    },
    /// The boot CPU can't use the GICv3's system registers.
    #[error("the firmware keeps the GICv3's system registers from this exception level (ICC_SRE)")]
    SystemRegisters,
    /// The distributor stays busy.
    #[error("the GIC's distributor does not finish a write of its control register (GICD_CTLR.RWP)")]
    Busy,
}
