//! The page that is edited: two frames, of which one is mapped, and the entries that map it.

use linmap_vmsa::{Geometry, Granule, HardwareUpdates, Level, Pa, PaRange, Va};

use crate::machine;

/// Where the page is mapped.
pub const VA: u64 = 0x8000_0000;

/// The address bits of a descriptor, for both granules.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The two frames, and one for a new table.
#[repr(C, align(65536))]
struct Frames([[u64; 8192]; 3]);

static mut FRAMES: Frames = Frames([[0; 8192]; 3]);

fn frame(number: u64) -> PaRange {
    let page = geometry().page_bytes();
    let start = Pa(&raw const FRAMES as u64 + number * 0x1_0000);
    PaRange { start, end: Pa(start.0 + page) }
}

/// The frame that is mapped first.
pub fn first_frame() -> PaRange {
    frame(0)
}

/// A frame for a table.
pub fn table_frame() -> u64 {
    frame(2).start.0
}

/// Pages of 4 KiB, or of 64 KiB if the command line says so.
pub fn geometry() -> Geometry {
    const fn of(granule: Granule, va_bits: u8) -> Geometry {
        match Geometry::new(granule, va_bits, 40) {
            Ok(geometry) => geometry,
            Err(_) => panic!("a size that TCR has"),
        }
    }
    let (text, len) = machine::command_line();
    if machine::words(&text[..len]).any(|word| word == b"64k") {
        const { of(Granule::K64, 42) }
    } else {
        const { of(Granule::K4, 39) }
    }
}

/// What hardware updates in leaves, if the command line says so.
pub fn updates() -> HardwareUpdates {
    let (text, len) = machine::command_line();
    let is_on = machine::words(&text[..len]).any(|word| word == b"updates");
    if is_on { HardwareUpdates::AccessedAndDirty } else { HardwareUpdates::Off }
}

/// The page, by the entries that lead to it.
pub struct Page {
    /// The leaf.
    pub leaf: *mut u64,
    /// The descriptor that maps the other frame.
    pub other: u64,
    /// The entry that leads to the table of the leaf.
    pub above: *mut u64,
    /// That table, and how many entries it has.
    pub table: *mut u64,
    /// The number of its entries.
    pub entries: usize,
}

impl Page {
    /// Finds the page below the root, and gives both frames their content.
    pub fn find() -> Self {
        for (number, content) in [(0, OLD), (1, NEW)] {
            // SAFETY: the frame is ours, and mapped where it is.
            unsafe { (frame(number).start.0 as *mut u64).write_volatile(content) };
        }
        let geometry = geometry();
        let (leaf, above) = (entry(VA, Level::L3), entry(VA, Level::L2));
        // SAFETY: the entry is in memory that is mapped.
        let now = unsafe { leaf.read_volatile() };
        let other = now & !ADDRESS | frame(1).start.0;
        let table = (leaf as u64 & !(geometry.page_bytes() - 1)) as *mut u64;
        Self { leaf, other, above, table, entries: geometry.entries(Level::L3) }
    }
}

/// What the first frame holds.
pub const OLD: u64 = 1;
/// What the other frame holds.
pub const NEW: u64 = 2;

/// What the page reads as.
pub fn content() -> u64 {
    // SAFETY: the page is mapped.
    unsafe { (VA as *const u64).read_volatile() }
}

/// The entry of `va` at `level`, found as the CPU does.
pub fn entry(va: u64, level: Level) -> *mut u64 {
    let geometry = geometry();
    let mut table: u64;
    // SAFETY: reading the register has no effect.
    unsafe { core::arch::asm!("mrs {}, ttbr0_el1", out(reg) table, options(nomem, nostack)) };
    let mut at = geometry.start_level();
    loop {
        let entry = ((table & ADDRESS) as *mut u64).wrapping_add(geometry.index(Va(va), at));
        let Some(next) = at.next().filter(|_| at != level) else { return entry };
        // SAFETY: the tables are in memory that is mapped where it is.
        table = unsafe { entry.read_volatile() };
        if table & 3 != 3 {
            machine::fail(format_args!("{va:#x} is not mapped by a table at {at:?}"));
        }
        at = next;
    }
}
