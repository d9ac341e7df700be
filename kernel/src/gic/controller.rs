//! The interrupt controller, as far as CPUs interrupt each other: software-generated interrupts
//! (SGIs).
//!
//! All other interrupts are switched off: the distributor's by the boot CPU, a CPU's own when it
//! starts. The boot CPU sends interrupts and never receives one, so its CPU interface stays as the
//! firmware left it.

use core::sync::atomic::{AtomicU8, Ordering};

use linmap_platform::device::Device;
use linmap_platform::gic::{V2, Version};
use linmap_platform::sgi::SgiWrites;
use linmap_table::Fixmap;

use crate::arch::affinities;
use crate::arch::cpu::{self, ThisCpu};
use crate::arch::cpu_set::CpuSet;
use crate::arch::per_cpu;
use crate::arch::topology::Topology;
use crate::gic::error::GicError;
use crate::gic::sgi::Sgi;
use crate::gic::v2;
use crate::gic::v3::{self, Redistributors};

/// The first of four interrupt numbers that mean that no interrupt was pending (GIC architecture
/// specification, IHI 0069, 2.2.1).
const SPECIAL: u32 = 1020;

/// The number of the version that is in use, 0 while CPUs can't interrupt each other.
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

/// The interrupt controller, set up.
#[derive(Debug)]
pub struct Gic(Registers);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one value, and no allocator")]
enum Registers {
    /// Both frames stay mapped. A CPU sets its banks up itself.
    V2(V2),
    /// The redistributor of each CPU, mapped while it is used.
    V3(Redistributors),
}

impl Gic {
    /// Sets up the distributor, with all interrupts of devices off, and finds the redistributor of
    /// each CPU of `topology`.
    ///
    /// # Errors
    /// [`GicError`]. No CPU can be interrupted then.
    pub fn start(
        described: Option<&(Version, Device<'_>)>,
        topology: &Topology,
        pa_bits: u8,
        fixmap: &mut Fixmap,
        cpu: &mut ThisCpu,
    ) -> Result<Self, GicError> {
        let (version, device) = described.ok_or(GicError::Unknown)?;
        let registers = match version {
            Version::V2 => Registers::V2(v2::start(device, pa_bits, fixmap, cpu)?),
            Version::V3 => Registers::V3(v3::start(device, topology, pa_bits, fixmap, cpu)?),
        };
        IN_USE.store(version.number(), Ordering::Release);
        Ok(Self(registers))
    }

    /// The registers that stay mapped.
    pub fn mapped(&self) -> Option<V2> {
        match self.0 {
            Registers::V2(registers) => Some(registers),
            Registers::V3(_) => None,
        }
    }

    /// Turns forwarding off, as the next kernel expects it.
    pub fn stop(&self, fixmap: &mut Fixmap, cpu: &mut ThisCpu) {
        match &self.0 {
            Registers::V2(_) => v2::stop(),
            Registers::V3(redistributors) => redistributors.stop_distributor(fixmap, cpu),
        }
    }

    /// Sets up the redistributor of the CPU `number`, which is powered on. Returns whether it
    /// works.
    pub fn prepare(&self, number: usize, fixmap: &mut Fixmap, cpu: &mut ThisCpu) -> bool {
        match &self.0 {
            Registers::V2(_) => true,
            Registers::V3(redistributors) => redistributors.prepare(number, fixmap, cpu),
        }
    }
}

/// Sets up this CPU's interface, so that it takes SGIs. Returns whether it can.
pub fn start_this_cpu() -> bool {
    match in_use() {
        Some(Version::V2) => v2::start_this_cpu(),
        Some(Version::V3) => v3::start_this_cpu(),
        None => false,
    }
}

/// Lets no more interrupts through to this CPU.
pub fn stop_this_cpu() {
    match in_use() {
        Some(Version::V2) => v2::stop_this_cpu(),
        Some(Version::V3) => v3::stop_this_cpu(),
        None => {}
    }
}

/// Sends `sgi` to `targets`, which takes one write for all on a GICv2, and one for each group that
/// a write reaches on a GICv3. Everything that this CPU stored before is visible to them first.
pub fn send(sgi: Sgi, targets: CpuSet) {
    if targets.is_empty() {
        return;
    }
    cpu::order_stores();
    match in_use() {
        Some(Version::V2) => {
            let target = |number| per_cpu::of(number).gic_target.load(Ordering::Acquire);
            v2::send(sgi as u32, targets.iter().map(target).fold(0, |list, target| list | target));
        }
        Some(Version::V3) => v3::send(SgiWrites::new(sgi as u8, targets.words(), affinities::of)),
        None => {}
    }
}

/// Takes the pending interrupt and returns its number, or `None` when none is pending any more.
///
/// The interrupt ends before it is handled, so that a handler need not return. An SGI is an event:
/// nothing raises it again, and interrupts stay masked until the handler returns.
pub fn take() -> Option<u32> {
    let (acknowledged, number, end): (u32, u32, fn(u32)) = match in_use()? {
        // The end of an SGI has to name the sender, in bits 12:10.
        Version::V2 => {
            let acknowledged = v2::acknowledge();
            (acknowledged, acknowledged & 0x3ff, v2::end)
        }
        Version::V3 => {
            let acknowledged = v3::acknowledge();
            (acknowledged, acknowledged, v3::end)
        }
    };
    if (SPECIAL..SPECIAL + 4).contains(&number) {
        return None;
    }
    end(acknowledged);
    Some(number)
}
