//! Entering a payload that is loaded.

use core::convert::Infallible;

use linmap_platform::Psci;
use linmap_relocate::Orders;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::cpu_set::CpuSet;
use crate::arch::per_cpu;
use crate::arch::platform::Platform;
use crate::arch::wait::{PATIENCE, wait_until};
use crate::kexec::allocations::PayloadMemory;
use crate::kexec::core_file;
use crate::kexec::crash::description::{self, Checked, Description, MAX_CHECKED, Page};
use crate::kexec::departure;
use crate::kexec::digests;
use crate::kexec::error::KexecError;
use crate::kexec::loaded::Loaded;
use crate::kexec::orders::{self, orders, way_to};
use crate::memory::parking;
use crate::memory::physical::Memory;
use crate::report;
use crate::smp::cpus::Cpus;
use crate::smp::cross_call;
use crate::smp::error::{CpuError, Why};

/// Enters `loaded`, and only returns with an error. Then everything is as before, except for CPUs
/// that are off, in the pen, or lost.
///
/// # Errors
/// [`KexecError`].
pub fn exec(
    platform: &Platform,
    memory: &mut Memory,
    cpus: &Cpus,
    loaded: &mut Loaded,
    verify: bool,
) -> Result<Infallible, KexecError> {
    cpus.check_stoppable()?;
    check_pen(cpus, loaded)?;
    let mut digests = None;
    if verify {
        let started = cpu::counter();
        digests = Some(loaded.check(memory, platform.entered)?);
        report!("phase=kexec-verify when=before ticks={}", cpu::ticks_since(started));
    }
    let departure = way_to(platform, memory, loaded);
    let helpers = helpers(platform, loaded);
    let at = departure.orders;
    let orders = orders::write(memory, at, orders(platform, memory, loaded, helpers, digests, at));

    for other in per_cpu::others().iter().filter(|&other| !helpers.contains(other)) {
        cpus.stop(other)?;
    }
    report!(
        "state=kexec entry={} dtb={} el={} mmu={} cpus={}",
        loaded.entry,
        loaded.dtb(),
        platform.entered.el(),
        if loaded.transition.is_some() { "on" } else { "off" },
        helpers.len() + 1
    );
    departure::publish(departure, orders);
    if let Err(error) = send_others(memory, cpus, loaded, orders, helpers) {
        departure::call_off();
        let lost = helpers.iter().filter(|&helper| !cpus.has_left(helper)).count();
        // A CPU that timed out may still need what is loaded.
        loaded.is_in_use |= lost > 0 || matches!(error, KexecError::Cpu(_));
        return Err(error);
    }
    helpers.iter().for_each(parking::forget);
    cpus.stop_interrupts(&mut memory.fixmap);
    // SAFETY: the load made and cleaned code, lists and tables as the contract asks. TTBR0 has been
    // on the reserved table, with nothing cached, since the linear map was built. The boot CPU
    // always masks interrupts. All other CPUs are off, in the pen, with the firmware, or have left
    // the live tables.
    unsafe { departure.go(&mut ThisCpu, 0) }
}

/// Describes `loaded`, a crash kernel, so that it is entered when this kernel ends.
///
/// # Errors
/// [`KexecError::Memory`], [`KexecError::NoDigests`].
pub fn publish_crash_kernel(
    platform: &Platform,
    memory: &mut PayloadMemory<'_>,
    loaded: &Loaded,
) -> Result<(), KexecError> {
    let page_len = size_of::<Page>() as u64;
    let at = memory.alloc(page_len, page_len)?;
    let memory = &*memory.memory;
    let departure = way_to(platform, memory, loaded);
    let orders = orders(platform, memory, loaded, CpuSet::EMPTY, None, departure.orders);
    let _ = orders::write(memory, departure.orders, orders);
    let taken = loaded.digests.as_ref().ok_or(KexecError::NoDigests)?;
    let segments = loaded.segments.iter().zip(&taken.segments);
    let parts = segments.map(|(segment, &digest)| (segment.name, segment.destination, digest));
    let control = ("relocation code", loaded.control, digests::pages(memory, loaded.control));
    let checked = parts.chain([control]).map(|(what, range, digest)| Checked { what, range, digest });
    let description = Description {
        departure,
        checked: checked.take(MAX_CHECKED).collect(),
        notes: loaded.notes,
        info: core_file::info(memory, platform.image),
        offset: memory.layout.offset(),
        entry: loaded.entry,
        dtb: loaded.dtb(),
        el: platform.entered.el(),
    };
    // SAFETY: the page was allocated for this, is mapped there, and nothing else refers to it as
    // long as the payload is loaded.
    let page: &'static Page = unsafe {
        let place = memory.layout.linear(at).0 as *mut Page;
        place.write_bytes(0, 1);
        (&raw mut (*place).description).write(description);
        &*place
    };
    description::publish(page);
    let Description { entry, dtb, notes, .. } = &page.description;
    report!("crash-kernel=loaded entry={entry} dtb={dtb} notes={} description={at}", notes.start);
    Ok(())
}

/// Checks that the payload finds all CPUs in the pen that have left the firmware.
fn check_pen(cpus: &Cpus, loaded: &Loaded) -> Result<(), KexecError> {
    let penned = cpus.have_left_firmware();
    match penned.iter().find(|&number| !loaded.penned.contains(number)) {
        Some(number) => Err(CpuError { number, why: Why::NotInPen }.into()),
        None => Ok(()),
    }
}

/// The other CPUs that take part in the move.
fn helpers(platform: &Platform, loaded: &Loaded) -> CpuSet {
    let mut helpers = CpuSet::EMPTY;
    // The boot CPU asks PSCI whether they have left, which version 0.1 can't say.
    if loaded.transition.is_some() && platform.psci.is_none_or(Psci::is_standard) {
        let lists = loaded.moves.lists.len();
        per_cpu::others().iter().take(lists.saturating_sub(1)).for_each(|other| helpers.insert(other));
    }
    helpers
}

/// Sends the `helpers` to the relocation code, where they wait for the boot CPU. Sends the other
/// CPUs from spin tables to the pen; the helpers among them follow when they are done.
fn send_others(
    memory: &Memory,
    cpus: &Cpus,
    loaded: &Loaded,
    orders: &Orders,
    helpers: CpuSet,
) -> Result<(), KexecError> {
    for (list, helper) in (1..).zip(helpers.iter()) {
        cross_call::start_work(helper, departure::follow, list)?;
    }
    let is_here = |list: usize| orders.has_arrived(list);
    if !wait_until(PATIENCE, || (1..=helpers.len()).all(is_here)) {
        let missing = (1..).zip(helpers.iter()).find(|&(list, _)| !is_here(list));
        return Err(KexecError::DidNotLeave { cpu: missing.map_or(0, |(_, helper)| helper) });
    }
    match loaded.pen {
        Some(pen) => Ok(cpus.send_to_pen(&memory.layout, pen)?),
        None => Ok(()),
    }
}
