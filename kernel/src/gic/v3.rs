//! GICv3 and GICv4 (Arm IHI 0069). The distributor and each CPU's redistributor are registers in
//! memory, the CPU interface is system registers.

use core::arch::asm;
use core::ptr::NonNull;

use arrayvec::ArrayVec;
use linmap_platform::device::Device;
use linmap_platform::gic::{FRAME, V3};
use linmap_table::Fixmap;
use linmap_vmsa::{Attributes, Pa};

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::layout::{MAX_CPUS, slot};
use crate::arch::topology::Topology;
use crate::arch::wait::wait_until;
use crate::gic::error::GicError;
use crate::gic::sgi::{PRIORITY_MASK, SGI_PRIORITIES, Sgi};

/// How many frames are searched for redistributors, at most.
const MAX_FRAMES: usize = 4 * MAX_CPUS;

// The distributor's registers.
const GICD_CTLR: usize = 0x0000;
const GICD_TYPER: usize = 0x0004;
const GICD_ICENABLER0: usize = 0x0180;
/// Affinity routing; of the Non-secure state where there are two.
const CTLR_ARE: u32 = 1 << 4;
/// Both groups that a Non-secure view may have.
const CTLR_GROUPS: u32 = 0b11;
const CTLR_RWP: u32 = 1 << 31;
// A redistributor's, in its first frame.
const GICR_CTLR: usize = 0x0000;
const GICR_TYPER: usize = 0x0008;
const GICR_WAKER: usize = 0x0014;
const TYPER_VLPIS: u64 = 1 << 1;
const TYPER_LAST: u64 = 1 << 4;
const GICR_CTLR_RWP: u32 = 1 << 3;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
// And in its second, for SGIs and PPIs.
const GICR_IGROUPR0: usize = 0x0080;
const GICR_ISENABLER0: usize = 0x0100;
const GICR_ICENABLER0: usize = 0x0180;
const GICR_ICPENDR0: usize = 0x0280;
const GICR_ICACTIVER0: usize = 0x0380;
const GICR_IPRIORITYR0: usize = 0x0400;

/// How long the controller may take to finish a write, in milliseconds.
const TIMEOUT: u64 = 1000;

/// The first page of a register frame, mapped in a fixmap slot.
struct Frame(NonNull<u64>);

impl Frame {
    fn register(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < 0x1000);
        // SAFETY: all registers in use lie in the page.
        unsafe { self.0.cast::<u8>().add(offset) }
    }

    fn read(&self, offset: usize) -> u32 {
        // SAFETY: the page is mapped as device memory while the frame is in use. The device tree
        // says that it is a GICv3's.
        unsafe { self.register(offset).cast::<u32>().read_volatile() }
    }

    fn read_wide(&self, offset: usize) -> u64 {
        // SAFETY: as for `read`.
        unsafe { self.register(offset).cast::<u64>().read_volatile() }
    }

    fn write(&self, offset: usize, value: u32) {
        // SAFETY: as for `read`.
        unsafe { self.register(offset).cast::<u32>().write_volatile(value) };
    }
}

/// The frames of the distributor and of each CPU's redistributor, by the CPU's number.
#[derive(Debug)]
pub struct Redistributors {
    distributor: Pa,
    of_cpus: ArrayVec<Option<Pa>, MAX_CPUS>,
}

/// Sets up the distributor, with the interrupts of devices off, and finds the CPUs' redistributors.
pub fn start(
    device: &Device<'_>,
    topology: &Topology,
    pa_bits: u8,
    fixmap: &mut Fixmap,
    cpu: &mut ThisCpu,
) -> Result<Redistributors, GicError> {
    let described = V3::of(device, pa_bits)?;
    if !use_system_registers() {
        return Err(GicError::SystemRegisters);
    }

    let frame = Frame(fixmap.map(cpu, slot::DISTRIBUTOR, described.distributor, Attributes::DEVICE));
    let set_up = start_distributor(&frame);
    fixmap.clear(cpu, slot::DISTRIBUTOR);
    set_up?;
    Ok(Redistributors::find(&described, topology, fixmap, cpu))
}

fn start_distributor(distributor: &Frame) -> Result<(), GicError> {
    let write = |value| {
        distributor.write(GICD_CTLR, value);
        let done = wait_until(TIMEOUT, || distributor.read(GICD_CTLR) & CTLR_RWP == 0);
        if done { Ok(()) } else { Err(GicError::Busy) }
    };
    // Affinity routing may change only while no group is on.
    let routing = distributor.read(GICD_CTLR) & CTLR_ARE;
    write(routing)?;
    write(CTLR_ARE)?;
    let lines = distributor.read(GICD_TYPER) as usize & 0x1f;
    for register in 1..=lines {
        distributor.write(GICD_ICENABLER0 + 4 * register, u32::MAX);
    }
    write(CTLR_ARE | CTLR_GROUPS)
}

impl Redistributors {
    /// Walks all regions. The last redistributor of each is marked.
    fn find(described: &V3<'_>, topology: &Topology, fixmap: &mut Fixmap, cpu: &mut ThisCpu) -> Self {
        let mut found: ArrayVec<Option<Pa>, MAX_CPUS> = topology.cpus.iter().map(|_| None).collect();
        let mut frames = 0;
        for region in described.regions() {
            let mut next = V3::first(region);
            while let Some(at) = next
                && frames < MAX_FRAMES
            {
                frames += 1;
                let frame = Frame(fixmap.map(cpu, slot::REDISTRIBUTOR, at, Attributes::DEVICE));
                let typer = frame.read_wide(GICR_TYPER);
                fixmap.clear(cpu, slot::REDISTRIBUTOR);
                let affinity = (typer >> 32) as u32;
                let owner = topology.cpus.iter().position(|cpu| cpu.affinity.packed() == affinity);
                if let Some(place) = owner.and_then(|number| found.get_mut(number)) {
                    *place = Some(at);
                }
                if typer & TYPER_LAST != 0 {
                    break;
                }
                // Virtual LPIs take two more frames.
                let own = if typer & TYPER_VLPIS != 0 { 4 * FRAME } else { 2 * FRAME };
                next = described.next(region, at, own);
            }
        }
        Self { distributor: described.distributor, of_cpus: found }
    }

