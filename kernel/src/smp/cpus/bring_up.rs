//! Starting one of the other CPUs and switching it off, as the boot CPU does it. What the other does meanwhile is
//! [`secondary`](crate::smp::secondary).

use core::ptr;
use core::sync::atomic::Ordering;

use linmap::features::{Features, Lacks, Overclaimed, System};
use linmap_platform::{CommandLine, CpuNode as Described, EnableMethod as Method};
use linmap_vmsa::id::{Isar0, Midr, Mmfr0, Mmfr2};
use linmap_vmsa::{Attributes, Pa, PaRange, Va};
use smccc::psci::AffinityState;
use thiserror::Error;

use super::bbm_override;
use crate::arch::cpu::{self, ThisCpu};
use crate::arch::percpu::{self, CpuSet, State, wait_until};
use crate::gic::controller::GicError;
use crate::memory::layout::slot;
use crate::memory::machine::Machine;
use crate::smp::cross_call::{self, PATIENCE, Sgi};
use crate::smp::parking;
use crate::smp::pen::Pen;
use crate::smp::secondary::{self, Unfit};
use crate::smp::stacks::StackError;

/// What one of the other CPUs could not do, or be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("CPU {number}: {why}")]
pub struct CpuError {
    /// Its number.
    pub number: usize,
    /// Why.
    pub why: Why,
}

/// See [`CpuError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Why {
    /// It is not in the device tree.
    #[error("there is no such CPU")]
    Nobody,
    /// It is the one that asks.
    #[error("it is the boot CPU")]
    BootCpu,
    /// It is online.
    #[error("it is online already")]
    Online,
    /// It runs something else.
    #[error("the firmware says that it is on, and we never started it: whatever it runs may be overwritten")]
    NotOurs,
    /// It is not online.
    #[error("it is not online")]
    NotOnline,
    /// It has work.
    #[error("it has not finished its work")]
    Busy,
    /// It was given up once.
    #[error("it was given up, and may still come")]
    Lost,
    /// Nobody knows how to start it.
    #[error(
        "the device tree names no way to start it: enable-method is neither psci nor spin-table, or its mailbox can't be used"
    )]
    NoMethod,
    /// It is started by a PSCI that can't be called.
    #[error(
        "it is started by PSCI, and /psci names none of version 0.2 or later that can be called from here"
    )]
    NoPsci,
    /// The firmware does not start it.
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
    /// The GICv3 has nothing for it.
    #[error("the GIC has no redistributor for it that works")]
    NoRedistributor,
    /// It can't use the interrupt controller.
    #[error("it has no CPU interface of the GIC that works")]
    NoCpuInterface,
    /// There are no stacks for it.
    #[error("{0}")]
    NoStacks(StackError),
    /// It did not come.
    #[error("it did not come within {PATIENCE} ms")]
    DidNotCome,
    /// It went off by itself.
    #[error("{0}")]
    Unfit(Unfit),
    /// It lacks what is in use.
    #[error("{0}")]
    Lacks(Lacks),
    /// The user claims too much of it.
    #[error("{0}")]
    Overclaimed(Overclaimed),
    /// It does not go.
    #[error("it did not go within {PATIENCE} ms")]
    DidNotGo,
    /// It has left the firmware's spin table, perhaps.
    #[error(
        "the mailbox that it watches was written, and it does not wait where that led it: what is moved there would be under its feet (linmap.cpus=1 leaves it with the firmware)"
    )]
    Astray,
    /// The payload's device tree does not have it in the pen.
    #[error(
        "it left the firmware's spin table after the payload was loaded: `kexec unload`, and load it again"
    )]
    NotInPen,
    /// It does not reach the pen.
    #[error("it did not say within {PATIENCE} ms that it is in the pen")]
    NotPenned,
}

/// Starts the CPU `number` now that the system is in use: it has to have all that the system relies on.
///
/// # Errors
/// [`CpuError`]; the CPU is off again, or lost.
pub fn start_late(machine: &mut Machine<'_>, number: usize) -> Result<(), CpuError> {
    start(machine, number, |system, cpu| system.admits(cpu).map(|()| *system))
}

