//! The maps that are tried.

use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Geometry, Granule, Level, Pa, PaRange};

use crate::random::Random;

/// A map, its CPUs, and what may fail.
#[derive(Clone, Debug)]
pub struct Setting {
    pub geometry: Geometry,
    pub bbm: BbmLevel,
    pub leaves: Leaves,
    pub ranges: bool,
    pub memory: Vec<PaRange>,
    /// The kernel image, which has a mapping of its own.
    pub image: PaRange,
    pub read_only: u64,
    /// The length of the list of steps.
    pub steps: usize,
}

const MIB: u64 = 1 << 20;

pub fn range(start: u64, end: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(end))
}

impl Setting {
    pub fn random(random: &mut Random) -> Self {
        let shapes = [
            (Granule::K4, 48, 48),
            (Granule::K4, 39, 48),
            (Granule::K4, 52, 52),
            (Granule::K16, 47, 48),
            (Granule::K16, 47, 48),
            (Granule::K16, 48, 48),
            (Granule::K16, 50, 52),
            (Granule::K64, 42, 48),
            (Granule::K64, 48, 48),
            (Granule::K64, 52, 52),
        ];
        let (granule, va_bits, pa_bits) = random.pick(&shapes);
        let geometry = Geometry::new(granule, va_bits, pa_bits).expect("a shape that there is");
        let leaves =
            random.pick(&[Leaves::ContiguousBlocks, Leaves::ContiguousBlocks, Leaves::Blocks, Leaves::Pages]);
        let page = granule.bytes();
        let block = geometry.entry_bytes(Level::L2);
        let start = 0x4000_0000 + random.pick(&[0, 0, page, block - 3 * page, block]);
        // By pages, more than some tables take long.
        let most = if leaves == Leaves::Pages { 3 * block } else { random.pick(&[3 * block, 40 * block]) };
        let first = random.below(most / page).max(64) * page;
        let mut memory = vec![range(start, start + first)];
        if random.percent(50) {
            let gap = random.pick(&[page, 64 * page, block, 1 << 30]);
            let second = range(
                start + first + gap,
                start + first + gap + random.below(2 * block / page).max(1) * page,
            );
            memory.push(second);
        }
        let anywhere = start + random.below(first / page - 32) * page;
        let at = random.pick(&[start, start + 16 * page, anywhere]);
        Self {
            geometry,
            bbm: random.pick(&[
                BbmLevel::L0,
                BbmLevel::L0,
                BbmLevel::L1,
                BbmLevel::L2,
                BbmLevel::L3,
                BbmLevel::L3,
            ]),
            leaves,
            ranges: random.percent(50),
            memory,
            image: range(at, at + 6 * page),
            read_only: 2 * page,
            steps: if random.percent(20) { random.below(40) as usize } else { 1024 },
        }
    }

    pub fn page(&self) -> u64 {
        self.geometry.granule().bytes()
    }

    pub fn read_only(&self) -> PaRange {
        range(self.image.start.0, self.image.start.0 + self.read_only)
    }

    pub fn data(&self) -> PaRange {
        range(self.read_only().end.0, self.image.end.0)
    }

    /// Where the image is mapped for itself.
    pub fn image_va(&self) -> u64 {
        (u64::MAX << self.geometry.va_bits()) + (1 << (self.geometry.va_bits() - 1)) + 16 * MIB
    }

    /// The end of all memory.
    pub fn end(&self) -> u64 {
        self.memory.last().map_or(0, |range| range.end.0)
    }
}
