//! Where everything lies, and the tables that the kernel starts on.
//!
//! ```text
//! −512G        the linear map
//! −2G + PA     the GIC and the UART in a 2M block each, text in one, data in the next
//! −4M          a fixmap
//! ```

use core::mem::offset_of;
use core::ptr::NonNull;

use linmap::{BuilderSlots, ImageParts};
use linmap_table::Leaves;
use linmap_table::verify::{Content, Expected, Validity};
use linmap_vmsa::{
    Attributes, Descriptor, Geometry, Granule, Level, Pa, PaRange, TablePermissions, Va, VaRange,
};

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
const DEVICE_BLOCKS: [(PaRange, Attributes); 2] =
    [(block(0x0800_0000), Attributes::DEVICE), (block(0x0900_0000), Attributes::DEVICE)];
const IMAGE_BLOCKS: [(PaRange, Attributes); 2] =
    [(IMAGE.read_only, Attributes::KERNEL_TEXT), (IMAGE.data, Attributes::KERNEL_DATA)];

const fn block(start: u64) -> PaRange {
    PaRange { start: Pa(start), end: Pa(start + (2 << 20)) }
}

/// One table.
#[repr(C, align(4096))]
struct Table([u64; 512]);

impl Table {
    const EMPTY: Self = Self([0; 512]);

    /// The same table with `descriptor` for `va`.
    const fn with(mut self, level: Level, va: u64, descriptor: Descriptor) -> Self {
        self.0[G.index(Va(va), level)] = descriptor.0;
        self
    }

    /// The same table at level 2 with these blocks.
    const fn with_blocks(mut self, blocks: &[(PaRange, Attributes)]) -> Self {
        let mut nth = 0;
        while nth < blocks.len() {
            let (range, attributes) = blocks[nth];
            let Ok(leaf) = Descriptor::leaf(G, Level::L2, range.start, attributes) else {
                panic!("a block of 2M")
            };
            self = self.with(Level::L2, range.start.0, leaf);
            nth += 1;
        }
        self
    }
}

/// The tables at the start of the data: the kernel starts on them, and stays on them.
#[repr(C)]
struct Tables {
    root: Table,
    devices: Table,
    image: Table,
    slots: Table,
    identity: Table,
    identity_image: Table,
    nothing: Table,
    surgery: [Table; 4],
}

const fn at(offset: usize) -> Pa {
    Pa(IMAGE.data.start.0 + offset as u64)
}

pub const ROOT: Pa = at(offset_of!(Tables, root));
/// The identity map, which has the image alone.
pub const IDENTITY: Pa = at(offset_of!(Tables, identity));
/// A root that translates nothing.
pub const NOTHING: Pa = at(offset_of!(Tables, nothing));
/// Frames for the surgery root.
pub const SURGERY: PaRange = PaRange { start: at(offset_of!(Tables, surgery)), end: at(size_of::<Tables>()) };

#[unsafe(link_section = ".tables")]
#[used]
static mut TABLES: Tables = {
    const fn below(offset: usize) -> Descriptor {
        Descriptor::table(G, at(offset))
    }
    Tables {
        root: Table::EMPTY.with(Level::L1, OFFSET, below(offset_of!(Tables, devices))).with(
            Level::L1,
            IMAGE.va.0,
            below(offset_of!(Tables, image)),
        ),
        devices: Table::EMPTY.with_blocks(&DEVICE_BLOCKS),
        image: Table::EMPTY.with_blocks(&IMAGE_BLOCKS).with(
            Level::L2,
            FIXMAP.0,
            below(offset_of!(Tables, slots)),
        ),
        slots: Table::EMPTY,
        identity: Table::EMPTY.with(Level::L1, IMAGE.data.start.0, below(offset_of!(Tables, identity_image))),
        identity_image: Table::EMPTY.with_blocks(&IMAGE_BLOCKS),
        nothing: Table::EMPTY,
        surgery: [const { Table::EMPTY }; 4],
    }
};

/// The entries of the fixmap.
pub fn slots() -> NonNull<u64> {
    let slots = at(offset_of!(Tables, slots)).0 + OFFSET;
    NonNull::new(slots as *mut u64).expect("not 0")
}

/// Where the image and the devices are mapped: what the surgery root has too.
pub fn mapped() -> [VaRange; 4] {
    let [gic, uart] = DEVICE_BLOCKS;
    let [text, data] = IMAGE_BLOCKS;
    [gic, uart, text, data].map(|(range, _)| VaRange::new(Va(range.start.0 + OFFSET), range.len()))
}

/// What the tables must say besides the linear map.
pub fn expected() -> impl Iterator<Item = Expected> {
    let blocks = DEVICE_BLOCKS.into_iter().chain(IMAGE_BLOCKS).map(|(range, attributes)| Expected {
        va: Va(range.start.0 + OFFSET),
        len: range.len(),
        content: Content::Leaves {
            pa: range.start,
            attributes,
            validity: Validity::Valid,
            leaves: Leaves::Blocks,
        },
        tables: TablePermissions::UNRESTRICTED,
    });
    let (content, tables) = (Content::FreeSlots, TablePermissions::UNRESTRICTED);
    blocks.chain([Expected { va: FIXMAP, len: 2 << 20, content, tables }])
}
