//! The interrupt controller, as far as CPUs interrupt each other: software-generated interrupts (SGIs).
//!
//! All other interrupts are switched off: the distributor's by the boot CPU, a CPU's own when it comes. The boot CPU sends
//! and never receives, so its CPU interface stays as the firmware left it.

use core::sync::atomic::{AtomicU8, Ordering};

use linmap_platform::Affinity;
use linmap_platform::device::Device;
use linmap_table::Fixmap;
use linmap_vmsa::PaRange;
use thiserror::Error;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::percpu;
use crate::boot::topology::Topology;
use crate::gic::v2 as gic_v2;
use crate::gic::v3 as gic_v3;
use crate::gic::v3::Redistributors;

pub use linmap_platform::gic::{FRAME, RegistersError, V2, V3, Version, describe};

/// Four interrupt numbers from here on mean that there was none (GIC architecture specification, IHI 0069, 2.2.1).
const SPECIAL: u32 = 1020;
/// The priority of all SGIs. Only its being above what the CPU interface masks matters, in both views of priorities.
pub const SGI_PRIORITIES: u32 = 0xa0a0_a0a0;
/// The lowest priority that is let through: all that is used, on implementations with few bits too.
pub const PRIORITY_MASK: u32 = 0xf0;

/// The version that is in use, by its number; 0 while CPUs can't interrupt each other.
static IN_USE: AtomicU8 = AtomicU8::new(0);

fn in_use() -> Option<Version> {
    match IN_USE.load(Ordering::Acquire) {
        2 => Some(Version::V2),
        3 => Some(Version::V3),
        _ => None,
    }
}

/// Whether CPUs can interrupt each other.
pub fn is_in_use() -> bool {
    in_use().is_some()
}

/// Why CPUs can't interrupt each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum GicError {
    /// The device tree has none that we know.
    #[error("the device tree has no GICv2 or GICv3 that linmap knows")]
    Unknown,
    /// Its registers can't be where the device tree says.
    #[error(transparent)]
    Registers(#[from] RegistersError),
    /// Its registers would be memory.
    #[error("the GIC's registers at {registers} lie in what the device tree calls memory")]
    InMemory {
        /// Where.
        registers: PaRange,
    },
    /// The boot CPU can't use the GICv3's system registers.
    #[error("the firmware keeps the GICv3's system registers from this exception level (ICC_SRE)")]
    SystemRegisters,
    /// The distributor does not finish.
    #[error("the GIC's distributor does not finish what it was told (GICD_CTLR.RWP)")]
    Busy,
}

/// The interrupt controller, ready to interrupt.
#[derive(Debug)]
pub struct Gic {
    /// What a GICv3 has for each CPU; a GICv2 has nothing that others could set up.
    redistributors: Option<Redistributors>,
}

impl Gic {
    /// Sets up what CPUs share, with all interrupts of devices off, and looks for what belongs to each of `cpus`.
    ///
    /// # Errors
    /// [`GicError`]; no CPU can be interrupted then.
    pub fn start(
        described: Option<&(Version, Device<'_>)>,
        topology: &Topology,
        pa_bits: u8,
        fixmap: &mut Fixmap,
        cpu: &mut ThisCpu,
    ) -> Result<Self, GicError> {
        let (version, device) = described.ok_or(GicError::Unknown)?;
        let redistributors = match version {
            Version::V2 => {
                gic_v2::start(device, pa_bits, fixmap, cpu)?;
                None
            }
            Version::V3 => Some(gic_v3::start(device, topology, pa_bits, fixmap, cpu)?),
        };
        IN_USE.store(version.number(), Ordering::Release);
        Ok(Self { redistributors })
    }

    /// Turns forwarding off, as the next kernel expects to find it.
    pub fn stop(&self, fixmap: &mut Fixmap, cpu: &mut ThisCpu) {
        match &self.redistributors {
            None => gic_v2::stop(),
            Some(redistributors) => redistributors.stop_distributor(fixmap, cpu),
        }
    }

    /// Sets up what is outside the CPU `number` and is done for it, once it is there; says whether it works.
    pub fn prepare(&self, number: usize, fixmap: &mut Fixmap, cpu: &mut ThisCpu) -> bool {
        let Some(redistributors) = &self.redistributors else { return true };
        redistributors.prepare(number, fixmap, cpu)
    }
}

/// Sets up what belongs to this CPU, so that it takes SGIs; says whether it can.
pub fn start_this_cpu() -> bool {
    match in_use() {
        Some(Version::V2) => gic_v2::start_this_cpu(),
        Some(Version::V3) => gic_v3::start_this_cpu(),
        None => false,
    }
}

/// Lets no interrupt through to this CPU any more.
pub fn stop_this_cpu() {
    match in_use() {
        Some(Version::V2) => gic_v2::stop_this_cpu(),
        Some(Version::V3) => gic_v3::stop_this_cpu(),
        None => {}
    }
}

/// Sends SGI `sgi` to the CPU `number` at `affinity`, after all that this CPU stored before is visible to it.
pub fn send(sgi: u32, number: usize, affinity: Affinity) {
    cpu::order_stores();
    match in_use() {
        Some(Version::V2) => gic_v2::send(sgi, percpu::of(number).gic_target.load(Ordering::Acquire)),
        Some(Version::V3) => gic_v3::send(sgi, affinity),
        None => {}
    }
}

/// Takes the interrupt that is pending and ends it at once, so that a handler need not return. `None` when there was none,
/// as happens when one is taken back. Ended before it is handled: an SGI is an event, so nothing would raise it again, and
/// interrupts stay masked until the handler returns.
pub fn take() -> Option<u32> {
    let (acknowledged, number, end): (u32, u32, fn(u32)) = match in_use()? {
        // The sender stands in bits 12:10 and is wanted back.
        Version::V2 => {
            let acknowledged = gic_v2::acknowledge();
            (acknowledged, acknowledged & 0x3ff, gic_v2::end)
        }
        Version::V3 => {
            let acknowledged = gic_v3::acknowledge();
            (acknowledged, acknowledged, gic_v3::end)
        }
    };
    if (SPECIAL..SPECIAL + 4).contains(&number) {
        return None;
    }
    end(acknowledged);
    Some(number)
}
