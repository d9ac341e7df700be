//! The phase of the boot that starts all other CPUs.

use core::fmt;
use core::sync::atomic::Ordering;

use linmap_platform::device::Device;
use linmap_platform::gic::Version;
use linmap_platform::{CpuNode, Devices, EnableMethod};
use linmap_vmsa::MemoryType;
use linmap_vmsa::id::Mmfr0;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::geometry::geometry;
use crate::arch::per_cpu;
use crate::arch::platform::Platform;
use crate::arch::print::Quoted;
use crate::arch::psci;
use crate::arch::topology::Topology;
use crate::gic::controller::Gic;
use crate::gic::error::GicError;
use crate::memory::physical::Memory;
use crate::smp::boot_cpu::bits_to_reach;
use crate::smp::boot_page;
use crate::smp::command_line::{CpuWordError, cpu_count};
use crate::smp::cpus::Cpus;
use crate::smp::error::{CpuError, Why};
use crate::smp::stacks;
use crate::{report, say};

/// Starts the CPUs that the command line asks for, by default all, and reports the phase. A CPU
/// that can't be started, or times out, is named and left out.
///
/// # Errors
/// [`CpuWordError`].
pub fn start_all(
    cpus: &mut Cpus,
    platform: &Platform,
    memory: &mut Memory,
    devices: &Devices<'_>,
    topology: &Topology,
    memory_type: MemoryType,
) -> Result<(), CpuWordError> {
    let started = cpu::counter();
    warn_of_unusable(topology);
    let limit = cpu_count(platform.command_line)?;
    let present = cpus.list.len();
    let described = devices.gic.as_ref();
    if present > 1 {
        cpus.gic = cpus.start_gic(memory, described, topology);
        cpus.stacks = stacks::map(memory, present, &mut cpus.stack_memory).map(|()| present);
        let pa_range = Mmfr0::least_pa_range(cpus.system.pa_bits);
        let Platform { entered, reserved, image, .. } = *platform;
        boot_page::publish(entered, pa_range, reserved, image.offset(), memory_type);
        // The boot CPU leaves too, when another CPU ends the kernel and a crash kernel waits.
        let way_off = psci::way_off(cpus.list[0].method, cpus.psci);
        per_cpu::of(0).conduit.store(way_off, Ordering::Release);
    }
    start_up_to(cpus, platform, memory, limit.unwrap_or(present).min(present))?;
    let system = cpus.system;
    report!(
        "phase=cpus ticks={} online={} present={present} method={} gic={} bbm={} tlbi_range={}",
        cpu::ticks_since(started),
        per_cpu::online().len(),
        Methods(&cpus.list[1..]),
        described.map_or(0, |(version, _)| version.number()),
        system.bbm.number(),
        u8::from(system.tlbi_range)
    );
    Ok(())
}

fn warn_of_unusable(topology: &Topology) {
    for unusable in &topology.unusable {
        warn(unusable);
    }
    if let Some(left_out) = &topology.left_out {
        warn(left_out);
    }
    if topology.unusable_count > topology.unusable.len() {
        warn(&format_args!("{} nodes of /cpus can't be used in all", topology.unusable_count));
    }
}

/// Starts all CPUs with numbers below `count`.
fn start_up_to(
    cpus: &mut Cpus,
    platform: &Platform,
    memory: &mut Memory,
    count: usize,
) -> Result<(), CpuWordError> {
    if let (2.., Err(error)) = (count, &cpus.gic) {
        warn(&format_args!("the other {} CPUs stay off: {error}", cpus.list.len() - 1));
        return Ok(());
    }
    for number in 1..count {
        match cpus.start_early(platform, memory, number) {
            Ok(()) => {}
            Err(error @ CpuError { why: Why::Overclaimed(_), .. }) => {
                return Err(CpuWordError::OverclaimedLater(error));
            }
            Err(error) => warn(&error),
        }
    }
    Ok(())
}

impl Cpus {
    /// Sets up the interrupt controller that the device tree describes.
    fn start_gic(
        &mut self,
        memory: &mut Memory,
        described: Option<&(Version, Device<'_>)>,
        topology: &Topology,
    ) -> Result<Gic, GicError> {
        let registers = || described.iter().flat_map(|(_, device)| device.registers.iter().copied());
        let is_memory = |range| memory.memblock.regions().any(|region| region.range.overlaps(range));
        if let Some(registers) = registers().find(|range| is_memory(*range)) {
            return Err(GicError::InMemory { registers });
        }
        let pa_bits = geometry().pa_bits();
        let gic = Gic::start(described, topology, pa_bits, &mut memory.fixmap, &mut ThisCpu)?;
        // All CPUs have to reach the registers.
        let device_bits = bits_to_reach(registers());
        self.system.pa_bits = self.system.pa_bits.max(device_bits.min(pa_bits));
        Ok(gic)
    }
}

fn warn(what: &dyn fmt::Display) {
    say!("{what}");
    report!("warning=cpu what={}", Quoted(what));
}

/// How the secondary CPUs are started, in one word.
struct Methods<'a>(&'a [CpuNode]);

impl fmt::Display for Methods<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let same =
            |a: &EnableMethod, b: &EnableMethod| core::mem::discriminant(a) == core::mem::discriminant(b);
        match self.0 {
            [] => f.write_str("none"),
            [first, rest @ ..] if rest.iter().all(|cpu| same(&cpu.method, &first.method)) => {
                first.method.fmt(f)
            }
            _ => f.write_str("mixed"),
        }
    }
}
