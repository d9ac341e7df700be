//! Entering a payload that is loaded.

use core::convert::Infallible;

use linmap_kexec::MAX_SHARES;
use linmap_platform::Conduit;
use linmap_relocate::{BLOCK, Check, Departure, EMPTY_LIST, Orders, PsciConduit, Way};
use linmap_vmsa::Pa;
use linmap_vmsa::registers::{tcr_with_t0sz, ttbr};

use super::command::KexecError;
use super::core_file;
use super::loaded::{self, Loaded, Source};
use super::taken::Pool;
use crate::arch::cpu::{self, ThisCpu};
use crate::arch::percpu;
use crate::arch::percpu::{CpuSet, wait_until};
use crate::arch::psci::Psci;
use crate::boot::entry::{Entered, HVC_RESTART, HVC_SET_VECTORS, SCTLR_OFF};
use crate::kexec::crash::{self, Checked, Waiting};
use crate::kexec::departure;
use crate::memory::layout::{GEOMETRY, IMAGE};
use crate::memory::machine::Machine;
use crate::report;
use crate::smp::cpus;
use crate::smp::cpus::{CpuError, Why};
use crate::smp::cross_call::{self, PATIENCE};
use crate::smp::secondary;

/// Enters `loaded`; returns only with an error, and then everything is as before, but for CPUs
/// that are off, in the pen, or lost.
///
/// # Errors
/// [`KexecError`].
pub fn exec(machine: &mut Machine<'_>, loaded: &mut Loaded, verify: bool) -> Result<Infallible, KexecError> {
    cpus::can_stop_all(machine)?;
    let penned = cpus::have_left_firmware(machine);
    if let Some(number) = penned.iter().find(|&number| !contains(loaded.penned, number)) {
        return Err(CpuError { number, why: Why::NotInPen }.into());
    }
    if verify {
        let started = cpu::counter();
        loaded.check(machine)?;
        report!("phase=kexec-verify when=before ticks={}", cpu::ticks_since(started));
    }
    let departure = departure(machine, loaded);
    let with = helpers(loaded);
    let orders = write(machine, departure.orders, orders(machine, loaded, with, verify, departure.orders));

    for other in percpu::others().iter().filter(|&other| !contains(with, other)) {
        cpus::stop(machine, other)?;
    }
    report!(
        "state=kexec entry={} dtb={} el={} mmu={} cpus={}",
        loaded.entry,
        loaded.dtb(),
        machine.entered.el(),
        if loaded.transition.is_some() { "on" } else { "off" },
        with.len() + 1
    );
    departure::publish(departure, orders);
    // A CPU that does not answer in time may do so later, and needs what is loaded then.
    if let Err(error) = take_along(orders, with).and_then(|()| to_pen(machine, loaded)) {
        departure::call_off();
        let astray = with.iter().filter(|&other| !cpus::left(machine, other)).count();
        loaded.is_in_use |= astray > 0 || matches!(error, KexecError::Cpu(_));
        return Err(error);
    }
    with.iter().for_each(crate::smp::parking::forget);
    cpus::stop_interrupts(machine);
    // SAFETY: the load made and cleaned code, lists and tables as the contract asks; TTBR0 has been
    // on the reserved table, with nothing cached, since the linear map was built; the boot CPU's
    // interrupts are always masked. All other CPUs are off, in the pen, with the firmware, or have
    // left the live tables.
    unsafe { departure.go(&mut ThisCpu, 0) }
}

/// Has `loaded` entered when this kernel meets its end.
///
/// # Errors
/// [`KexecError::Memory`].
pub fn wait_for_crash(machine: &mut Machine<'_>, loaded: &Loaded) -> Result<(), KexecError> {
    let page_len = size_of::<crash::Page>() as u64;
    let at = Pool::CrashKernel.alloc(machine, page_len, page_len)?;
    let departure = departure(machine, loaded);
    let _ = write(machine, departure.orders, orders(machine, loaded, CpuSet::EMPTY, false, departure.orders));
    let parts = loaded.segments.iter().map(|segment| (segment.name, segment.destination, segment.digest));
    let control = ("relocation code", loaded.control, loaded::digest(machine, loaded.control));
    let checked = parts.chain([control]).map(|(what, range, digest)| Checked { what, range, digest });
    let waiting = Waiting {
        departure,
        checked: checked.take(crash::MAX_CHECKED).collect(),
        notes: loaded.notes,
        info: core_file::info(machine),
        offset: machine.layout.offset(),
        entry: loaded.entry,
        dtb: loaded.dtb(),
        el: machine.entered.el(),
    };
    // SAFETY: the page was taken for this, is mapped there, and nothing else refers to it as long
    // as it is loaded.
    let page: &'static crash::Page = unsafe {
        let place = machine.layout.linear(at).0 as *mut crash::Page;
        place.write_bytes(0, 1);
        (&raw mut (*place).waiting).write(waiting);
        &*place
    };
    crash::publish(page);
    let Waiting { entry, dtb, notes, .. } = &page.waiting;
    report!("crash-kernel=loaded entry={entry} dtb={dtb} notes={} description={at}", notes.start);
    Ok(())
}

