//! The MMU on, at whatever exception level QEMU's `virt` machine enters: memory and its UART at
//! their physical addresses, text that can be executed and not written. A store to text faults.

#![no_std]
#![no_main]

mod machine;

use linmap_table::{BumpFrames, DetachedTree, FirstMap, FirstMapError};
use linmap_vmsa::{Attributes, Geometry, Regime};

use machine::{RAM, UART, exit, invalidate, linked, say, store, turn_mmu_on};

/// The map of this program, for the regime in which it runs.
fn first_map(regime: Regime) -> Result<DetachedTree, FirstMapError> {
    let geometry = Geometry::K4_48.in_regime(regime);
    let mut map = FirstMap::<8>::new(geometry);
    map.identity(RAM, Attributes::KERNEL_DATA)?;
    map.identity(linked::text(), Attributes::KERNEL_TEXT)?;
    map.identity(UART, Attributes::DEVICE)?;
    // SAFETY: the linker script sets the memory aside, and the MMU is off.
    unsafe { map.build(0, &mut BumpFrames::new(linked::tables(), geometry)) }
}

/// Entered from `entry.S` with the exception level, and with the MMU off.
#[unsafe(no_mangle)]
extern "C" fn main(level: u64) -> ! {
    let regime = match level {
        1 => Regime::El1And0,
        2 => Regime::El2,
        _ => Regime::El3,
    };
    let registers = first_map(regime).map(|tree| tree.registers());
    let Ok(Ok(registers)) = registers else { exit("no map") };
    invalidate(linked::tables());
    // SAFETY: the tables map this code, its stack and the UART where they are.
    unsafe { turn_mmu_on(level, &registers) };
    say("the MMU is on in the regime ");
    say(regime.name());
    say("\n");
    // SAFETY: it faults: the text is read-only.
    unsafe { store(linked::text().start) };
    exit("text could be written")
}

/// Entered from the vectors: after a store to text this is the end.
#[unsafe(no_mangle)]
extern "C" fn exception(level: u64) -> ! {
    let (syndrome, address) = machine::fault(level);
    // A data abort from the same level, by a write, for a permission (Arm ARM D24.2, ESR_ELx).
    let is_write_refused = syndrome >> 26 == 0x25 && syndrome & 1 << 6 != 0 && syndrome & 0x3c == 0xc;
    if !is_write_refused || address != linked::text().start.0 {
        exit("an exception that nobody expected");
    }
    say("a store to text faults\n");
    machine::succeed()
}
