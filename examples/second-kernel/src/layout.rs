//! Where everything lies, and the tables that the kernel starts on.
//!
//! ```text
//! −512G        the linear map
//! −2G + PA     the GIC and the UART in a 2M block each, text in one, data in the next
//! −4M          a fixmap
//! ```

use core::ptr::NonNull;

use linmap::{BuilderSlots, ImageParts};
use linmap_table::Leaves;
use linmap_table::verify::{Content, Expected, Validity};
use linmap_vmsa::{Attributes, Descriptor, Geometry, Granule, Level, Pa, PaRange, Va, VaRange};

/// 39 bits of VA in each half, 40 bits of PA.
pub const G: Geometry = match Geometry::new(Granule::K4, 39, 40) {
    Ok(geometry) => geometry,
    Err(_) => panic!("a size of the architecture"),
};
/// How many CPUs run.
pub const CPUS: usize = 4;
/// Memory of QEMU's `virt` machine, as much as `-m 128M` gives.
pub const RAM: PaRange = PaRange { start: Pa(0x4000_0000), end: Pa(0x4800_0000) };
/// VA − PA of the image and of the devices.
pub const OFFSET: u64 = 0xffff_ffff_8000_0000;
/// The image, as the linker script places it.
pub const IMAGE: ImageParts =
    ImageParts { read_only: block(0x4020_0000), data: block(0x4040_0000), va: Va(0x4020_0000 + OFFSET) };
/// The interrupt controller: distributor and redistributors.
pub const GICD: Va = Va(0x0800_0000 + OFFSET);
pub const GICR: Va = Va(0x080a_0000 + OFFSET);
/// The console.
pub const UART: Va = Va(0x0900_0000 + OFFSET);

/// The fixmap: five slots for linmap's builder, then five pages for the surgery root.
pub const FIXMAP: Va = Va(0xffff_ffff_ffc0_0000);
pub const SLOTS: BuilderSlots = BuilderSlots { tables: [0, 1, 2, 3, 4], leaf_tables: 0..0 };
pub const WINDOWS: Va = Va(FIXMAP.0 + 5 * 0x1000);

/// Everything that the kernel has mapped beside the linear map, in 2M blocks at [`OFFSET`].
const BLOCKS: [(PaRange, Attributes); 4] = [
    (block(0x0800_0000), Attributes::DEVICE),
    (block(0x0900_0000), Attributes::DEVICE),
    (IMAGE.read_only, Attributes::KERNEL_TEXT),
    (IMAGE.data, Attributes::KERNEL_DATA),
];

const fn block(start: u64) -> PaRange {
    PaRange { start: Pa(start), end: Pa(start + (2 << 20)) }
}

/// One table.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
pub struct Table([u64; 512]);

/// The tables at the start of the data, each by its index in [`TABLES`].
pub const ROOT: Pa = table(0);
const DEVICES: Pa = table(1);
const HIGH: Pa = table(2);
const SLOT_TABLE: Pa = table(3);
/// The identity map, which has the image alone.
pub const IDENTITY: Pa = table(4);
const LOW: Pa = table(5);
/// A root that translates nothing.
pub const NOTHING: Pa = table(6);
/// Frames for the surgery root.
pub const SURGERY: PaRange = PaRange { start: table(7), end: table(11) };

const fn table(index: u64) -> Pa {
    Pa(IMAGE.data.start.0 + index * 0x1000)
}

#[unsafe(link_section = ".tables")]
#[used]
static mut TABLES: [Table; 11] = {
    let mut tables = [Table([0; 512]); 11];
    tables[0].0[510] = Descriptor::table(G, DEVICES).0;
    tables[0].0[511] = Descriptor::table(G, HIGH).0;
    tables[2].0[G.index(FIXMAP, Level::L2)] = Descriptor::table(G, SLOT_TABLE).0;
    tables[4].0[1] = Descriptor::table(G, LOW).0;
    let mut nth = 0;
    while nth < BLOCKS.len() {
        let (range, attributes) = BLOCKS[nth];
        let Ok(leaf) = Descriptor::leaf(G, Level::L2, range.start, attributes) else { panic!() };
        let index = G.index(Va(range.start.0), Level::L2);
        if nth < 2 {
            tables[1].0[index] = leaf.0;
        } else {
            tables[2].0[index] = leaf.0;
            tables[5].0[index] = leaf.0;
        }
        nth += 1;
    }
    tables
};

/// The entries of the fixmap.
pub fn slots() -> NonNull<u64> {
    NonNull::new((SLOT_TABLE.0 + OFFSET) as *mut u64).expect("not 0")
}

/// Where the image and the devices are mapped: what the surgery root has too.
pub fn mapped() -> [VaRange; 4] {
    BLOCKS.map(|(range, _)| VaRange::new(Va(range.start.0 + OFFSET), range.len()))
}

/// What the tables must say besides the linear map.
pub fn expected() -> impl Iterator<Item = Expected> {
    let blocks = BLOCKS.into_iter().map(|(range, attributes)| Expected {
        va: Va(range.start.0 + OFFSET),
        len: range.len(),
        content: Content::Leaves {
            pa: range.start,
            attributes,
            validity: Validity::Valid,
            leaves: Leaves::Blocks,
        },
    });
    blocks.chain([Expected { va: FIXMAP, len: 2 << 20, content: Content::FreeSlots }])
}
