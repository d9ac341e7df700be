//! The CPUs: how they start, how they are interrupted to park, and what they do with exceptions.

use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use aarch64_rt::{ExceptionHandlers, RegisterStateRef, Stack, SuspendContext, warm_boot_entry};
use arm_gic::gicv3::{GicCpuInterface, GicV3, SgiTarget, SgiTargetGroup};
use arm_gic::{IntId, InterruptGroup, UniqueMmioPointer};
use linmap::features::System;
use linmap_park::{Cpus, IdentitySwitch, Rendezvous};
use smccc::{Hvc, psci};

use crate::failure::Failure;
use crate::layout::{CPUS, GICD, GICR, OFFSET};
use crate::load;
use crate::machine::{features, listen, register, this_cpu, wait};

/// The interrupt that asks a CPU to park.
const PARK: IntId = IntId::sgi(0);

/// Where all CPUs meet.
pub static PARKING: Rendezvous<IdentitySwitch, CPUS> = Rendezvous::new(IdentitySwitch::new());

/// The last CPU that has started.
static STARTED: AtomicUsize = AtomicUsize::new(0);

static mut STACKS: [Stack<4>; CPUS - 1] = [const { Stack::new() }; CPUS - 1];

/// What a CPU is told when it starts.
struct Start<'s> {
    cpu: usize,
    system: &'s System,
}

/// Starts all other CPUs, which must have what `system` has, under load. Returns when they run.
pub fn start(system: &System) -> Result<(), Failure> {
    let [distributor, redistributors] = [GICD, GICR].map(|va| va.0 as usize);
    let registers = NonNull::new(distributor as *mut _).expect("not 0");
    let frames = NonNull::new(redistributors as *mut _).expect("not 0");
    // SAFETY: the GIC's registers, mapped as a device and used here alone.
    let mut gic = unsafe { GicV3::new(UniqueMmioPointer::new(registers), frames, CPUS)? };
    gic.setup(0);
    for cpu in 1..CPUS {
        gic.redistributor_mark_core_awake(cpu)?;
        gic.enable_interrupt(PARK, Some(cpu), true)?;
        // SAFETY: a stack of its own for each CPU.
        let stack_ptr = unsafe { (&raw mut STACKS[cpu - 1]).add(1) }.cast();
        let start = Start { cpu, system };
        let context = SuspendContext { stack_ptr, entry: run, arg: &raw const start as u64 };
        let entry = warm_boot_entry as *const () as u64 - OFFSET;
        // SAFETY: orders the context before the CPU that reads it.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
        psci::cpu_on::<Hvc>(cpu as u64, entry, &raw const context as u64)?;
        // What the CPU reads stays until it has started.
        while STARTED.load(Ordering::Acquire) != cpu {}
    }
    Ok(())
}

/// Where the other CPUs begin.
extern "C" fn run(start: u64) -> ! {
    // SAFETY: `start` waits for this CPU with the value on its stack.
    let &Start { cpu, system } = unsafe { &*(start as *const Start<'_>) };
    system.admits(&features()).expect("the features of CPU 0");
    GicCpuInterface::enable_system_register_el1();
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
    STARTED.store(cpu, Ordering::Release);
    listen(true);
    load::run(cpu)
}

/// The other CPUs, as CPU 0 sees them.
pub struct OtherCpus;

impl Cpus for OtherCpus {
    fn others(&self) -> impl Iterator<Item = usize> + Clone {
        1..CPUS
    }

    fn in_transit(&self) -> impl Iterator<Item = usize> {
        0..0
    }

    fn interrupt(&self, _: impl Iterator<Item = usize>) {
        // SAFETY: orders the request before the interrupt.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
        let sent = GicCpuInterface::send_sgi(PARK, SgiTarget::All, SgiTargetGroup::CurrentGroup1);
        sent.expect("an SGI");
    }

    fn wait_until(&self, parked: impl FnMut() -> bool) -> bool {
        wait(parked)
    }

    fn ticks(&self) -> u64 {
        register!("cntvct_el0")
    }
}

/// What CPUs do with exceptions.
pub struct Exceptions;

impl ExceptionHandlers for Exceptions {
    extern "C" fn irq_current(_: RegisterStateRef<'_>) {
        GicCpuInterface::handle_interrupt(InterruptGroup::Group1, |_| {
            // SAFETY: interrupts are masked, TTBR0 translates nothing, and this is the CPU.
            unsafe { PARKING.answer(this_cpu()) };
        });
    }

    extern "C" fn sync_current(mut state: RegisterStateRef<'_>) {
        let (syndrome, address) = (register!("esr_el1"), register!("far_el1"));
        if !load::is_expected(syndrome, address) {
            panic!("an exception at {:#x}: ESR {syndrome:#x}, FAR {address:#x}", state.elr);
        }
        // SAFETY: the store that was refused is passed over.
        unsafe { state.get_mut().elr += 4 };
    }
}
