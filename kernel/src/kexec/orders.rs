//! The orders of the relocation code for a payload, and the way to that code.

use linmap_kexec::{MAX_SHARES, SEGMENT_ALIGN};
use linmap_platform::Conduit;
use linmap_relocate::{BLOCK, Check, Departure, EMPTY_LIST, LEAVE_VHE, Orders, PsciConduit, Way};
use linmap_vmsa::Pa;
use linmap_vmsa::registers::{RegisterError, tcr_with_t0sz, ttbr};

use crate::arch::affinities;
use crate::arch::cpu;
use crate::arch::cpu_set::CpuSet;
use crate::arch::el2_stub::{HVC_RESTART, HVC_SET_VECTORS};
use crate::arch::entered::Entered;
use crate::arch::platform::Platform;
use crate::arch::sctlr::SCTLR_OFF;
use crate::kexec::digests::LoadDigests;
use crate::kexec::loaded::Loaded;
use crate::kexec::segment::Staged;
use crate::memory::physical::Memory;
use crate::smp::secondary;

/// The way to the relocation code of `loaded`.
///
/// # Errors
/// [`RegisterError`]: the transitional tables do not fit TCR.
pub fn way_to(platform: &Platform, memory: &Memory, loaded: &Loaded) -> Result<Departure, RegisterError> {
    let code = loaded.control.start;
    let way = match &loaded.transition {
        Some(both) => {
            let geometry = both.code.geometry();
            Way::Mapped {
                ttbr0: ttbr(geometry, both.code.root(), 0)?,
                tcr: tcr_with_t0sz(platform.reserved.tcr, geometry)?,
                offset: memory.layout.offset(),
            }
        }
        None => Way::Unmapped {
            identity: platform.image.ttbr(platform.image.identity_map()),
            image_offset: platform.image.offset(),
            sctlr_off: SCTLR_OFF,
        },
    };
    let orders = Pa(code.0 + size_of::<Orders>() as u64);
    Ok(Departure { code, orders, way, reserved: platform.reserved })
}

/// The orders at `at` that move and enter `loaded`, with the CPUs of `helpers`. With `digests`
/// they check what was moved.
///
/// # Errors
/// [`RegisterError`]: the transitional tables' root can't be in TTBR1.
pub fn orders(
    platform: &Platform,
    memory: &Memory,
    loaded: &Loaded,
    helpers: CpuSet,
    digests: Option<&LoadDigests>,
    at: Pa,
) -> Result<Orders, RegisterError> {
    let mut orders = Orders::new(loaded.entry, loaded.dtb(), SCTLR_OFF);
    orders.nothing = platform.reserved.ttbr0;
    if let Some(both) = &loaded.transition {
        orders.ttbr1 = ttbr(memory.geometry(), both.linear.root(), 0)?;
    }
    match platform.entered {
        Entered::El1 => {}
        Entered::El2Vhe => orders.restart = LEAVE_VHE,
        Entered::El2Stub => {
            orders.restart = HVC_RESTART;
            orders.set_vectors = HVC_SET_VECTORS;
            orders.vectors = Pa(loaded.control.start.0 + 2 * size_of::<Orders>() as u64);
        }
    }
    // The relocation code calls functions by their standard numbers.
    orders.conduit = match platform.psci.filter(|psci| psci.is_standard()).map(|psci| psci.conduit) {
        None => PsciConduit::None,
        Some(Conduit::Hvc) => PsciConduit::Hvc,
        Some(Conduit::Smc) => PsciConduit::Smc,
    };
    orders.uart = platform.uart.unwrap_or(Pa(0));
    orders.others = helpers.len() as u64;
    // If nothing is moved, there is one empty list: zeros.
    orders.list_count = loaded.moves.lists.len().max(1) as u64;
    orders.lists = [Pa(at.0 + EMPTY_LIST as u64); MAX_SHARES];
    for (first, list) in orders.lists.iter_mut().zip(&loaded.moves.lists) {
        *first = list.first;
    }
    for (list, helper) in (1..).zip(helpers.iter()) {
        orders.affinities[list] = affinities::of(helper).bits();
    }
    if let Some(pen) = loaded.pen {
        orders.pen = pen.entry();
        orders.back = secondary::entry(platform.image);
        for (list, helper) in (1..).zip(helpers.iter()).filter(|&(_, cpu)| loaded.penned.contains(cpu)) {
            orders.marks[list] = pen.mark(helper);
        }
    }
    if let Some(digests) = digests.filter(|_| !loaded.moves.lists.is_empty()) {
        add_checks(&mut orders, loaded, digests);
    }
    Ok(orders)
}

/// Has the orders check all segments that are moved. Those in place were checked just before, and
/// nothing is moved there.
fn add_checks(orders: &mut Orders, loaded: &Loaded, digests: &LoadDigests) {
    const { assert!(SEGMENT_ALIGN.is_multiple_of(BLOCK), "segments are whole blocks") };
    let all = loaded.segments.iter().zip(&digests.segments);
    let moved = all.filter(|(segment, _)| segment.staged != Staged::InPlace);
    for (check, (segment, &digest)) in orders.check.iter_mut().zip(moved) {
        *check = Check::new(segment.destination.start, segment.destination.len(), digest);
        orders.checks += 1;
    }
}

/// Writes `orders` to their frame at `at`.
pub fn write(memory: &Memory, at: Pa, orders: Orders) -> &'static Orders {
    let va = memory.layout.linear(at);
    // SAFETY: the frame was allocated for the orders, is aligned and mapped there, and nothing else
    // refers to it.
    let orders: &Orders = unsafe {
        let place = va.0 as *mut Orders;
        place.write(orders);
        &*place
    };
    cpu::clean_and_invalidate(va, size_of::<Orders>() as u64);
    orders
}