    /// Stops the distributor from forwarding interrupts.
    pub fn stop_distributor(&self, fixmap: &mut Fixmap, cpu: &mut ThisCpu) {
        let frame = Frame(fixmap.map(cpu, slot::DISTRIBUTOR, self.distributor, Attributes::DEVICE));
        frame.write(GICD_CTLR, CTLR_ARE);
        // On a timeout the next kernel waits again.
        wait_until(TIMEOUT, || frame.read(GICD_CTLR) & CTLR_RWP == 0);
        fixmap.clear(cpu, slot::DISTRIBUTOR);
    }

    /// Sets up the redistributor of the CPU `number`, which is powered on. Returns whether there is
    /// one that works.
    pub fn prepare(&self, number: usize, fixmap: &mut Fixmap, cpu: &mut ThisCpu) -> bool {
        let Some(Some(at)) = self.of_cpus.get(number).copied() else { return false };
        let control = Frame(fixmap.map(cpu, slot::REDISTRIBUTOR, at, Attributes::DEVICE));
        let sgi_at = Pa(at.0 + FRAME);
        let sgis = Frame(fixmap.map(cpu, slot::REDISTRIBUTOR_SGI, sgi_at, Attributes::DEVICE));
        let works = start_redistributor(&control, &sgis);
        fixmap.clear_all(cpu, slot::REDISTRIBUTOR..slot::REDISTRIBUTOR_SGI + 1);
        works
    }
}

fn start_redistributor(control: &Frame, sgis: &Frame) -> bool {
    control.write(GICR_WAKER, control.read(GICR_WAKER) & !WAKER_PROCESSOR_SLEEP);
    let awake = wait_until(TIMEOUT, || control.read(GICR_WAKER) & WAKER_CHILDREN_ASLEEP == 0);
    sgis.write(GICR_ICENABLER0, u32::MAX);
    sgis.write(GICR_IGROUPR0, u32::MAX);
    // An earlier kernel may have left interrupts active or pending.
    sgis.write(GICR_ICPENDR0, u32::MAX);
    sgis.write(GICR_ICACTIVER0, u32::MAX);
    for register in 0..4 {
        sgis.write(GICR_IPRIORITYR0 + 4 * register, SGI_PRIORITIES);
    }
    sgis.write(GICR_ISENABLER0, Sgi::MASK);
    awake && wait_until(TIMEOUT, || control.read(GICR_CTLR) & GICR_CTLR_RWP == 0)
}

/// Writes an ICC register by its encoding, because the assembler knows the names only with the
/// GICv3 extension on.
macro_rules! write_icc {
    ($name:literal, $value:expr) => {{
        let value: u64 = u64::from($value);
        // SAFETY: the CPU interface's registers change which interrupts are taken, and all are
        // masked or expected.
        unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
    }};
}

macro_rules! read_icc {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: as for writes; reading ICC_IAR1_EL1 acknowledges an interrupt.
        unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags)) };
        value
    }};
}

fn isb() {
    // SAFETY: a barrier only orders.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// Turns the system register interface on for this exception level. Returns whether it stayed on.
/// ID_AA64PFR0_EL1.GIC says whether the registers exist.
fn use_system_registers() -> bool {
    if cpu::pfr0() >> 24 & 0xf == 0 {
        return false;
    }
    let sre = read_icc!("S3_0_C12_C12_5"); // ICC_SRE_EL1
    write_icc!("S3_0_C12_C12_5", sre | 1);
    isb();
    read_icc!("S3_0_C12_C12_5") & 1 != 0
}

/// Sets up this CPU's interface. Returns whether there is one.
pub fn start_this_cpu() -> bool {
    if !use_system_registers() {
        return false;
    }
    write_icc!("S3_0_C4_C6_0", PRIORITY_MASK); // ICC_PMR_EL1
    write_icc!("S3_0_C12_C12_3", 0u32); // ICC_BPR1_EL1
    // ICC_CTLR_EL1: EOImode 0, so that the end of an interrupt also deactivates it.
    let control = read_icc!("S3_0_C12_C12_4");
    write_icc!("S3_0_C12_C12_4", control & !0b11);
    write_icc!("S3_0_C12_C12_7", 1u32); // ICC_IGRPEN1_EL1
    isb();
    true
}

/// Lets no interrupt through to this CPU.
pub fn stop_this_cpu() {
    write_icc!("S3_0_C12_C12_7", 0u32); // ICC_IGRPEN1_EL1
    isb();
}

/// Sends an SGI by these values of ICC_SGI1R_EL1.
pub fn send(writes: impl Iterator<Item = u64>) {
    for value in writes {
        write_icc!("S3_0_C12_C11_5", value);
    }
    isb();
}

/// Reads ICC_IAR1_EL1: the interrupt's number.
pub fn acknowledge() -> u32 {
    let id = read_icc!("S3_0_C12_C12_0") as u32;
    // The acknowledgement takes effect before what the handler does (IHI 0069, 4.1.1).
    // SAFETY: a barrier only orders.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    id
}

/// Ends the interrupt that [`acknowledge`] returned.
pub fn end(acknowledged: u32) {
    write_icc!("S3_0_C12_C12_1", acknowledged); // ICC_EOIR1_EL1
    isb();
}