/// Starts the CPU `number` while the kernel boots: what it lacks, the system lacks from now on.
///
/// # Errors
/// [`CpuError`]; the CPU is off again, or lost.
pub fn start_early(machine: &mut Machine<'_>, number: usize) -> Result<(), CpuError> {
    start(machine, number, |system, cpu| {
        let mut system = *system;
        system.take_in(cpu)?;
        Ok(system)
    })
}

/// Starts the CPU `number`; `admit` says what the system is with it.
fn start(
    machine: &mut Machine<'_>,
    number: usize,
    admit: fn(&System, &Features) -> Result<System, Lacks>,
) -> Result<(), CpuError> {
    let fail = |why| CpuError { number, why };
    let described = described(machine, number)?;
    if number == 0 {
        return Err(fail(Why::BootCpu));
    }
    let percpu = percpu::of(number);
    match percpu.state() {
        State::Off | State::Uncalled => {}
        State::Online => return Err(fail(Why::Online)),
        _ => return Err(fail(Why::Lost)),
    }
    if let Err(error) = machine.cpus.gic {
        return Err(fail(Why::NoInterrupts(error)));
    }
    if let Err((first, error)) = machine.cpus.stacks
        && number >= first
    {
        return Err(fail(Why::NoStacks(error)));
    }

    let before = percpu.state();
    let conduit = secondary::way_off(described.method, machine.psci);
    parking::expect(number);
    percpu.conduit.store(conduit, Ordering::Release);
    percpu.set_state(State::Starting);
    secondary::call(described.affinity, conduit);
    if let Err(why) = send_here(machine, described) {
        secondary::call_nobody();
        percpu.set_state(before);
        return Err(fail(why));
    }
    let mut unfit = None;
    let came = wait_until(PATIENCE, || {
        unfit = secondary::unfit(described.affinity);
        unfit.is_some() || percpu.state() == State::Arrived
    });
    secondary::call_nobody();
    if let Some(unfit) = unfit {
        // Its MMU was never on.
        parking::forget(number);
        give_up(machine, number);
        return Err(fail(Why::Unfit(unfit)));
    }
    // It may come between the last look and now.
    if !came && percpu.change_state(State::Starting, State::Lost) {
        if !secondary::is_coming(described.affinity) {
            parking::forget(number);
        }
        return Err(fail(Why::DidNotCome));
    }

    let admitted = judge(machine, number, admit);
    let (features, system) = match admitted {
        Ok(admitted) => admitted,
        Err(why) => {
            percpu.set_state(State::Refused);
            give_up(machine, number);
            return Err(fail(why));
        }
    };
    percpu.set_state(State::Admitted);
    wait_until(PATIENCE, || percpu.state() != State::Admitted);
    // It may decide between the last look and now.
    if percpu.change_state(State::Admitted, State::Lost) {
        return Err(fail(Why::DidNotCome));
    }
    if percpu.state() == State::Online {
        machine.cpus.features[number] = Some(features);
        machine.cpus.system = system;
        return Ok(());
    }
    give_up(machine, number);
    Err(fail(Why::NoCpuInterface))
}

/// Has the firmware, or the loop that it left the CPU in, send the CPU here.
fn send_here(machine: &mut Machine<'_>, described: Described) -> Result<(), Why> {
    let entry = secondary::entry(machine.image.range().start);
    match described.method {
        Method::Psci => {
            let psci = machine.psci.ok_or(Why::NoPsci)?;
            psci.cpu_on(described.affinity, entry).map_err(Why::Firmware)
        }
        Method::SpinTable { release } => {
            write_mailbox(machine, release, entry)?;
            for (number, other) in machine.cpus.list.iter().enumerate() {
                if other.method == described.method {
                    percpu::of(number).change_state(State::Off, State::Uncalled);
                }
            }
            Ok(())
        }
        Method::Unknown => Err(Why::NoMethod),
    }
}

