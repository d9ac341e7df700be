//! What the other kernel decides: where everything lies, and which fixmap slots are whose.

use linmap::{BuilderSlots, ImageParts};
use linmap_vmsa::{Geometry, Pa, PaRange, Va};

pub const CPUS: usize = 3;
pub const G: Geometry = Geometry::K4_48;
pub const RAM: PaRange = range(0x8000_0000, 0x800_0000);
pub const IMAGE: ImageParts = ImageParts {
    read_only: range(0x8020_0000, 0x10_0000),
    data: range(0x8030_0000, 0x8_0000),
    va: Va(0xffff_e123_4000_0000),
};
pub const FIXMAP: Va = Va(0xffff_f000_0000_0000);
pub const UART: Pa = Pa(0x0900_0000);
pub const UART_SLOT: usize = 3;
pub const SLOTS: BuilderSlots = BuilderSlots { tables: [0, 1, 2, 4, 5], leaf_tables: 100..116 };

pub const fn range(start: u64, len: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(start + len))
}
