//! The program of `examples/first-map` with its map by `aarch64-paging`. Registers, UART and
//! vectors are the same file.

#![no_std]
#![no_main]

#[path = "../../first-map/src/machine.rs"]
mod machine;

use core::ptr::NonNull;

use aarch64_paging::MapError;
use aarch64_paging::descriptor::{El1Attributes, El23Attributes, PagingAttributes, PhysicalAddress};
use aarch64_paging::mair::{Mair, MairAttribute, NormalMemory};
use aarch64_paging::paging::{
    Constraints, El1And0, El2, El3, MemoryRegion, PAGE_SIZE, PageTable, RootTable, Translation,
    TranslationRegime, VaRange,
};
use linmap_vmsa::PaRange;
use linmap_vmsa::registers::Registers;

use machine::{RAM, UART, exit, invalidate, linked, say, store, turn_mmu_on};

const WRITE_BACK: NormalMemory = NormalMemory::WriteBackNonTransientReadWriteAllocate;
const MAIR: Mair = Mair::EMPTY
    .with_attribute(0, MairAttribute::normal(WRITE_BACK, WRITE_BACK))
    .with_attribute(1, MairAttribute::DEVICE_NGNRE);

/// What EL1 may do with memory, with text and with devices.
const EL1: [El1Attributes; 3] = {
    let all = El1Attributes::VALID
        .union(El1Attributes::INNER_SHAREABLE)
        .union(El1Attributes::ACCESSED)
        .union(El1Attributes::UXN);
    [
        all.union(El1Attributes::PXN),
        all.union(El1Attributes::READ_ONLY),
        all.union(El1Attributes::PXN).union(El1Attributes::ATTRIBUTE_INDEX_1),
    ]
};

/// The same for EL2 and EL3.
const EL2_AND_3: [El23Attributes; 3] = {
    let all = El23Attributes::VALID
        .union(El23Attributes::INNER_SHAREABLE)
        .union(El23Attributes::ACCESSED)
        .union(El23Attributes::USER_RES1);
    [
        all.union(El23Attributes::XN),
        all.union(El23Attributes::READ_ONLY),
        all.union(El23Attributes::XN).union(El23Attributes::ATTRIBUTE_INDEX_1),
    ]
};

/// The next of the linker script's frames for tables.
struct Tables(usize);

impl<A: PagingAttributes> Translation<A> for Tables {
    fn allocate_table(&mut self) -> (NonNull<PageTable<A>>, PhysicalAddress) {
        let address = PhysicalAddress(self.0);
        if self.0 as u64 == linked::tables().end.0 {
            exit("no frame");
        }
        self.0 += PAGE_SIZE;
        let table = self.physical_to_virtual(address);
        // SAFETY: the linker script sets the frame aside, and it is handed out once.
        unsafe { table.write_bytes(0, 1) };
        (table, address)
    }

    unsafe fn deallocate_table(&mut self, _: NonNull<PageTable<A>>) {}

    fn physical_to_virtual(&self, address: PhysicalAddress) -> NonNull<PageTable<A>> {
        NonNull::new(address.0 as *mut _).unwrap_or_else(|| exit("a table at 0"))
    }
}

/// Maps the ranges of this program. Returns the address of the root.
fn map<R: TranslationRegime>(
    mut root: RootTable<R, Tables>,
    attributes: [R::Attributes; 3],
) -> Result<u64, MapError> {
    for (range, attributes) in [RAM, linked::text(), UART].into_iter().zip(attributes) {
        let PaRange { start, end } = range;
        let region = MemoryRegion::new(start.0 as usize, end.0 as usize);
        root.map_range(&region, PhysicalAddress(start.0 as usize), attributes, Constraints::empty())?;
    }
    Ok(root.to_physical().0 as u64)
}

/// The map of this program, for the exception level at which it runs.
fn first_map(level: u64) -> Result<Registers, MapError> {
    let tables = Tables(linked::tables().start.0 as usize);
    // T0SZ, walks, and the PA size; EPD1 at EL1, bits that are RES1 at EL2 and EL3.
    let tcr = 16 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12;
    let (tcr, ttbr0) = match level {
        1 => {
            let root = RootTable::with_va_range(tables, 0, El1And0, VaRange::Lower);
            (tcr | 1 << 23 | 16 << 16 | 0b10 << 30 | 5 << 32, map(root, EL1)?)
        }
        2 => (tcr | 5 << 16 | 1 << 23 | 1 << 31, map(RootTable::new(tables, 0, El2), EL2_AND_3)?),
        _ => (tcr | 5 << 16 | 1 << 23 | 1 << 31, map(RootTable::new(tables, 0, El3), EL2_AND_3)?),
    };
    Ok(Registers { mair: MAIR.0, tcr, ttbr0: Some(ttbr0), ttbr1: None, sctlr: 1 | 1 << 2 | 1 << 12 })
}

/// Entered from `entry.S` with the exception level, and with the MMU off.
#[unsafe(no_mangle)]
extern "C" fn main(level: u64) -> ! {
    let Ok(registers) = first_map(level) else { exit("no map") };
    invalidate(linked::tables());
    // SAFETY: the tables map this code, its stack and the UART where they are.
    unsafe { turn_mmu_on(level, &registers) };
    say("the MMU is on\n");
    // SAFETY: it faults: the text is read-only.
    unsafe { store(linked::text().start) };
    exit("text could be written")
}

/// Entered from the vectors: after a store to text this is the end.
#[unsafe(no_mangle)]
extern "C" fn exception(level: u64) -> ! {
    let (syndrome, address) = machine::fault(level);
    let is_write_refused = syndrome >> 26 == 0x25 && syndrome & 1 << 6 != 0 && syndrome & 0x3c == 0xc;
    if !is_write_refused || address != linked::text().start.0 {
        exit("an exception that nobody expected");
    }
    say("a store to text faults\n");
    machine::succeed()
}