/// Stores `entry` in the mailbox at `release`, to memory, where a CPU that waits without caches sees it.
fn write_mailbox(machine: &mut Machine<'_>, release: Pa, entry: Pa) -> Result<(), Why> {
    let pa_bits = machine.features.pa_bits();
    if release.0 >> pa_bits != 0 {
        return Err(Why::MailboxOutOfReach { release, pa_bits });
    }
    let word = PaRange::new(release, Pa(release.0 + 8));
    let in_linear_map = machine.mapped().any(|range| range.covers(word));
    let va = if in_linear_map {
        machine.layout.linear(release)
    } else {
        const PAGE: u64 = 0x1000;
        let frame = Pa(release.0 & !(PAGE - 1));
        let _ = machine.fixmap.map(&mut ThisCpu, slot::MOMENT, frame, Attributes::KERNEL_DATA);
        let mapped = machine.fixmap.address(slot::MOMENT);
        Va(mapped.0 + (release.0 & (PAGE - 1)))
    };
    let pointer = ptr::with_exposed_provenance_mut::<u64>(va.0 as usize);
    // SAFETY: the word is mapped there, writable and aligned; the topology has checked that it is not memory which anyone
    // may have been given, so no Rust reference leads to it.
    unsafe { pointer.write_volatile(entry.0.to_le()) };
    cpu::clean_and_invalidate(va, 8);
    cpu::send_event();
    if !in_linear_map {
        machine.fixmap.clear(&mut ThisCpu, slot::MOMENT);
    }
    Ok(())
}

/// What a CPU that has arrived can do, and what the system is with it.
fn judge(
    machine: &mut Machine<'_>,
    number: usize,
    admit: fn(&System, &Features) -> Result<System, Lacks>,
) -> Result<(Features, System), Why> {
    let [midr, mmfr0, mmfr2, isar0] =
        percpu::of(number).id.each_ref().map(|word| word.load(Ordering::Relaxed));
    let features = Features::new(Midr(midr), Mmfr0(mmfr0), Mmfr2(mmfr2), Isar0(isar0));
    // The words were all read before the linear map was built.
    let wanted = bbm_override(CommandLine(machine.command_line), number).ok().flatten();
    let features = match wanted {
        Some(wanted) => features.with_bbm(wanted).map_err(Why::Overclaimed)?,
        None => features,
    };
    let system = admit(&machine.cpus.system, &features).map_err(Why::Lacks)?;
    match &machine.cpus.gic {
        Ok(gic) if gic.prepare(number, machine.fixmap, &mut ThisCpu) => Ok((features, system)),
        Ok(_) => Err(Why::NoRedistributor),
        Err(error) => Err(Why::NoInterrupts(*error)),
    }
}

/// Waits until a CPU that was told to go, or went by itself, is off, or waits to be called if it came from a spin table;
/// says whether it does. If not it is lost.
fn give_up(machine: &Machine<'_>, number: usize) -> bool {
    let Described { affinity, method } = machine.cpus.list[number];
    let gone = match (method, machine.psci) {
        (Method::Psci, Some(psci)) => {
            wait_until(PATIENCE, || psci.affinity_info(affinity) == Ok(AffinityState::Off))
                .then_some(State::Off)
        }
        (Method::SpinTable { .. }, _) => secondary::is_waiting(affinity).then_some(State::Uncalled),
        _ => None,
    };
    percpu::of(number).set_state(gone.unwrap_or(State::Lost));
    gone.is_some()
}

/// The CPU `number`, which was told to leave its work, goes off; says whether it is known to.
pub fn left(machine: &Machine<'_>, number: usize) -> bool {
    let gone = give_up(machine, number);
    if gone {
        percpu::of(number).working.store(0, Ordering::Release);
        parking::forget(number);
    }
    gone
}

/// Turns the interrupt controller off, for a hand-over.
pub fn stop_interrupts(machine: &mut Machine<'_>) {
    if let Ok(gic) = &machine.cpus.gic {
        gic.stop(machine.fixmap, &mut ThisCpu);
    }
}