/// How `loaded` is reached.
fn departure(machine: &Machine<'_>, loaded: &Loaded) -> Departure {
    let code = loaded.control.start;
    let way = match &loaded.transition {
        Some(both) => {
            let shape = both.code.geometry();
            Way::Mapped {
                ttbr0: ttbr(shape, both.code.root(), 0),
                tcr: tcr_with_t0sz(machine.reserved.tcr, shape),
                offset: machine.layout.offset(),
            }
        }
        None => Way::Unmapped {
            identity: ttbr(GEOMETRY, machine.image.identity_map(), 0),
            image_offset: IMAGE.0.wrapping_sub(machine.image.range().start.0),
            sctlr_off: SCTLR_OFF,
        },
    };
    let orders = Pa(code.0 + size_of::<Orders>() as u64);
    Departure { code, orders, way, reserved: machine.reserved }
}

/// Writes `orders` to their frame.
fn write(machine: &Machine<'_>, at: Pa, orders: Orders) -> &'static Orders {
    let va = machine.layout.linear(at);
    // SAFETY: the frame was taken for the orders, is aligned and mapped there, and nothing else
    // refers to it.
    let orders: &Orders = unsafe {
        let place = va.0 as *mut Orders;
        place.write(orders);
        &*place
    };
    cpu::clean_and_invalidate(va, size_of::<Orders>() as u64);
    orders
}

/// The other CPUs that take part in the move.
fn helpers(loaded: &Loaded) -> CpuSet {
    let mut with = CpuSet::EMPTY;
    if loaded.transition.is_some() {
        let lists = loaded.moves.lists.len();
        percpu::others().iter().take(lists.saturating_sub(1)).for_each(|other| with.insert(other));
    }
    with
}

fn contains(set: CpuSet, number: usize) -> bool {
    set.iter().any(|member| member == number)
}

fn orders(machine: &Machine<'_>, loaded: &Loaded, with: CpuSet, verify: bool, at: Pa) -> Orders {
    let dtb = loaded.dtb();
    let mut orders = Orders::new(loaded.entry, dtb, SCTLR_OFF);
    orders.nothing = machine.reserved.ttbr0;
    if let Some(both) = &loaded.transition {
        orders.ttbr1 = ttbr(machine.geometry(), both.linear.root(), 0);
    }
    if machine.entered == Entered::El2Stub {
        orders.restart = HVC_RESTART;
        orders.set_vectors = HVC_SET_VECTORS;
        orders.vectors = Pa(loaded.control.start.0 + 2 * size_of::<Orders>() as u64);
    }
    orders.conduit = match machine.psci {
        None => PsciConduit::None,
        Some(Psci(Conduit::Hvc)) => PsciConduit::Hvc,
        Some(Psci(Conduit::Smc)) => PsciConduit::Smc,
    };
    orders.uart = machine.uart.unwrap_or(Pa(0));
    orders.others = with.len() as u64;
    // Without anything to move there is one list, which is empty: zeros.
    orders.list_count = loaded.moves.lists.len().max(1) as u64;
    orders.lists = [Pa(at.0 + EMPTY_LIST as u64); MAX_SHARES];
    for (first, list) in orders.lists.iter_mut().zip(&loaded.moves.lists) {
        *first = list.first;
    }
    for (list, other) in (1..).zip(with.iter()) {
        orders.affinities[list] = secondary::affinity_of(other).bits();
    }
    if let Some(pen) = loaded.pen {
        orders.pen = pen.entry();
        orders.back = secondary::entry(machine.image.range().start);
        for (list, other) in (1..).zip(with.iter()).filter(|&(_, other)| contains(loaded.penned, other)) {
            orders.marks[list] = pen.mark(other);
        }
    }
    // What lies in place was checked just now, and nothing is moved there.
    let moved = loaded.segments.iter().filter(|segment| segment.source != Source::InPlace);
    if verify && !loaded.moves.lists.is_empty() {
        for (check, segment) in orders.check.iter_mut().zip(moved) {
            const { assert!(4096 % BLOCK == 0, "pages are whole blocks") };
            *check = Check::new(segment.destination.start, segment.destination.len(), segment.digest);
            orders.checks += 1;
        }
    }
    orders
}

/// Has the CPUs `with` leave the live tables for the relocation code, where they wait for the boot
/// CPU.
fn take_along(orders: &Orders, with: CpuSet) -> Result<(), KexecError> {
    for (list, other) in (1..).zip(with.iter()) {
        cross_call::start_work(other, departure::follow, list)?;
    }
    let here = |list: usize| orders.has_arrived(list);
    if wait_until(PATIENCE, || (1..=with.len()).all(here)) {
        return Ok(());
    }
    let missing = (1..).zip(with.iter()).find(|&(list, _)| !here(list)).map_or(0, |(_, other)| other);
    Err(KexecError::DidNotCome { cpu: missing })
}

/// Sends the CPUs from spin tables that do not take part in the move to the pen; the others follow
/// when they are done.
fn to_pen(machine: &Machine<'_>, loaded: &Loaded) -> Result<(), KexecError> {
    let Some(pen) = loaded.pen else { return Ok(()) };
    Ok(cpus::send_to_pen(machine, pen)?)
}
