//! Machines to try changes on: their CPUs, and what memory they have.

use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Geometry, Granule, Level, Pa, PaRange, Va};

use super::random::Random;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A machine and the kernel on it.
#[derive(Clone, Debug)]
pub struct Setting {
    pub geometry: Geometry,
    pub cpus: usize,
    pub bbm: BbmLevel,
    pub leaves: Leaves,
    pub range_invalidation: bool,
    pub ram: Vec<PaRange>,
    pub no_map: Vec<PaRange>,
    /// Where memory may come and go.
    pub spare: PaRange,
    /// Where the kernel image is, whose first part is text and read-only data.
    pub image: PaRange,
    pub text_len: u64,
    /// The end of memory, where frames for tables are taken from. It is never made read-only or
    /// invalid.
    pub tables: PaRange,
}

pub const fn range(start: u64, len: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(start + len))
}

impl Setting {
    fn new(granule: Granule, va_bits: u8, ram: &[PaRange], image: PaRange, spare: PaRange) -> Self {
        let geometry = Geometry::new(granule, va_bits, 48).expect("a shape that there is");
        let end = ram.last().expect("some memory").end;
        Self {
            geometry,
            cpus: 2,
            bbm: BbmLevel::L3,
            leaves: Leaves::ContiguousBlocks,
            range_invalidation: false,
            ram: ram.to_vec(),
            no_map: Vec::new(),
            spare,
            image,
            text_len: 0x8_0000,
            tables: PaRange::new(Pa(end.0 - 32 * MIB), end),
        }
    }

    /// Two regions, and memory that may be added between them. It is small enough for a map of
    /// pages.
    pub fn joined() -> Self {
        let ram = [range(GIB, 128 * MIB), range(GIB + 160 * MIB, 96 * MIB)];
        let image = range(GIB + 2 * MIB, 2 * MIB - 0x5000);
        Self::new(Granule::K4, 48, &ram, image, range(GIB + 128 * MIB, 32 * MIB))
    }

    /// A first region of a few pages at address 0, ends that are not page-aligned, and holes that
    /// must not be mapped.
    pub fn ragged() -> Self {
        let ram = [
            range(0, 0x9000),
            range(0xf_f400, 0x3_1800),
            range(0x4000_1800, 70 * MIB + 0x400),
            range(0x5000_0000, 66 * MIB + 0xc00),
        ];
        let no_map = vec![
            range(0x4123_4000, 0x5000),
            range(0x4200_0800, 0xa00),
            range(0x5040_0000, 2 * MIB),
            range(0x4700_0000, 0x3000),
        ];
        let image = range(0x4040_0000, 0x1b_3000);
        Self {
            no_map,
            spare: range(0x4680_0000, 16 * MIB),
            ..Self::new(Granule::K4, 48, &ram, image, range(0, 0))
        }
    }

    /// Blocks of 1 GiB, and one that comes with the memory that is missing. The image's alias is a
    /// block of its own.
    pub fn large() -> Self {
        let ram = [range(GIB, 6 * MIB), range(2 * GIB, 2 * GIB + 64 * MIB)];
        let image = range(2 * GIB + 512 * MIB, 2 * MIB);
        Self::new(Granule::K4, 48, &ram, image, range(GIB + 6 * MIB, GIB - 6 * MIB))
    }

    /// A root at level 1.
    pub fn short() -> Self {
        let setting = Self::joined();
        Self { geometry: Geometry::new(Granule::K4, 39, 40).expect("a shape that there is"), ..setting }
    }

    pub fn pages_of_16k() -> Self {
        let ram = [range(GIB, 160 * MIB), range(GIB + 192 * MIB, 96 * MIB)];
        let image = range(GIB + 2 * MIB, 2 * MIB);
        Self::new(Granule::K16, 47, &ram, image, range(GIB + 160 * MIB, 32 * MIB))
    }

    pub fn pages_of_64k() -> Self {
        let ram = [range(GIB, GIB - 64 * MIB), range(2 * GIB, 512 * MIB)];
        let image = range(GIB + 2 * MIB, 2 * MIB);
        Self::new(Granule::K64, 42, &ram, image, range(2 * GIB - 64 * MIB, 64 * MIB))
    }

    pub fn with_bbm(self, bbm: BbmLevel) -> Self {
        Self { bbm, ..self }
    }

    pub fn with_leaves(self, leaves: Leaves) -> Self {
        Self { leaves, ..self }
    }

    pub fn random(random: &mut Random) -> Self {
        const LEVELS: [BbmLevel; 5] = [BbmLevel::L3, BbmLevel::L3, BbmLevel::L2, BbmLevel::L1, BbmLevel::L0];
        const KINDS: [fn() -> Setting; 8] = [
            Setting::joined,
            Setting::joined,
            Setting::ragged,
            Setting::ragged,
            Setting::large,
            Setting::short,
            Setting::pages_of_16k,
            Setting::pages_of_64k,
        ];
        let kind = random.below(KINDS.len() as u64) as usize;
        let setting = KINDS[kind]();
        // Gigabytes by pages would take long, and say no more.
        let small = setting.ram.iter().map(|ram| ram.len()).sum::<u64>() < GIB;
        let leaves = if small && random.percent(20) { Leaves::Pages } else { Leaves::ContiguousBlocks };
        Self {
            cpus: 2 + random.below(3) as usize,
            bbm: random.pick(&LEVELS),
            leaves,
            range_invalidation: random.percent(50),
            ..setting
        }
    }

    pub fn page(&self) -> u64 {
        self.geometry.granule().bytes()
    }

    /// The image's text and read-only data.
    pub fn text(&self) -> PaRange {
        PaRange::new(self.image.start, Pa(self.image.start.0 + self.text_len))
    }

    /// The part of the image's data that nothing needs: what is tried out on data is tried out
    /// there.
    pub fn scratch(&self) -> PaRange {
        let start = self.text().end;
        PaRange::new(start, Pa(start.0 + 0x4_0000))
    }

    /// The image's data.
    pub fn data(&self) -> PaRange {
        PaRange::new(self.text().end, self.image.end)
    }

    /// Where the image is mapped for itself: for the common shape where the kernel has it.
    pub fn image_va(&self) -> Va {
        let half = u64::MAX << self.geometry.va_bits();
        Va(half + (1 << (self.geometry.va_bits() - 1)) + 2 * GIB)
    }

    pub fn fixmap_va(&self) -> Va {
        Va(self.image_va().0 + 2 * self.geometry.entry_bytes(Level::L2))
    }
}