/// Switches the CPU `number` off; one from a spin table waits to be called again.
///
/// # Errors
/// [`CpuError`].
pub fn stop(machine: &Machine<'_>, number: usize) -> Result<(), CpuError> {
    let fail = |why| CpuError { number, why };
    described(machine, number)?;
    if number == 0 {
        return Err(fail(Why::BootCpu));
    }
    if percpu::of(number).state() != State::Online {
        return Err(fail(Why::NotOnline));
    }
    if !cross_call::finished(number) {
        return Err(fail(Why::Busy));
    }
    cross_call::interrupt(Sgi::Off, CpuSet::one(number));
    wait_until(PATIENCE, || percpu::of(number).state() == State::Leaving);
    if give_up(machine, number) { Ok(()) } else { Err(fail(Why::DidNotGo)) }
}

/// Whether all other CPUs could be switched off now, or sent to a pen, for a hand-over. Those that the firmware never let go
/// stay with it.
///
/// A CPU from a spin table of which nobody knew whether it waits to be called is asked.
///
/// # Errors
/// [`CpuError`]: the first that could not, or that is nobody knows where.
pub fn can_stop_all(machine: &Machine<'_>) -> Result<(), CpuError> {
    for (number, described) in machine.cpus.list.iter().enumerate().skip(1) {
        let percpu = percpu::of(number);
        let said = || machine.psci.map(|psci| psci.affinity_info(described.affinity));
        let is_on = || said() == Some(Ok(AffinityState::On));
        let is_off = || said() == Some(Ok(AffinityState::Off));
        let why = match (percpu.state(), described.method) {
            // As a kernel leaves it that crashed and could not stop it.
            (State::Off, Method::Psci) if is_on() => Why::NotOurs,
            (State::Off, _) => continue,
            (State::Online, _) if cross_call::finished(number) => continue,
            (State::Online, _) => Why::Busy,
            // One that was given up may go off long after that.
            (State::Lost | State::Leaving, Method::Psci) if is_off() => {
                percpu.working.store(0, Ordering::Release);
                parking::forget(number);
                percpu.set_state(State::Off);
                continue;
            }
            // One that was given up may say that it goes long after that.
            (State::Uncalled | State::Lost | State::Leaving, Method::SpinTable { .. }) => {
                if secondary::is_waiting(described.affinity) {
                    percpu.working.store(0, Ordering::Release);
                    parking::forget(number);
                    percpu.set_state(State::Uncalled);
                    continue;
                }
                Why::Astray
            }
            _ => Why::Lost,
        };
        return Err(CpuError { number, why });
    }
    Ok(())
}

/// The CPUs from spin tables that are not with the firmware any more: those that a payload has to find in a pen.
pub fn have_left_firmware(machine: &Machine<'_>) -> CpuSet {
    let from_spin_table = |described: &Described| matches!(described.method, Method::SpinTable { .. });
    let list = machine.cpus.list.iter().enumerate().skip(1);
    list.filter(|(number, described)| from_spin_table(described) && percpu::of(*number).state() != State::Off)
        .map(|(number, _)| number)
        .collect()
}

/// Sends all CPUs that wait to be called to `pen`, and waits for each until it is there.
///
/// # Errors
/// [`CpuError`]: one does not say that it is there. It is lost, and so are those that are there already.
pub fn send_to_pen(machine: &Machine<'_>, pen: Pen) -> Result<(), CpuError> {
    for number in have_left_firmware(machine).iter() {
        let percpu = percpu::of(number);
        if percpu.state() != State::Uncalled {
            continue;
        }
        let affinity = machine.cpus.list[number].affinity;
        secondary::send_to_pen(affinity, pen.entry(), pen.mark(number));
        let there = wait_until(PATIENCE, || pen.has(&machine.layout, number));
        secondary::call_nobody();
        percpu.set_state(State::Lost);
        if !there {
            return Err(CpuError { number, why: Why::NotPenned });
        }
    }
    Ok(())
}

fn described(machine: &Machine<'_>, number: usize) -> Result<Described, CpuError> {
    let found = machine.cpus.list.get(number).copied();
    found.ok_or(CpuError { number, why: Why::Nobody })
}
