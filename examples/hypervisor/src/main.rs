//! A hypervisor that passes QEMU's whole `virt` machine to Linux, all but the memory of this
//! program and one CPU, which stays at EL2.

#![no_std]
#![no_main]

mod cpu;
mod dirty;
mod frames;
mod guest;
mod lock;
mod machine;
mod pages;
mod psci;
mod stage2;
mod trap;
mod tree;

use core::slice;

use linmap_table::{BumpFrames, FirstMap};
use linmap_vmsa::registers::Registers;
use linmap_vmsa::{Attributes, Geometry, Regime};

use cpu::Start;
use machine::{EDITOR, GUEST_IMAGE, GUEST_TREE, MACHINES_TREE, RAM, end, linked, say};
use psci::STARTS;
use stage2::STAGE2;

/// Builds the map of this program: all RAM where it is, and its text. Returns what to load.
fn own_map() -> Result<Registers, &'static str> {
    let regime = if cpu::has_vhe() { Regime::El2And0 } else { Regime::El2 };
    let geometry = Geometry::K4_48.in_regime(regime);
    let mut map = FirstMap::<4>::new(geometry);
    let full = |_| "the list of ranges is too short";
    map.identity(RAM, Attributes::KERNEL_DATA).map_err(full)?;
    map.identity(linked::text(), Attributes::KERNEL_TEXT).map_err(full)?;
    // SAFETY: the linker script sets the memory aside, and the MMU is off.
    let tree = unsafe { map.build(0, &mut BumpFrames::new(linked::own_tables(), geometry)) };
    tree.map_err(|_| "no memory for EL2's tables")?.registers().map_err(|_| "EL2's tables are out of reach")
}

/// Entered from `entry.S` on the boot CPU with the MMU off. What it returns is loaded.
#[unsafe(no_mangle)]
extern "C" fn prepare() -> &'static Start {
    let registers = own_map().unwrap_or_else(|error| end(Some(format_args!("{error}"))));
    STARTS[0].set(0, &registers, boot);
    // From now on they are read through caches, and so are the statics that `entry.S` cleared.
    cpu::invalidate(linked::cleared());
    cpu::invalidate(linked::own_tables());
    &STARTS[0]
}

/// Continues on the boot CPU with the MMU on.
extern "C" fn boot() -> ! {
    match set_up() {
        Ok(()) => {
            say!("enters the guest");
            guest::run()
        }
        Err(error) => end(Some(format_args!("{error}"))),
    }
}

fn set_up() -> Result<(), &'static str> {
    // SAFETY: the trees are memory that nothing else uses.
    let (machines, guests) = unsafe {
        (
            slice::from_raw_parts(MACHINES_TREE.start.0 as *const u8, MACHINES_TREE.len() as usize),
            slice::from_raw_parts_mut(GUEST_TREE.start.0 as *mut u8, GUEST_TREE.len() as usize),
        )
    };
    if tree::write(machines, guests)? > guests.len() {
        return Err("no room for the guest's device tree");
    }
    // The guest reads it with its MMU off.
    cpu::clean_and_invalidate(GUEST_TREE);
    STAGE2.lock().build()?;
    guest::set_entry(0, GUEST_IMAGE.0, GUEST_TREE.start.0);
    match psci::start(EDITOR, dirty::edit) {
        0 => Ok(()),
        _ => Err("the editor's CPU does not start"),
    }
}
