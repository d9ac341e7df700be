//! The mailbox of a spin table: the word that its CPUs watch for the address to start at.

use core::ptr;

use linmap_vmsa::{Attributes, Pa, PaRange, Va};

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::layout::{GRANULE, slot};
use crate::memory::physical::Memory;
use crate::smp::error::Why;

/// Writes `entry` to the mailbox at `release`, through to memory, where a CPU that waits without
/// caches sees it.
///
/// # Errors
/// [`Why::MailboxOutOfReach`]: it needs more than `pa_bits` bits of physical address.
pub fn write(memory: &mut Memory, release: Pa, entry: Pa, pa_bits: u8) -> Result<(), Why> {
    if release.0 >> pa_bits != 0 {
        return Err(Why::MailboxOutOfReach { release, pa_bits });
    }
    let word = PaRange::new(release, Pa(release.0 + 8));
    let in_linear_map = memory.is_mapped(word);
    let va = if in_linear_map {
        memory.layout.linear(release)
    } else {
        const PAGE: u64 = GRANULE.bytes();
        let frame = Pa(release.0 & !(PAGE - 1));
        // SAFETY: the mailbox is memory, by booting.rst, and only assembly accesses it here.
        let _ = unsafe { memory.fixmap.map(&mut ThisCpu, slot::MOMENT, frame, Attributes::KERNEL_DATA) };
        let mapped = memory.fixmap.address(slot::MOMENT);
        Va(mapped.0 + (release.0 & (PAGE - 1)))
    };
    let pointer = ptr::with_exposed_provenance_mut::<u64>(va.0 as usize);
    // SAFETY: the word is mapped there, writable and aligned. The topology has checked that it is
    // not memory that memblock hands out, so no Rust reference leads to it.
    unsafe { pointer.write_volatile(entry.0.to_le()) };
    cpu::clean_and_invalidate(va, 8);
    cpu::send_event();
    if !in_linear_map {
        memory.fixmap.clear(&mut ThisCpu, slot::MOMENT);
    }
    Ok(())
}
