//! GICv2 (Arm IHI 0048). Distributor and CPU interface are registers in memory that stay mapped;
//! each CPU sees its own banks.

use core::ptr;
use core::sync::atomic::Ordering;

use linmap_platform::device::Device;
use linmap_platform::gic::V2;
use linmap_table::Fixmap;
use linmap_vmsa::{Attributes, Va};

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::layout::{FIXMAP, GRANULE, slot};
use crate::arch::per_cpu;
use crate::gic::error::GicError;
use crate::gic::sgi::{PRIORITY_MASK, SGI_PRIORITIES, Sgi};

// The distributor's registers.
const GICD_CTLR: usize = 0x000;
const GICD_TYPER: usize = 0x004;
const GICD_ISENABLER0: usize = 0x100;
const GICD_ICENABLER0: usize = 0x180;
const GICD_ICACTIVER0: usize = 0x380;
const GICD_IPRIORITYR0: usize = 0x400;
const GICD_ITARGETSR0: usize = 0x800;
const GICD_SGIR: usize = 0xf00;
const GICD_CPENDSGIR0: usize = 0xf10;
// The CPU interface's.
const GICC_CTLR: usize = 0x00;
const GICC_PMR: usize = 0x04;
const GICC_BPR: usize = 0x08;
const GICC_IAR: usize = 0x0c;
const GICC_EOIR: usize = 0x10;

const fn slot_address(slot: usize) -> Va {
    Va(FIXMAP.0 + slot as u64 * GRANULE.bytes())
}

const DISTRIBUTOR: Va = slot_address(slot::DISTRIBUTOR);
const CPU_INTERFACE: Va = slot_address(slot::CPU_INTERFACE);

fn read(frame: Va, offset: usize) -> u32 {
    let register = ptr::with_exposed_provenance::<u32>(frame.0 as usize + offset);
    // SAFETY: `start` has mapped both frames for good, and nothing is read before it.
    unsafe { register.read_volatile() }
}

fn write(frame: Va, offset: usize, value: u32) {
    let register = ptr::with_exposed_provenance_mut::<u32>(frame.0 as usize + offset);
    // SAFETY: as for `read`.
    unsafe { register.write_volatile(value) };
}

/// Maps the registers, switches the interrupts of devices off and forwarding on. Returns which
/// pages stay mapped.
pub fn start(
    device: &Device<'_>,
    pa_bits: u8,
    fixmap: &mut Fixmap,
    cpu: &mut ThisCpu,
) -> Result<V2, GicError> {
    let registers = V2::of(device, pa_bits)?;
    let V2 { distributor, cpu_interface } = registers;
    // SAFETY: the registers of a device, by a type for devices.
    unsafe {
        let _ = fixmap.map(cpu, slot::DISTRIBUTOR, distributor, Attributes::DEVICE);
        let _ = fixmap.map(cpu, slot::CPU_INTERFACE, cpu_interface, Attributes::DEVICE);
    }
    write(DISTRIBUTOR, GICD_CTLR, 0);
    // ITLinesNumber: how many registers of 32 interrupts there are, less one.
    let lines = read(DISTRIBUTOR, GICD_TYPER) as usize & 0x1f;
    for register in 1..=lines {
        write(DISTRIBUTOR, GICD_ICENABLER0 + 4 * register, u32::MAX);
    }
    write(DISTRIBUTOR, GICD_CTLR, 1);
    Ok(registers)
}

/// Sets up this CPU's banks and interface. Returns whether the CPU has a bit in target lists.
pub fn start_this_cpu() -> bool {
    // Each implemented byte holds the bit of the CPU that reads it.
    let target = (0..8).find_map(|i| {
        let targets = read(DISTRIBUTOR, GICD_ITARGETSR0 + 4 * i);
        targets.to_le_bytes().into_iter().find(|byte| *byte != 0)
    });
    let Some(target) = target else { return false };
    per_cpu::of(per_cpu::this_cpu()).gic_target.store(target, Ordering::Release);
    write(DISTRIBUTOR, GICD_ICENABLER0, u32::MAX);
    // An earlier kernel may have left interrupts active or pending.
    write(DISTRIBUTOR, GICD_ICACTIVER0, u32::MAX);
    for register in 0..4 {
        write(DISTRIBUTOR, GICD_CPENDSGIR0 + 4 * register, u32::MAX);
        write(DISTRIBUTOR, GICD_IPRIORITYR0 + 4 * register, SGI_PRIORITIES);
    }
    write(DISTRIBUTOR, GICD_ISENABLER0, Sgi::MASK);
    write(CPU_INTERFACE, GICC_PMR, PRIORITY_MASK);
    write(CPU_INTERFACE, GICC_BPR, 0);
    // EOImode 0: the end of an interrupt also deactivates it. The bypass bits (8:5) are the
    // platform's.
    let bypass = read(CPU_INTERFACE, GICC_CTLR) & 0x1e0;
    write(CPU_INTERFACE, GICC_CTLR, bypass | 1);
    true
}

/// Lets no interrupt through to this CPU.
pub fn stop_this_cpu() {
    write(DISTRIBUTOR, GICD_ICENABLER0, u32::MAX);
    let bypass = read(CPU_INTERFACE, GICC_CTLR) & 0x1e0;
    write(CPU_INTERFACE, GICC_CTLR, bypass);
}

/// Stops forwarding interrupts to all CPUs.
pub fn stop() {
    write(DISTRIBUTOR, GICD_CTLR, 0);
}

/// Sends `sgi` to the CPUs of the target list `targets`.
pub fn send(sgi: u32, targets: u8) {
    write(DISTRIBUTOR, GICD_SGIR, u32::from(targets) << 16 | sgi);
}

/// Reads GICC_IAR: the interrupt's number, and above it the sender's for an SGI.
pub fn acknowledge() -> u32 {
    let acknowledged = read(CPU_INTERFACE, GICC_IAR);
    // No later load may see memory as it was before the sender's stores.
    cpu::barrier();
    acknowledged
}

/// Ends the interrupt that [`acknowledge`] returned.
pub fn end(acknowledged: u32) {
    write(CPU_INTERFACE, GICC_EOIR, acknowledged);
}
